//! How nodes talk to each other: requests with answers, and messages without, over lanes that do not wait for each
//! other.
//!
//! [`quic`] is the real one, with mutual TLS under the cluster's authority ([`tls`]); [`memory`] joins the nodes of
//! one process, for tests, and loses, delays and cuts on demand. Neither knows what travels.

pub mod memory;
pub mod quic;
pub mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use magpie_protocol::NodeId;

use crate::consensus::BoxFuture;

/// Longest request, answer or message, in bytes.
pub const MESSAGE_LEN_MAX: usize = 16 * 1024 * 1024;

/// What travels together, in order, and is sent before what travels on the lanes below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, heartbeats, entries.
    Consensus,
    /// Commands and reads for another node's shards, their answers, hints.
    Requests,
    /// Snapshots. It delays nobody.
    Bulk,
}

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Consensus, Self::Requests, Self::Bulk];
}

/// Why there is no answer. Only [`LinkError::Refused`] says that the peer has not seen the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It was not sent: the peer is not known, not connected, its lane is full, or the request is too long.
    #[error("not sent to {to}: {why}")]
    Refused { to: NodeId, why: String },
    /// It may have been sent: the connection broke, or no answer came in time.
    #[error("no answer from {to}: {why}")]
    Lost { to: NodeId, why: String },
}

/// Gives the answer to a request. May be called from any thread, once; dropped, the caller waits in vain until its
/// time is over.
pub type Answer = Box<dyn FnOnce(Bytes) + Send>;

/// What a node does with what others send. Calls must not block; those of one lane of one peer come in the order in
/// which they were sent.
pub trait Service: Send + Sync + 'static {
    /// A request, from a peer whose certificate says who it is.
    fn on_request(&self, from: NodeId, lane: Lane, request: Bytes, answer: Answer);
    /// A message that asks for no answer.
    fn on_message(&self, from: NodeId, lane: Lane, message: Bytes);
}

/// The way to the other nodes. What one node sends another on one lane arrives in order or not at all.
pub trait Transport: Send + Sync + 'static {
    /// Where the other nodes are. Connections to those that are gone are closed; others are made and kept as long as
    /// they are listed here.
    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>);
    /// Nodes that are no peers, and may ask all the same: those that are to be told that they were removed.
    fn set_guests(&self, guests: BTreeSet<NodeId>);
    /// Who answers from now on. Set once; what comes before is dropped.
    fn set_service(&self, service: Arc<dyn Service>);
    /// Asks a peer. The request is on its way, behind those before it, when this returns.
    fn call(&self, to: NodeId, lane: Lane, request: Bytes, within: Duration) -> BoxFuture<Result<Bytes, LinkError>>;
    /// Tells a peer. It may be lost.
    fn tell(&self, to: NodeId, lane: Lane, message: Bytes);
    /// Which peers a connection stands to.
    fn connected(&self) -> Vec<NodeId>;
    /// Closes every connection and takes no more.
    fn stop(&self) -> BoxFuture<()>;
}
