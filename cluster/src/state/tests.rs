//! Entries of timelines through layers and base, against a list.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use magpie_protocol::{Body, Entry, Slot, TimelineId, UserId, codec};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Key, Record, StateBase as _, Store, Tx, base::Write, memory::MemoryBase};

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

/// A record that grows.
#[derive(Clone, Default, bincode::Encode, bincode::Decode)]
struct Grows(Vec<u64>);
impl Record for Grows {}

fn decoded(writes: &[Write], key: &Key) -> Vec<u64> {
    let written = writes.iter().find(|(of, _)| of == key).and_then(|(_, record)| record.as_deref());
    codec::decode_stored::<Grows>(written.unwrap()).unwrap().0
}

#[test]
fn a_record_is_changed_where_it_stands_and_nobody_who_holds_it_sees_that() {
    for cache in [0, 1 << 20] {
        let base = Arc::new(MemoryBase::default());
        let mut store = Store::new(base.clone(), cache);
        let key = Key::new(Slot::new(3), 201);
        let read = |store: &mut Store| store.get::<Grows>(&key).unwrap().unwrap_or_default();
        let amend = |store: &mut Store, number| {
            commit(store, |tx| {
                let record = tx.get::<Grows>(&key).unwrap_or_default();
                tx.amend(key, record, move |record| record.0.push(number));
                assert!(!tx.get::<Grows>(&key).unwrap_or_default().0.contains(&number), "before it is committed");
            });
        };
        amend(&mut store, 1);
        amend(&mut store, 2);
        let held = read(&mut store);
        amend(&mut store, 3);
        assert_eq!((&held.0[..], &read(&mut store).0[..]), (&[1, 2][..], &[1, 2, 3][..]), "a reader's stays");
        drop(held);
        // A command that comes to nothing.
        let mut tx = Tx::new(&mut store, 5);
        let record = tx.get::<Grows>(&key).unwrap();
        tx.amend(key, record, |record| record.0.push(99));
        drop(tx);
        assert_eq!(read(&mut store).0, [1, 2, 3]);
        // A checkpoint under way writes what was there when it began, and what comes meanwhile is in the next.
        let frozen = store.freeze().unwrap();
        amend(&mut store, 4);
        let (writes, applied) = frozen.writes(&*base).unwrap();
        assert_eq!(decoded(&writes, &key), [1, 2, 3]);
        base.commit(writes, &applied).unwrap();
        store.thawed();
        assert_eq!(read(&mut store).0, [1, 2, 3, 4]);
        let (writes, _) = store.freeze().unwrap().writes(&*base).unwrap();
        assert_eq!(decoded(&writes, &key), [1, 2, 3, 4]);
    }
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
                0..=4 => commit(&mut store, |tx| {
                    let text = format!("said {step}");
                    tx.append(TIMELINE, UserId::from_bits(1), Body::Text(text.clone()), 0, None);
                    model.push(text);
                }),
                5 if step % 7 == 0 => commit(&mut store, |tx| {
                    tx.append(TIMELINE, UserId::from_bits(1), Body::Text("goes with the others".into()), 0, None);
                    tx.erase(TIMELINE);
                    model.clear();
                    assert_eq!((tx.head(TIMELINE), tx.entry(TIMELINE, 1)), (0, None));
                    if step % 2 == 0 {
                        let text = format!("the first again {step}");
                        assert_eq!(tx.append(TIMELINE, UserId::from_bits(1), Body::Text(text.clone()), 0, None), 1);
                        model.push(text);
                    }
                }),
                5..=6 if !model.is_empty() => commit(&mut store, |tx| {
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
                    assert_eq!(store.head(TIMELINE).unwrap(), model.len() as u64);
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

/// What a key of the tests holds.
#[derive(Clone, bincode::Encode, bincode::Decode)]
struct Value(u64);
impl super::Record for Value {}

#[test]
fn keys_are_found_wherever_they_lie() {
    let key = |family: u64, n: u64| Key::new(Slot::new(3), 200).u64(family).u64(n);
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let base = Arc::new(MemoryBase::default());
        let mut store = Store::new(base.clone(), 1 << 20);
        let mut model = BTreeSet::new();
        let mut frozen = None;
        for _ in 0..200 {
            match random.random_range(0..8) {
                0..=4 => commit(&mut store, |tx| {
                    for _ in 0..random.random_range(1..4) {
                        let (family, n) = (random.random_range(0..3), random.random_range(0..20));
                        if random.random_bool(0.6) {
                            tx.put(key(family, n), Value(n));
                            model.insert((family, n));
                        } else {
                            tx.delete(key(family, n));
                            model.remove(&(family, n));
                        }
                    }
                    let max = random.random_range(1..25);
                    let all = |from| model.range((1, from)..(2, 0)).map(|(family, n)| key(*family, *n)).take(max);
                    let prefix = Key::new(Slot::new(3), 200).u64(1);
                    assert_eq!(tx.keys(&prefix, None, max), all(0).collect::<Vec<_>>(), "seed {seed}");
                    let after = random.random_range(0..20);
                    assert_eq!(tx.keys(&prefix, Some(&key(1, after)), max), all(after + 1).collect::<Vec<_>>());
                }),
                5 if frozen.is_none() => frozen = store.freeze(),
                _ => {
                    if let Some(frozen) = frozen.take() {
                        let (writes, applied) = frozen.writes(&*base).unwrap();
                        super::StateBase::commit(&*base, writes, &applied).unwrap();
                        store.thawed();
                    }
                }
            }
        }
    }
}
