//! How much may be under way to another node.
//!
//! Packets that overtake one another are taken for lost, and a few percent of them are lost for no reason of load. Cubic
//! answers both by halving, down to two packets a round trip, and then elections wait behind what they have themselves
//! caused to be sent again. Between nodes it never goes below a window that such a network carries easily.

use std::{any::Any, sync::Arc};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

/// Bytes that may always be under way: what consensus sends of all shards in a round trip.
const FLOOR: u64 = 64 * 1024;

/// Makes controllers for connections between nodes.
#[derive(Default)]
pub(super) struct Floored(Arc<CubicConfig>);

impl ControllerFactory for Floored {
    fn build(self: Arc<Self>, now: std::time::Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(AboveFloor(self.0.clone().build(now, current_mtu)))
    }
}

/// Cubic, where it says more than the floor.
struct AboveFloor(Box<dyn Controller>);

impl Controller for AboveFloor {
    fn on_sent(&mut self, now: std::time::Instant, bytes: u64, last_packet_number: u64) {
        self.0.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: std::time::Instant,
        sent: std::time::Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &quinn_proto::RttEstimator,
    ) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: std::time::Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.0.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: std::time::Instant,
        sent: std::time::Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.0.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.0.window().max(FLOOR)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.0.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone_box()))
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window().max(FLOOR)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
