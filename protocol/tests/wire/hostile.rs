//! Bytes that nobody honest would send: each gives an error, or nothing, and never a panic.

use bytes::Bytes;
use std::fmt::Debug;

use magpie_protocol::{
    Body, ConversationId, Entry, Frame, Incarnation, UserId,
    codec::{self, CodecError},
    entry::ENTRY_VERSION,
    frame::{Answer, Direction, FrameReader, MediaAnswer, MediaRequest, Request, conversation::Content, sync::Page},
    limits::FRAME_LEN_MAX,
};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{samples, strategies};

/// A frame's bytes without its length, for any tag and payload.
fn raw(version: u8, tag: u16, request: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![version];
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&request.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

fn with_length(frame: &[u8]) -> Vec<u8> {
    let mut out = (frame.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(frame);
    out
}

/// Whatever is read is a whole value: written again it reads the same.
fn survives<T: Direction + PartialEq + Debug>(frame: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(read) = Frame::<T>::from_bytes(frame) {
        let again = read.to_bytes();
        prop_assert_eq!(Frame::<T>::from_bytes(&again[4..]), Ok(read));
        // A byte more belongs to nothing, but where the payload is not read at all.
        let longer = [frame, &[0]].concat();
        prop_assert!(Frame::<T>::from_bytes(&longer).is_err() || is_unknown::<T>(frame));
    }
    Ok(())
}

/// Its tag is none of this direction's: the frame reads as `Unknown`.
fn is_unknown<T: Direction>(frame: &[u8]) -> bool {
    let bare = [&frame[..7], &[]].concat();
    let twice = [frame, frame].concat();
    Frame::<T>::from_bytes(&bare).is_ok() && Frame::<T>::from_bytes(&twice).is_ok()
}

fn drain<T: Direction>(stream: &[u8]) {
    let mut reader = FrameReader::default();
    reader.push(Bytes::copy_from_slice(stream));
    while let Ok(Some(_)) = reader.next_frame::<T>() {}
}

fn truncated<T: Direction + PartialEq + Debug>(frame: Frame<T>) {
    let bytes = frame.to_bytes();
    for len in 4..bytes.len() {
        assert!(Frame::<T>::from_bytes(&bytes[4..len]).is_err(), "{frame:?} cut to {len}");
    }
    for len in 0..bytes.len() {
        let mut reader = FrameReader::default();
        reader.push(Bytes::copy_from_slice(&bytes[..len]));
        assert_eq!(reader.next_frame::<T>(), Ok(None), "{frame:?} cut to {len}");
        assert_eq!(reader.waiting(), len);
        // A length that agrees with the cut makes it a frame, and a damaged one.
        if len > 4 {
            drain::<T>(&with_length(&bytes[4..len]));
        }
    }
    let longer = [&bytes[4..], &[0]].concat();
    let error = Frame::<T>::from_bytes(&longer).unwrap_err();
    assert_eq!(error, CodecError::Trailing(1), "{frame:?} with a byte more");
}

#[test]
fn truncation_at_every_length() {
    samples::requests().into_iter().for_each(|request| truncated(Frame::push(request)));
    samples::answers().into_iter().for_each(|answer| truncated(Frame::push(answer)));
    samples::media_requests().into_iter().for_each(|request| truncated(Frame::push(request)));
    samples::media_answers().into_iter().for_each(|answer| truncated(Frame::push(answer)));
    for body in samples::bodies() {
        let entry = Entry { number: 300, time_ms: samples::TIME_MS, sender: samples::ALICE, body };
        let bytes = entry.to_bytes();
        for len in 0..bytes.len() {
            assert!(Entry::from_bytes(&bytes[..len]).is_err(), "{entry:?} cut to {len}");
        }
        assert_eq!(Entry::from_bytes(&[&bytes[..], &[0]].concat()), Err(CodecError::Trailing(1)));
    }
}

/// Every byte of every sample, with every bit turned over.
#[test]
fn every_bit_turned() {
    let requests = samples::requests().into_iter().map(|body| Frame::push(body).to_bytes());
    let answers = samples::answers().into_iter().map(|body| Frame::push(body).to_bytes());
    let media = samples::media_requests().into_iter().map(|body| Frame::push(body).to_bytes());
    let media = media.chain(samples::media_answers().into_iter().map(|body| Frame::push(body).to_bytes()));
    for bytes in requests.chain(answers).chain(media) {
        for bit in 32..bytes.len() * 8 {
            let mut turned = bytes[4..].to_vec();
            turned[bit / 8 - 4] ^= 1 << (bit % 8);
            survives::<Request>(&turned).unwrap();
            survives::<Answer>(&turned).unwrap();
            survives::<MediaRequest>(&turned).unwrap();
            survives::<MediaAnswer>(&turned).unwrap();
        }
    }
}

#[test]
fn an_oversized_length_is_refused_at_once() {
    for len in [FRAME_LEN_MAX as u32 + 1, 1 << 20, 1 << 31, u32::MAX] {
        let mut reader = FrameReader::default();
        reader.push(Bytes::copy_from_slice(&len.to_le_bytes()));
        let refused = CodecError::TooLong { len: len as usize, max: FRAME_LEN_MAX };
        assert_eq!(reader.next_frame::<Request>(), Err(refused.clone()));
        // It stays refused, whatever follows.
        reader.push(Bytes::copy_from_slice(&[0; 100]));
        assert_eq!(reader.next_frame::<Answer>(), Err(refused));
    }
    let mut reader = FrameReader::default();
    reader.push(Bytes::copy_from_slice(&(FRAME_LEN_MAX as u32).to_le_bytes()));
    assert_eq!(reader.next_frame::<Request>(), Ok(None));
    assert!(matches!(Frame::<Request>::from_bytes(&[1; FRAME_LEN_MAX + 1]), Err(CodecError::TooLong { .. })));
    assert!(matches!(codec::decode::<Vec<u8>>(&[0; FRAME_LEN_MAX + 1]), Err(CodecError::TooLong { .. })));
}

#[test]
fn headers_that_are_none() {
    for len in 0..7 {
        let error = Frame::<Request>::from_bytes(&vec![1; len]).unwrap_err();
        assert!(matches!(error, CodecError::Damaged(_)), "{error:?}");
    }
    for version in (0..=u8::MAX).filter(|version| *version != 1) {
        let frame = raw(version, 64, 1, &[]);
        assert_eq!(Frame::<Request>::from_bytes(&frame), Err(CodecError::UnknownVersion(version)));
        let entry = [&[version][..], &samples_entry()[1..]].concat();
        assert_eq!(Entry::from_bytes(&entry), Err(CodecError::UnknownVersion(version)));
    }
    assert!(Entry::from_bytes(&[]).is_err());
}

fn samples_entry() -> Vec<u8> {
    Entry { number: 1, time_ms: 1, sender: samples::ALICE, body: Body::Text("x".into()) }.to_bytes()
}

#[test]
fn unknown_frame_tags_are_named() {
    for tag in 0..=u16::MAX {
        let frame = raw(1, tag, 1, &[0xff; 9]);
        if Request::TAGS.iter().all(|(known, _)| *known != tag) {
            assert_eq!(Frame::<Request>::from_bytes(&frame).unwrap().body, Request::Unknown(tag));
        }
        if Answer::TAGS.iter().all(|(known, _)| *known != tag) {
            assert_eq!(Frame::<Answer>::from_bytes(&frame).unwrap().body, Answer::Unknown(tag));
        }
    }
}

#[test]
fn unknown_bodies_and_contents_are_stepped_over() {
    let unknown = 60_000u16;
    let payload = vec![0xffu8; 300];
    let mut entry = vec![ENTRY_VERSION];
    codec::encode_into(&(7u64, 8u64, samples::ALICE, unknown, payload.clone()), &mut entry);
    let read = Entry::from_bytes(&entry).unwrap();
    assert_eq!(read, Entry { number: 7, time_ms: 8, sender: samples::ALICE, body: Body::Unknown(unknown) });
    assert_eq!(read.body.tag(), unknown);

    // What follows in the same value is read as ever.
    let bytes = codec::encode(&(unknown, payload.clone(), 1u16, codec::encode(&"after"), 9u64));
    let (stepped_over, after, number): (Body, Body, u64) = codec::decode(&bytes).unwrap();
    assert_eq!((stepped_over, after, number), (Body::Unknown(unknown), Body::Text("after".into()), 9));

    let conversation = ConversationId::direct(samples::ALICE, samples::BOB);
    let post = codec::encode(&(conversation, Incarnation::from_bits(1), 1u64, unknown, payload));
    match Frame::<Request>::from_bytes(&raw(1, 48, 1, &post)).unwrap().body {
        Request::Post(post) => assert_eq!(post.content, Content::Unknown(unknown)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_outside_their_type_are_refused() {
    // Booleans, variants of an enum, kinds of a timeline, text that is no UTF-8, tags wider than 16 bits.
    assert!(Frame::<Answer>::from_bytes(&raw(1, 64, 1, &[0, 2])).is_err());
    assert!(Frame::<Answer>::from_bytes(&raw(1, 3, 1, &[4, 0])).is_err());
    for kind in (0..=u8::MAX).filter(|kind| !matches!(kind, 1 | 2)) {
        assert!(Frame::<Request>::from_bytes(&raw(1, 65, 1, &[kind, 0, 0, 1])).is_err());
    }
    assert!(Frame::<Request>::from_bytes(&raw(1, 65, 1, &[2, 1, 0, 1])).is_err(), "an inbox with low bits");
    assert!(Frame::<Request>::from_bytes(&raw(1, 32, 1, &[2, 0xc3, 0x28])).is_err());
    assert!(codec::decode::<Content>(&[252, 1, 0, 1, 0, 0]).is_err());
    assert!(codec::decode::<UserId>(&[254, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    assert!(codec::decode::<UserId>(&[255]).is_err());
    // An option is 0 or 1, and a signed number is no wider than its type.
    assert!(Frame::<Request>::from_bytes(&raw(1, 23, 1, &[0, 0, 0, 0])).is_ok());
    assert!(Frame::<Request>::from_bytes(&raw(1, 23, 1, &[0, 0, 0, 2])).is_err());
    assert!(Frame::<Request>::from_bytes(&raw(1, 23, 1, &[1, 2, 0, 0])).is_err());
    assert!(Frame::<Request>::from_bytes(&raw(1, 44, 1, &[252, 255, 255, 255, 255, 0])).is_ok());
    assert!(Frame::<Request>::from_bytes(&raw(1, 44, 1, &[253, 0, 0, 0, 0, 1, 0, 0, 0, 0])).is_err());
    // The payload of a tagged value is read to its end.
    assert_eq!(codec::decode::<Content>(&[4, 0]), Ok(Content::Leave(magpie_protocol::frame::conversation::Leave)));
    assert!(codec::decode::<Content>(&[4, 1, 0]).is_err());
    assert!(codec::decode::<Content>(&[2, 2, 5, 0]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn junk(bytes in vec(any::<u8>(), 0..400)) {
        survives::<Request>(&bytes)?;
        survives::<Answer>(&bytes)?;
        drain::<Request>(&bytes);
        drain::<Answer>(&bytes);
        let _ = codec::decode_stored::<Page>(&bytes);
        let _ = codec::decode_prefix::<Page>(&bytes);
        if let Ok(entry) = Entry::from_bytes(&bytes) {
            // The payload of an unknown body is gone; all else stays.
            prop_assert_eq!(Entry::from_bytes(&entry.to_bytes()), Ok(entry));
        }
    }

    #[test]
    fn junk_payloads(
        tag in prop_oneof![any::<u16>(), 0u16..100], request in any::<u32>(), payload in vec(any::<u8>(), 0..200),
    ) {
        let frame = raw(1, tag, request, &payload);
        survives::<Request>(&frame)?;
        survives::<Answer>(&frame)?;
        drain::<Request>(&with_length(&frame));
        drain::<Answer>(&with_length(&frame));
    }

    #[test]
    fn mutated_frames(
        request in strategies::request(), answer in strategies::answer(), entry in strategies::entry(),
        changes in vec((any::<Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let mut frames = [
            Frame::push(request).to_bytes().to_vec(),
            Frame::push(answer).to_bytes().to_vec(),
            [&[0; 4][..], &entry.to_bytes()].concat(),
        ];
        for bytes in &mut frames {
            for (at, byte, how) in &changes {
                let at = 4 + at.index(bytes.len() - 4);
                match how {
                    0 => bytes[at] = *byte,
                    1 => bytes.insert(at, *byte),
                    _ if bytes.len() > 5 => drop(bytes.remove(at)),
                    _ => {}
                }
            }
            survives::<Request>(&bytes[4..])?;
            survives::<Answer>(&bytes[4..])?;
            drain::<Request>(bytes);
            drain::<Answer>(bytes);
            let _ = Entry::from_bytes(&bytes[4..]);
        }
    }
}
