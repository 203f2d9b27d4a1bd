//! Frames on a lane's stream: `len u32 | id u64 | payload`, little endian. Id 0 asks for no answer.
//!
//! The first frame in each direction is the hello, which names the version and the lane.

use std::mem;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::transport::{Lane, MESSAGE_LEN_MAX};

const HEADER_LEN: usize = 12;
const VERSION: u16 = 1;
const HELLO_LEN: usize = 3;
/// Longer payloads are handed on as they are; for shorter ones a copy costs less than a piece of their own.
const COPIED_LEN_MAX: usize = 4096;

/// The peer does not speak as agreed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes, over the limit of {MESSAGE_LEN_MAX}")]
    TooLong(u32),
    #[error("no hello of version {VERSION} for one of the lanes: {0:?}; nodes of one cluster run builds that match")]
    Hello(Vec<u8>),
    #[error("{0}")]
    Unexpected(&'static str),
}

/// The payload of the first frame.
pub(super) fn hello(lane: Lane) -> Bytes {
    let mut hello = BytesMut::with_capacity(HELLO_LEN);
    hello.put_u16_le(VERSION);
    hello.put_u8(lane as u8);
    hello.freeze()
}

/// The lane that a first frame names.
pub(super) fn lane_of_hello(id: u64, payload: &[u8]) -> Result<Lane, FrameError> {
    let lane = Lane::ALL.into_iter().find(|lane| id == 0 && hello(*lane) == payload);
    lane.ok_or_else(|| FrameError::Hello(payload[..payload.len().min(2 * HELLO_LEN)].to_vec()))
}

/// Frames in the order in which they will be written.
#[derive(Default)]
pub(super) struct Gathered {
    pieces: Vec<Bytes>,
    tail: BytesMut,
}

impl Gathered {
    /// How many bytes a payload takes on the wire.
    pub(super) fn cost(payload: &Bytes) -> usize {
        HEADER_LEN + payload.len()
    }

    /// Adds a frame. Its payload is not longer than allowed.
    pub(super) fn push(&mut self, id: u64, payload: Bytes) {
        debug_assert!(payload.len() <= MESSAGE_LEN_MAX, "checked before it was queued");
        self.tail.put_u32_le(payload.len() as u32);
        self.tail.put_u64_le(id);
        if payload.len() <= COPIED_LEN_MAX {
            self.tail.extend_from_slice(&payload);
        } else {
            self.pieces.push(self.tail.split().freeze());
            self.pieces.push(payload);
        }
    }

    /// All of it, ready to be written.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
        mem::take(&mut self.pieces)
    }
}

/// Cuts what arrives into frames. Each payload has memory of its own: one that is kept holds on to nothing else.
#[derive(Default)]
pub(super) struct FrameReader {
    header: [u8; HEADER_LEN],
    header_len: usize,
    payload: BytesMut,
}

impl FrameReader {
    /// Takes from the chunk up to the end of the next frame; `None` when all is taken and the frame is not whole.
    pub(super) fn feed(&mut self, chunk: &mut Bytes) -> Result<Option<(u64, Bytes)>, FrameError> {
        let fresh = self.header_len < HEADER_LEN;
        if fresh {
            let taken = chunk.len().min(HEADER_LEN - self.header_len);
            chunk.copy_to_slice(&mut self.header[self.header_len..self.header_len + taken]);
            self.header_len += taken;
            if self.header_len < HEADER_LEN {
                return Ok(None);
            }
        }
        let mut header = &self.header[..];
        let (len, id) = (header.get_u32_le(), header.get_u64_le());
        if len as usize > MESSAGE_LEN_MAX {
            return Err(FrameError::TooLong(len));
        }
        if fresh {
            self.payload = BytesMut::with_capacity(len as usize);
        }
        let taken = chunk.len().min(len as usize - self.payload.len());
        self.payload.extend_from_slice(&chunk[..taken]);
        chunk.advance(taken);
        if self.payload.len() < len as usize {
            return Ok(None);
        }
        self.header_len = 0;
        Ok(Some((id, mem::take(&mut self.payload).freeze())))
    }
}

#[cfg(test)]
pub(super) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let framed = |payload: Bytes| {
        let mut gathered = Gathered::default();
        gathered.push(0x0102_0304, payload);
        gathered.take().concat()
    };
    let again = move |bytes: &[u8]| {
        let mut chunk = Bytes::copy_from_slice(bytes);
        let (0x0102_0304, payload) = FrameReader::default().feed(&mut chunk).ok()?? else { return None };
        Some(framed(payload))
    };
    let mut goldens = vec![Golden::new("link.frame", framed(Bytes::from_static(b"payload")), again)];
    for lane in Lane::ALL {
        let again = move |bytes: &[u8]| lane_of_hello(0, bytes).ok().map(|lane| hello(lane).to_vec());
        goldens.push(Golden::new(format!("link.hello.{lane:?}"), &hello(lane)[..], again));
    }
    goldens
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_gathered_is_read_however_it_is_cut(
            lens in proptest::collection::vec(prop_oneof![0..64_usize, 4000..6000_usize], 1..20),
            cut in 1..5000_usize,
        ) {
            let frames: Vec<(u64, Bytes)> =
                lens.iter().enumerate().map(|(i, len)| (i as u64, Bytes::from(vec![i as u8; *len]))).collect();
            let mut gathered = Gathered::default();
            for (id, payload) in &frames {
                gathered.push(*id, payload.clone());
            }
            let wire = gathered.take().concat();
            prop_assert_eq!(wire.len(), frames.iter().map(|(_, p)| Gathered::cost(p)).sum::<usize>());
            let (mut reader, mut read) = (FrameReader::default(), Vec::new());
            for chunk in wire.chunks(cut) {
                let mut chunk = Bytes::copy_from_slice(chunk);
                while let Some(frame) = reader.feed(&mut chunk).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
        let mut reader = FrameReader::default();
        let mut wire = BytesMut::new();
        wire.put_u32_le(MESSAGE_LEN_MAX as u32 + 1);
        wire.put_u64_le(1);
        assert_eq!(reader.feed(&mut wire.freeze()), Err(FrameError::TooLong(MESSAGE_LEN_MAX as u32 + 1)));
        assert_eq!(reader.payload.capacity(), 0);
    }

    #[test]
    fn a_hello_names_its_lane_and_nothing_else_is_one() {
        for lane in Lane::ALL {
            assert_eq!(lane_of_hello(0, &hello(lane)), Ok(lane));
            assert!(lane_of_hello(1, &hello(lane)).is_err());
        }
        for junk in [&b""[..], &[1, 0], &[1, 0, 3], &[2, 0, 0], &[1, 0, 0, 0]] {
            assert!(lane_of_hello(0, junk).is_err(), "{junk:?}");
        }
    }
}
