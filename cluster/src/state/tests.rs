//! Entries of timelines through layers and base, against a list.

use std::sync::Arc;

use bytes::Bytes;
use magpie_protocol::{Body, Entry, TimelineId, UserId};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Store, Tx, memory::MemoryBase};

const TIMELINE: TimelineId = TimelineId::Inbox(UserId::from_bits(7));

fn texts(store: &mut Store, from: u64, to: u64) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next = from;
    while next <= to {
        // A small page, so that pages begin everywhere.
        let page = store.entries(TIMELINE, next, to, 400).unwrap();
        for bytes in &page.entries {
            let entry = Entry::from_bytes(bytes).unwrap();
            assert_eq!(entry.number, next);
            let Body::Text(text) = entry.body else { panic!("a body that nobody wrote") };
            texts.push(text);
            next += 1;
        }
    }
    texts
}

fn commit(store: &mut Store, change: impl FnOnce(&mut Tx<'_>)) {
    let mut tx = Tx::new(store, 5);
    change(&mut tx);
    tx.commit();
}

#[test]
fn replaced_entries_read_as_they_are_now_wherever_they_lie() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let base = Arc::new(MemoryBase::default());
        let mut store = Store::new(base.clone(), if seed % 2 == 0 { 0 } else { 1 << 20 });
        let mut model: Vec<String> = Vec::new();
        let mut frozen = None;
        for step in 0..400 {
            match random.random_range(0..10) {
                0..5 => commit(&mut store, |tx| {
                    let text = format!("said {step}");
                    tx.append(TIMELINE, UserId::from_bits(1), Body::Text(text.clone()), 0, None);
                    model.push(text);
                }),
                5..7 if !model.is_empty() => commit(&mut store, |tx| {
                    let at = random.random_range(0..model.len());
                    model[at] = format!("replaced {step}");
                    tx.replace(TIMELINE, at as u64 + 1, Body::Text(model[at].clone()));
                    let seen = tx.entry(TIMELINE, at as u64 + 1).unwrap();
                    assert_eq!(seen.body, Body::Text(model[at].clone()));
                }),
                7 if frozen.is_none() => frozen = store.freeze(),
                8 => {
                    if let Some(frozen) = frozen.take() {
                        let (writes, applied) = frozen.writes(&*base).unwrap();
                        super::StateBase::commit(&*base, writes, &applied).unwrap();
                        store.thawed();
                    }
                }
                _ => {
                    let from = random.random_range(0..=model.len());
                    let seen = texts(&mut store, from as u64 + 1, model.len() as u64);
                    assert_eq!(seen, model[from..], "seed {seed}, step {step}");
                }
            }
        }
    }
}

#[test]
fn nothing_is_left_in_the_base_of_what_was_replaced() {
    let base = Arc::new(MemoryBase::default());
    let mut store = Store::new(base.clone(), 1 << 20);
    let checkpoint = |store: &mut Store| {
        let (writes, applied) = store.freeze().unwrap().writes(&*base).unwrap();
        super::StateBase::commit(&*base, writes, &applied).unwrap();
        store.thawed();
    };
    let secret = "the words that were taken back";
    commit(&mut store, |tx| {
        for _ in 0..40 {
            tx.append(TIMELINE, UserId::from_bits(1), Body::Text(secret.into()), 0, None);
        }
    });
    checkpoint(&mut store);
    commit(&mut store, |tx| (1..=40).for_each(|n| tx.replace(TIMELINE, n, Body::Text("gone".into()))));
    checkpoint(&mut store);
    let mut left = 0;
    let mut look = |_: &[u8], value: &[u8]| {
        left += usize::from(value.windows(secret.len()).any(|window| Bytes::copy_from_slice(window) == secret));
        Ok(())
    };
    super::StateBase::scan(&*base, &mut look).unwrap();
    assert_eq!(left, 0);
}
