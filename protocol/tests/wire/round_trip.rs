//! What is written is read back, whatever it is and in whatever pieces it arrives.

use bytes::Bytes;
use std::{fmt::Debug, str::FromStr};

use magpie_protocol::{
    BlobId, ConversationId, DeviceId, Entry, ErrorCode, Frame, Incarnation, MessageId, NodeId, RequestId, ShardId,
    Slot, TimelineId, UserId, WireError,
    codec::{self, Decode, Encode},
    frame::{Answer, Direction, FrameReader, Request},
};
use proptest::{collection::vec, prelude::*};

use crate::strategies;

fn id_round_trip<T>(id: T) -> Result<(), TestCaseError>
where
    T: ToString + FromStr + Encode + Decode<()> + PartialEq + Debug,
{
    let text = id.to_string();
    prop_assert_eq!(text.parse::<T>().ok(), Some(id), "{}", text);
    let id: T = text.parse().ok().unwrap();
    prop_assert_eq!(codec::decode::<T>(&codec::encode(&id)), Ok(id));
    Ok(())
}

/// A text is refused, or it is exactly what the id prints.
fn text_is_canonical<T: ToString + FromStr>(text: &str) -> Result<(), TestCaseError> {
    if let Ok(id) = text.parse::<T>() {
        prop_assert_eq!(id.to_string(), text);
    }
    Ok(())
}

fn every_id_is_canonical(text: &str) -> Result<(), TestCaseError> {
    text_is_canonical::<UserId>(text)?;
    text_is_canonical::<DeviceId>(text)?;
    text_is_canonical::<Incarnation>(text)?;
    text_is_canonical::<ConversationId>(text)?;
    text_is_canonical::<Slot>(text)?;
    text_is_canonical::<ShardId>(text)?;
    text_is_canonical::<RequestId>(text)?;
    text_is_canonical::<TimelineId>(text)?;
    text_is_canonical::<MessageId>(text)?;
    text_is_canonical::<NodeId>(text)?;
    text_is_canonical::<BlobId>(text)
}

fn frame_round_trip<T: Direction + PartialEq + Debug>(frame: Frame<T>) -> Result<(), TestCaseError> {
    let bytes = frame.to_bytes();
    prop_assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 4);
    prop_assert_eq!(Frame::from_bytes(&bytes[4..]), Ok(frame));
    Ok(())
}

/// All frames, cut at `cuts` and fed piece by piece, each piece read to its end.
fn read_in_pieces<T: Direction + PartialEq + Debug>(frames: &[Frame<T>], cuts: &[usize]) -> Result<(), TestCaseError> {
    let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.to_bytes()).collect();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.push(stream.len());
    cuts.sort_unstable();
    let (mut reader, mut read, mut from) = (FrameReader::default(), Vec::new(), 0);
    for to in cuts {
        reader.push(Bytes::copy_from_slice(&stream[from..to]));
        from = to;
        while let Some(frame) = reader.next_frame::<T>().map_err(|e| TestCaseError::fail(e.to_string()))? {
            read.push(frame);
        }
    }
    prop_assert_eq!(&read[..], frames);
    prop_assert_eq!(reader.waiting(), 0);
    Ok(())
}

