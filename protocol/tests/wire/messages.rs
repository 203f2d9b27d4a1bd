//! What messages say: every kind holds together, and what a message has inside it is read with the same distrust.

use magpie_protocol::{
    Kind, Message, UserId,
    codec::{self, CodecError},
    frame::conversation::Content,
    limits::FRAME_LEN_MAX,
    message::{Card, Forwarded, ForwardedItem, Link, Location},
};
use proptest::{collection::vec, prelude::*};

use crate::{samples, strategies};

fn item(kind: Vec<u8>) -> ForwardedItem {
    ForwardedItem { sender: "Ann".into(), time_ms: samples::TIME_MS, kind }
}

fn forwarded(kinds: &[Kind]) -> Kind {
    let items = kinds.iter().map(|kind| item(codec::encode(kind))).collect();
    Kind::Forwarded(Forwarded { title: "Chat of Ann and Bob".into(), items })
}

#[test]
fn every_kind_cut_or_lengthened_is_refused() {
    for kind in samples::kinds() {
        let bytes = codec::encode(&kind);
        for len in 0..bytes.len() {
            assert!(codec::decode::<Kind>(&bytes[..len]).is_err(), "{kind:?} cut to {len}");
            assert!(item(bytes[..len].to_vec()).kind().is_err(), "{kind:?} cut to {len} and forwarded");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(codec::decode::<Kind>(&longer), Err(CodecError::Trailing(1)));
        assert_eq!(item(longer).kind(), Err(CodecError::Trailing(1)));
    }
}

#[test]
fn every_bit_of_every_kind_turned() {
    for kind in samples::kinds() {
        let bytes = codec::encode(&kind);
        for bit in 0..bytes.len() * 8 {
            let mut turned = bytes.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = codec::decode::<Kind>(&turned) {
                assert_eq!(codec::decode::<Kind>(&codec::encode(&read)), Ok(read.clone()));
                // What is inside is asked too: it gives a value or an error.
                let _ = (read.blobs(), read.words());
            }
        }
    }
}

#[test]
fn a_forwarded_message_is_what_was_said_and_no_collection() {
    let (plain, collections): (Vec<_>, Vec<_>) =
        samples::kinds().into_iter().partition(|kind| !matches!(kind, Kind::Forwarded(_)));
    for kind in plain {
        assert_eq!(item(codec::encode(&kind)).kind(), Ok(kind));
    }
    let empty = Kind::Forwarded(Forwarded { title: String::new(), items: Vec::new() });
    for nested in collections.into_iter().chain([empty]) {
        let refused = item(codec::encode(&nested)).kind();
        assert!(matches!(&refused, Err(CodecError::Damaged(why)) if why.contains("within")), "{refused:?}");
        // A collection that has one in it shows nothing of it.
        let outer = forwarded(&[nested, Kind::Text("after".into())]);
        assert_eq!(outer.words(), "Chat of Ann and Bob after");
        assert!(outer.blobs().is_empty());
    }
}

#[test]
fn a_forwarded_message_that_is_junk_is_refused() {
    let said = codec::encode(&Kind::Text("hello".into()));
    for junk in [
        vec![],
        vec![1],
        vec![255],
        vec![1, 1],
        vec![1, 2, 1, 0xff],
        vec![11, 0],
        // A payload that claims more than there is, and a tag wider than it may be.
        vec![1, 253, 0, 0, 0, 0, 0, 1, 0, 0],
        vec![252, 1, 0, 1, 0, 0],
        [&said[..], &said[..]].concat(),
        vec![0; FRAME_LEN_MAX + 1],
    ] {
        let refused = item(junk.clone()).kind();
        assert!(refused.is_err(), "{} bytes {:?} read as {refused:?}", junk.len(), &junk[..junk.len().min(12)]);
    }
}

#[test]
fn an_unknown_kind_is_stepped_over() {
    let unknown = 60_000u16;
    let payload = vec![0xffu8; 300];
    let bytes = codec::encode(&(unknown, payload.clone(), 7u64, vec![samples::BOB]));
    let read: Message = codec::decode(&bytes).unwrap();
    assert_eq!(read, Message { kind: Kind::Unknown(unknown), quote: 7, mentions: vec![samples::BOB] });
    assert!(read.kind.blobs().is_empty() && read.kind.words().is_empty());
    // Within a content, and forwarded.
    let content = codec::encode(&(6u16, bytes));
    assert_eq!(codec::decode(&content), Ok(Content::Say(read)));
    let newer = codec::encode(&(unknown, payload));
    assert_eq!(item(newer).kind(), Ok(Kind::Unknown(unknown)));
}

#[test]
fn the_blobs_of_a_message_are_all_that_it_names() {
    let hash = samples::blob();
    for kind in samples::kinds() {
        let named = match &kind {
            Kind::Text(_) | Kind::Location(_) | Kind::Card(_) | Kind::Link(_) | Kind::Custom(_) => 0,
            _ => 1,
        };
        let blobs = kind.blobs();
        assert_eq!(blobs.len(), named, "{kind:?}");
        assert!(blobs.iter().all(|named| named.blob == hash && named.len == 70_000));
    }
    let plain: Vec<_> = samples::kinds().into_iter().filter(|kind| !matches!(kind, Kind::Forwarded(_))).collect();
    let each: Vec<_> = plain.iter().flat_map(Kind::blobs).collect();
    assert_eq!(forwarded(&plain).blobs(), each, "forwarded, they name the same");
}

#[test]
fn the_words_of_a_message_stand_apart_once() {
    let (empty, word) = (String::new, || String::from("word"));
    let place = |name, address| Kind::Location(Location { latitude_e7: -1, longitude_e7: 1, name, address });
    let card = |nickname, handle| Kind::Card(Card { user: samples::BOB, handle, nickname });
    let link = |title, summary, url| Kind::Link(Link { url, title, summary, preview: Vec::new() });
    for (kind, words) in [
        (place(empty(), empty()), ""),
        (place(word(), empty()), "word"),
        (place(empty(), word()), "word"),
        (place(word(), word()), "word word"),
        (card(empty(), word()), "word"),
        (link(word(), empty(), word()), "word word"),
        (link(empty(), empty(), word()), "word"),
    ] {
        assert_eq!(kind.words(), words, "{kind:?}");
    }
    let picture = samples::kinds().remove(1);
    let said = |text: &str| Kind::Text(text.into());
    assert_eq!(forwarded(&[said("one"), picture, said("two")]).words(), "Chat of Ann and Bob one two");
    assert_eq!(UserId::EVERYONE.to_string(), "uffffffffffffffff");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kinds(kind in strategies::kind(), quote: u64) {
        let bytes = codec::encode(&kind);
        prop_assert_eq!(codec::decode::<Kind>(&bytes), Ok(kind.clone()));
        prop_assert_eq!(codec::decode_stored::<Kind>(&bytes), Ok(kind.clone()));
        prop_assert_eq!(codec::decode_prefix::<Kind>(&[&bytes[..], &[1, 2]].concat()), Ok((kind.clone(), bytes.len())));
        let message = Message { quote, ..Message::new(kind) };
        prop_assert_eq!(codec::decode::<Message>(&codec::encode(&message)), Ok(message));
    }

    #[test]
    fn forwarded_kinds(kind in strategies::plain_kind()) {
        prop_assert_eq!(item(codec::encode(&kind)).kind(), Ok(kind));
    }

    #[test]
    fn junk_as_kinds(tag in prop_oneof![0u16..16, any::<u16>()], payload in vec(any::<u8>(), 0..200), whole in any::<bool>()) {
        // As it is, or as the payload of a tag.
        let bytes = if whole { payload } else { codec::encode(&(tag, payload)) };
        let read = codec::decode::<Kind>(&bytes);
        if let Ok(kind) = &read {
            prop_assert_eq!(codec::decode::<Kind>(&codec::encode(kind)), Ok(kind.clone()));
            let _ = (kind.blobs(), kind.words());
        }
        match (item(bytes).kind(), read) {
            (Err(_), Err(_) | Ok(Kind::Forwarded(_))) => {}
            (forwarded, plain) => prop_assert_eq!(forwarded, plain),
        }
    }
}
