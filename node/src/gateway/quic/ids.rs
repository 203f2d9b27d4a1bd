//! Connection ids: each says which socket its connection is of.
//!
//! Where several sockets share an address, the system chooses one by where a packet comes from. A device that goes on
//! from another address comes to another socket, which passes on what is not its own.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use rand::RngCore;

/// Bytes of an id. Fewer random ones would be drawn twice: quinn's own default draws from 2^24, and with 1,000 connections
/// of some ids each, one Retry in a few thousand would hand out an id that is taken, and its caller would wait in vain.
const LEN: usize = 8;
/// So many sockets can be told apart.
pub const PLACES_MAX: usize = 256;

/// Ids of one socket's connections.
#[derive(Debug)]
pub(super) struct ConnectionIds {
    place: u8,
}

impl ConnectionIds {
    /// Of the socket in this place.
    pub(super) fn new(place: usize) -> Self {
        Self { place: place as u8 }
    }
}

/// Not quinn's hashed ones: a node would not own an id from before a restart, and say nothing to the device that uses it.
impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LEN];
        rand::rng().fill_bytes(&mut id);
        id[0] = self.place;
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Which socket a packet is for, as its id says: of a connection that stands, and so has a short header. What comes before
/// that comes from one address. A stateless reset looks the same, but what it says here is drawn: one that goes astray is
/// followed by another, or by silence, which ends the connection as well.
pub(super) fn place_of(datagram: &[u8]) -> Option<usize> {
    match datagram {
        [first, place, ..] if first & 0x80 == 0 && datagram.len() > LEN => Some(usize::from(*place)),
        _ => None,
    }
}
