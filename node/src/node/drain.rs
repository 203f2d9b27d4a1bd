//! A node that is drained lets its sessions go, a few at a time: their devices connect elsewhere.

use std::{sync::Arc, time::Duration};

use super::Shared;

/// How often some are let go.
const EVERY: Duration = Duration::from_millis(100);

/// Runs as long as the node does.
pub(super) async fn shed_sessions(shared: Arc<Shared>) {
    let per_turn = (f64::from(shared.config.gateway.drain_rate) * EVERY.as_secs_f64()).ceil() as usize;
    loop {
        if shared.is_draining() {
            shared.sessions.let_go(per_turn);
            tokio::time::sleep(EVERY).await;
        } else {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
