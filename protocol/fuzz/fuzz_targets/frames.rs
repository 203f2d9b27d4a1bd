//! Any bytes, read as a stream of frames of either direction, in two pieces, as an entry, and as a kind of message, said
//! and forwarded.

#![no_main]

use bytes::Bytes;
use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use magpie_protocol::{
    Entry, Kind, codec,
    frame::{Answer, Direction, Frame, FrameReader, Request},
    message::ForwardedItem,
};

fuzz_target!(|data: &[u8]| {
    // The first byte says where the rest is cut in two.
    let Some((cut, stream)) = data.split_first() else { return };
    let cut = usize::from(*cut).min(stream.len());
    read::<Request>(stream, cut);
    read::<Answer>(stream, cut);
    if let Ok(entry) = Entry::from_bytes(stream) {
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), Ok(entry));
    }
    let said = codec::decode::<Kind>(stream);
    if let Ok(kind) = &said {
        assert_eq!(codec::decode::<Kind>(&codec::encode(kind)).as_ref(), Ok(kind));
        let _ = (kind.blobs(), kind.words());
    }
    let forwarded = ForwardedItem { sender: String::new(), time_ms: 0, kind: stream.to_vec() };
    match (forwarded.kind(), said) {
        (Err(_), Err(_) | Ok(Kind::Forwarded(_))) => {}
        (forwarded, said) => assert_eq!(forwarded, said),
    }
});

fn read<T: Direction + PartialEq + Debug>(stream: &[u8], cut: usize) {
    let mut reader = FrameReader::default();
    for piece in [&stream[..cut], &stream[cut..]] {
        reader.push(Bytes::copy_from_slice(piece));
        while let Ok(Some(frame)) = reader.next_frame::<T>() {
            let again = frame.to_bytes();
            assert_eq!(Frame::<T>::from_bytes(&again[4..]), Ok(frame));
        }
    }
    assert!(reader.waiting() <= stream.len());
    // And without the length, so that every input reaches a payload.
    if let Ok(frame) = Frame::<T>::from_bytes(stream) {
        let again = frame.to_bytes();
        assert_eq!(Frame::<T>::from_bytes(&again[4..]), Ok(frame));
    }
}
