//! Lengths that lie. A few bytes that claim a trillion elements are refused, and nothing near that is allocated.
//!
//! A test binary of its own, because it counts what the allocator is asked for.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop")]
#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use bytes::Bytes;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use magpie_protocol::{
    Body, Entry, Frame, Kind, Message,
    codec::{self, CodecError},
    entry::ENTRY_VERSION,
    frame::{Answer, FrameReader, Request, conversation::Content, sync::Page},
    message::ForwardedItem,
};

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn note(size: usize) {
    // While a thread ends there is nothing left to count into.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that one decoding may ask for at a time, in bytes.
const LARGEST_MAX: usize = 1024 * 1024;

fn largest_while<T>(act: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.with(|largest| largest.set(0));
    let result = act();
    (result, LARGEST.with(Cell::get))
}

/// A length as it is written, in each of its forms that can hold it.
fn lengths() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for shift in [16, 18, 20, 21, 22, 23, 24, 30, 31] {
        all.push([&[252][..], &(1u32 << shift).to_le_bytes()].concat());
    }
    for shift in [16, 20, 32, 40, 48, 60, 61, 62, 63] {
        all.push([&[253][..], &(1u64 << shift).to_le_bytes()].concat());
    }
    all.push([&[252][..], &u32::MAX.to_le_bytes()].concat());
    all.push([&[253][..], &u64::MAX.to_le_bytes()].concat());
    all
}

fn refused<T: std::fmt::Debug>(what: &str, read: impl FnOnce() -> Result<T, CodecError>) {
    let (result, largest) = largest_while(read);
    assert!(result.is_err(), "{what}: {result:?}");
    assert!(largest <= LARGEST_MAX, "{what}: {largest} bytes were asked for at once");
}

/// Every prefix of a frame's payload, followed by a length that lies, and by some more of them.
#[test]
fn lying_lengths_in_every_frame() {
    for length in lengths() {
        let lies = [&length[..], &length[..], &length[..], &[1; 8]].concat();
        let tags = Request::TAGS.iter().chain(Answer::TAGS);
        for (tag, name) in tags {
            for zeros in 0..160 {
                let mut frame = vec![1];
                frame.extend_from_slice(&tag.to_le_bytes());
                frame.extend_from_slice(&[0; 4]);
                frame.extend(std::iter::repeat_n(0, zeros));
                frame.extend_from_slice(&lies);
                let what = format!("{name} after {zeros} zeros");
                let request = || Frame::<Request>::from_bytes(&frame);
                let (_, largest) = largest_while(request);
                assert!(largest <= LARGEST_MAX, "{what}: {largest} bytes were asked for at once");
                let (_, largest) = largest_while(|| Frame::<Answer>::from_bytes(&frame));
                assert!(largest <= LARGEST_MAX, "{what}: {largest} bytes were asked for at once");
            }
        }
    }
}

#[test]
fn lying_lengths_nested_in_tagged_values() {
    for length in lengths() {
        // A content of tag 1 whose payload is in order and whose text lies about its length.
        let mut content = codec::encode(&(1u16, length.clone()));
        refused("a text", || codec::decode::<Content>(&content));
        content.extend_from_slice(&[0; 64]);
        refused("a text with more behind it", || codec::decode::<Content>(&content));
        // The length of the payload itself.
        let payload = [&[1][..], &length].concat();
        refused("a payload", || codec::decode::<Content>(&payload));
        refused("a payload of an unknown tag", || codec::decode::<Body>(&[&[200][..], &length].concat()));
        // A title inside an added conversation, inside an entry.
        let added = [&[0][..], &length].concat();
        let mut entry = vec![ENTRY_VERSION];
        codec::encode_into(&(1u64, 1u64, 1u64, 34u16, added), &mut entry);
        refused("a title in an entry", || Entry::from_bytes(&entry));
        // Entries of a page: their number, and the length of one.
        let page = [&[1, 1, 1, 1][..], &length].concat();
        refused("a page", || codec::decode::<Page>(&page));
        let page = [&[1, 1, 1, 1, 1][..], &length].concat();
        refused("an entry of a page", || codec::decode::<Page>(&page));
    }
}

/// Every prefix of a kind's payload, and of a message's and a forwarded message's, followed by a length that lies.
#[test]
fn lying_lengths_in_every_kind() {
    for length in lengths() {
        for (tag, name) in Kind::TAGS {
            for zeros in 0..60 {
                let payload = [&vec![0; zeros][..], &length, &length, &[1; 8]].concat();
                let kind = codec::encode(&(*tag, payload.clone()));
                let (_, largest) = largest_while(|| codec::decode::<Kind>(&kind));
                assert!(largest <= LARGEST_MAX, "{name} after {zeros} zeros: {largest} bytes were asked for at once");
                // Within a message, which is within a content.
                let message = codec::encode(&(*tag, payload.clone(), 0u64, Vec::<u64>::new()));
                let content = codec::encode(&(6u16, message));
                let (_, largest) = largest_while(|| codec::decode::<Content>(&content));
                assert!(largest <= LARGEST_MAX, "said {name} after {zeros} zeros: {largest} bytes at once");
            }
            // The payload itself, and the mentions after it.
            refused(name, || codec::decode::<Kind>(&[&codec::encode(tag)[..], &length].concat()));
            let mentions = [&codec::encode(&(*tag, vec![0u8]))[..], &[0], &length].concat();
            refused("mentions", || codec::decode::<Message>(&mentions));
        }
        // The items of a collection, and what one of them says.
        let items = codec::encode(&(11u16, [&[0][..], &length].concat()));
        refused("forwarded items", || codec::decode::<Kind>(&items));
        let said = ForwardedItem { sender: String::new(), time_ms: 0, kind: codec::encode(&(1u16, length.clone())) };
        refused("a forwarded text", || said.kind());
    }
}

#[test]
fn a_lying_frame_length_buffers_nothing() {
    for len in [70_000u32, 1 << 24, u32::MAX] {
        let mut reader = FrameReader::default();
        let (result, largest) = largest_while(|| {
            reader.push(Bytes::copy_from_slice(&len.to_le_bytes()));
            reader.next_frame::<Request>()
        });
        assert!(matches!(result, Err(CodecError::TooLong { .. })));
        assert!(largest < 4096, "{largest} bytes for a length alone");
    }
    // A length that is allowed is waited for, and not reserved.
    let mut reader = FrameReader::default();
    let (result, largest) = largest_while(|| {
        reader.push(Bytes::copy_from_slice(&65_536u32.to_le_bytes()));
        reader.next_frame::<Request>()
    });
    assert_eq!(result, Ok(None));
    assert!(largest < 4096, "{largest} bytes for a length alone");
}