fn framed<T: Direction + Debug>(body: impl Strategy<Value = T>) -> impl Strategy<Value = Frame<T>> {
    (any::<u32>(), body).prop_map(|(request, body)| Frame::new(RequestId::new(request), body))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ids(
        small in any::<u16>(), request in any::<u32>(), user in strategies::user(), device in strategies::device(),
        incarnation in strategies::incarnation(), conversation in strategies::conversation(),
        timeline in strategies::timeline(), message in strategies::message(), node in strategies::node(),
        blob in strategies::blob(),
    ) {
        id_round_trip(Slot::new(small))?;
        id_round_trip(ShardId::new(small))?;
        id_round_trip(RequestId::new(request))?;
        id_round_trip(user)?;
        id_round_trip(device)?;
        id_round_trip(incarnation)?;
        id_round_trip(conversation)?;
        id_round_trip(timeline)?;
        id_round_trip(message)?;
        id_round_trip(node)?;
        id_round_trip(blob)?;
        let (kind, bits) = timeline.to_parts();
        prop_assert_eq!(TimelineId::from_parts(kind, bits), Some(timeline));
    }

    #[test]
    fn texts_that_are_no_ids(
        junk in ".{0,80}", near in "(u|d|i|c|b|slot|shard|r|n|t/u|t/c)[+0-9a-fA-F.#]{0,66}",
        message in strategies::message(), blob in strategies::blob(), at in any::<prop::sample::Index>(),
        byte in "[0-9a-fA-F+#./ ]",
    ) {
        every_id_is_canonical(&junk)?;
        every_id_is_canonical(&near)?;
        for id in [message.to_string(), blob.to_string(), format!("t/{}", message.conversation)] {
            let at = at.index(id.len());
            every_id_is_canonical(&format!("{}{byte}{}", &id[..at], &id[at + 1..]))?;
            every_id_is_canonical(&format!("{}{byte}{}", &id[..at], &id[at..]))?;
        }
    }

    #[test]
    fn built_ids_keep_slot_and_kind(a in strategies::user(), b in strategies::user(), nonce in strategies::wide()) {
        use magpie_protocol::ConversationKind::{Direct, Group};
        let direct = ConversationId::direct(a, b);
        prop_assert_eq!(direct, ConversationId::direct(b, a));
        prop_assert_eq!(direct.kind(), Some(Direct));
        let group = ConversationId::group(a, nonce);
        prop_assert_eq!(group.kind(), Some(Group));
        for slot in [direct.slot(), group.slot(), a.slot()] {
            prop_assert!(slot.get() < magpie_protocol::ids::SLOTS);
        }
        prop_assert_eq!(UserId::in_slot(direct.slot(), b.bits()).slot(), direct.slot());
    }

    #[test]
    fn entries(entry in strategies::entry()) {
        let bytes = entry.to_bytes();
        prop_assert_eq!(Entry::from_bytes(&bytes), Ok(entry.clone()));
        prop_assert_eq!(codec::decode_stored(&bytes[1..]), Ok(entry.clone()));
        prop_assert_eq!(codec::decode_prefix(&bytes[1..]), Ok((entry, bytes.len() - 1)));
    }

    #[test]
    fn requests(frame in framed(strategies::request())) { frame_round_trip(frame)?; }

    #[test]
    fn answers(frame in framed(strategies::answer())) { frame_round_trip(frame)?; }

    #[test]
    fn media_requests(frame in framed(strategies::media_request())) { frame_round_trip(frame)?; }

    #[test]
    fn media_answers(frame in framed(strategies::media_answer())) { frame_round_trip(frame)?; }

    #[test]
    fn refusals(error in strategies::error()) {
        for code in ErrorCode::ALL {
            let error = WireError { code: *code, ..error.clone() };
            prop_assert_eq!(codec::decode::<WireError>(&codec::encode(&error)), Ok(error));
        }
    }

    #[test]
    fn requests_in_pieces(
        frames in vec(framed(strategies::request()), 0..8), cuts in vec(any::<usize>(), 0..40),
    ) { read_in_pieces(&frames, &cuts)?; }

    #[test]
    fn answers_in_pieces(
        frames in vec(framed(strategies::answer()), 0..8), cuts in vec(any::<usize>(), 0..40),
    ) { read_in_pieces(&frames, &cuts)?; }
}

#[test]
fn byte_by_byte() {
    let requests: Vec<Frame<Request>> = crate::samples::requests().into_iter().map(Frame::push).collect();
    let answers: Vec<Frame<Answer>> = crate::samples::answers().into_iter().map(Frame::push).collect();
    let every = |len: usize| (0..len).collect::<Vec<_>>();
    read_in_pieces(&requests, &every(10_000)).unwrap();
    read_in_pieces(&answers, &every(10_000)).unwrap();
}
