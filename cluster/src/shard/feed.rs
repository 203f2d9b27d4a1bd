//! The feed: which entries a shard's commands appended, for those who follow them outside of it.
//!
//! As long as somebody follows, each batch leaves one small record that names what it appended: it is part of the
//! state, so it is durable, replicated, and the same for every leader. A follower has a name and a cursor, which
//! moves by items of batches: seldom, and never for each entry. Together with its cursor it may keep a little of its
//! own. What all have left behind is removed; a follower that is too far behind loses the oldest, and is told how
//! much. Entries themselves are read from their timelines, as they are by then.

use bincode::{Decode, Encode};
use bytes::Bytes;
use magpie_protocol::{TimelineId, codec};
use tokio::sync::{oneshot, watch};

use super::{Shard, Waiter, lock};
use crate::{
    AskError,
    machine::Machine,
    state::{
        Key, Record, StateError, Store, Tx,
        key::{SHARD_SLOT, table},
    },
};

/// Most items of one record, and what a place counts in.
const PIECE_ITEMS: u64 = 1024;
/// Followers of one shard.
const FOLLOWERS_MAX: usize = 8;
/// Longest name of a follower, in bytes.
const NAME_LEN_MAX: usize = 16;
/// What a follower keeps is in so many parts.
pub const KEPT_PARTS: u16 = 4_096;
/// Longest change that is proposed, in bytes: an entry of the log holds no more than a few of them.
const CHANGE_LEN_MAX: usize = 2 * 1024 * 1024;
/// From here on the number of an item is what happened, and not that of an entry.
const NOTE: u64 = 1 << 63;

/// Where each follower is, and what there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Feed {
    /// Pieces `first .. next` are there.
    first: u64,
    next: u64,
    /// Items ever added.
    added: u64,
    followers: Vec<Follower>,
}
impl Record for Feed {}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Follower {
    name: String,
    /// It has everything up to this place, which is so many items.
    after: u64,
    count: u64,
    /// So many items may wait for it.
    max: u64,
    /// So many it did not get, because it was too far behind.
    lost: u64,
}

/// What one batch appended, or a part of it.
#[derive(Clone, Debug, Encode, Decode)]
struct Piece {
    /// Items before these.
    before: u64,
    /// The shard's time, in milliseconds since 1970.
    time_ms: u64,
    items: Vec<(TimelineId, u64)>,
}
impl Record for Piece {
    fn heap_bytes(&self) -> usize {
        self.items.len() * size_of::<(TimelineId, u64)>()
    }
}

#[derive(Clone, Encode, Decode)]
struct Kept(Vec<u8>);
impl Record for Kept {
    fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

/// What a follower asks for. Tags are append-only: they stand in logs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum FeedChange {
    /// To be fed from now on, or to let another number of items wait.
    Follow { follower: String, max: u64 },
    /// To be fed no more.
    Unfollow { follower: String },
    /// It has what lies up to `to`, and keeps this; if its cursor is still at `from`.
    Move { follower: String, from: u64, to: u64, keep: Vec<(u16, Vec<u8>)> },
}

/// Something that was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedItem {
    /// Its place in the feed: grows from item to item, and names it for ever within this shard's history.
    pub place: u64,
    /// When it was appended: the shard's time, in milliseconds since 1970.
    pub time_ms: u64,
    pub timeline: TimelineId,
    pub what: Fed,
}

/// See [`FeedItem`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fed {
    /// The entry with this number, as it is now.
    Entry(u64, Bytes),
    /// What a command noted with [`Tx::note`].
    Note(u32),
}

/// Items of a feed, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedPage {
    pub items: Vec<FeedItem>,
    /// The place of the last item, or where one was.
    pub last: u64,
    /// So many items lie behind these.
    pub rest: u64,
}

/// Where a follower is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedCursor {
    /// It has everything up to this place.
    pub after: u64,
    /// So many items wait for it.
    pub waiting: u64,
    /// So many it did not get, because it was too far behind.
    pub lost: u64,
    /// The last place that there is, or was.
    pub end: u64,
}

fn feed_key() -> Key {
    Key::new(SHARD_SLOT, table::FEED)
}

fn piece_key(piece: u64) -> Key {
    Key::new(SHARD_SLOT, table::FEED_PIECE).u64(piece)
}

fn kept_key(follower: &str, part: u16) -> Key {
    Key::new(SHARD_SLOT, table::FEED_KEPT).bytes(follower.as_bytes()).bytes(&[0]).bytes(&part.to_be_bytes())
}

fn load(store: &mut Store) -> Result<Feed, StateError> {
    Ok(store.get::<Feed>(&feed_key())?.map(|feed| (*feed).clone()).unwrap_or_default())
}

fn piece(store: &mut Store, number: u64) -> Result<std::sync::Arc<Piece>, StateError> {
    let missing = || StateError::Damaged { place: format!("feed piece {number}"), what: "it is missing".into() };
    store.get::<Piece>(&piece_key(number))?.ok_or_else(missing)
}

/// The number under which a note stands among those of entries.
pub(crate) fn note(what: u32) -> u64 {
    NOTE | u64::from(what)
}

/// Whether anybody follows.
pub(super) fn is_on(store: &mut Store) -> Result<bool, StateError> {
    Ok(store.get::<Feed>(&feed_key())?.is_some_and(|feed| !feed.followers.is_empty()))
}

/// Adds what a batch appended. Returns where the feed ends.
pub(super) fn add(store: &mut Store, time_ms: u64, items: &[(TimelineId, u64)]) -> Result<u64, StateError> {
    let mut feed = load(store)?;
    if feed.followers.is_empty() {
        return Ok(0);
    }
    let mut tx = Tx::new(store, time_ms);
    for items in items.chunks(PIECE_ITEMS as usize) {
        tx.put(piece_key(feed.next), Piece { before: feed.added, time_ms, items: items.to_vec() });
        feed.added += items.len() as u64;
        feed.next += 1;
    }
    tx.commit();
    for at in 0..feed.followers.len() {
        let Follower { after, count, max, .. } = feed.followers[at];
        let mut next = (after / PIECE_ITEMS).max(feed.first);
        let mut have = count;
        // Whole pieces at a time, as they are removed.
        while feed.added - have > max && next < feed.next {
            let oldest = piece(store, next)?;
            have = oldest.before + oldest.items.len() as u64;
            next += 1;
        }
        let follower = &mut feed.followers[at];
        if have > count {
            (follower.after, follower.count, follower.lost) =
                (next * PIECE_ITEMS - 1, have, follower.lost + (have - count));
        }
    }
    let end = feed.next * PIECE_ITEMS;
    trim(store, time_ms, feed)?;
    Ok(end)
}

/// Removes what nobody needs and writes the feed down.
fn trim(store: &mut Store, time_ms: u64, mut feed: Feed) -> Result<(), StateError> {
    let lowest = feed.followers.iter().map(|f| f.after).min().unwrap_or(feed.next * PIECE_ITEMS);
    let mut gone = Vec::new();
    while feed.first < feed.next {
        let len = piece(store, feed.first)?.items.len() as u64;
        if feed.first * PIECE_ITEMS + len - 1 > lowest {
            break;
        }
        gone.push(feed.first);
        feed.first += 1;
    }
    let mut tx = Tx::new(store, time_ms);
    gone.into_iter().for_each(|number| tx.delete(piece_key(number)));
    tx.put(feed_key(), feed);
    tx.commit();
    Ok(())
}

/// Does what a follower asks. False where that cannot be: it is not followed, or its cursor is elsewhere.
pub(super) fn change(store: &mut Store, time_ms: u64, change: FeedChange) -> Result<bool, StateError> {
    let mut feed = load(store)?;
    feed.next = feed.next.max(1);
    feed.first = feed.first.max(1);
    match change {
        FeedChange::Follow { follower, max } => {
            if let Some(known) = feed.followers.iter_mut().find(|f| f.name == follower) {
                known.max = max;
            } else {
                if feed.followers.len() >= FOLLOWERS_MAX || follower.is_empty() || follower.len() > NAME_LEN_MAX {
                    return Ok(false);
                }
                let (after, count) = (feed.next * PIECE_ITEMS - 1, feed.added);
                feed.followers.push(Follower { name: follower, after, count, max, lost: 0 });
            }
        }
        FeedChange::Unfollow { follower } => {
            feed.followers.retain(|f| f.name != follower);
            let mut tx = Tx::new(store, time_ms);
            (0..KEPT_PARTS).for_each(|part| tx.delete(kept_key(&follower, part)));
            tx.commit();
        }
        FeedChange::Move { follower, from, to, keep } => {
            let Some(known) = feed.followers.iter_mut().find(|f| f.name == follower) else { return Ok(false) };
            if known.after != from || to < from || to >= feed.next * PIECE_ITEMS {
                return Ok(false);
            }
            if to > from {
                if to / PIECE_ITEMS < feed.first {
                    return Ok(false);
                }
                let reached = piece(store, to / PIECE_ITEMS)?;
                let upto = (to % PIECE_ITEMS + 1).min(reached.items.len() as u64);
                (known.after, known.count) = (to, reached.before + upto);
            }
            let mut tx = Tx::new(store, time_ms);
            for (part, bytes) in keep {
                match bytes.is_empty() {
                    true => tx.delete(kept_key(&follower, part)),
                    false => tx.put(kept_key(&follower, part), Kept(bytes)),
                }
            }
            tx.commit();
        }
    }
    trim(store, time_ms, feed)?;
    Ok(true)
}

fn cursor(store: &mut Store, follower: &str) -> Result<Option<FeedCursor>, StateError> {
    let feed = load(store)?;
    let known = feed.followers.iter().find(|f| f.name == follower);
    let end = (feed.next.max(1) * PIECE_ITEMS).saturating_sub(1);
    Ok(known.map(|f| FeedCursor { after: f.after, waiting: feed.added - f.count, lost: f.lost, end: end.max(f.after) }))
}

/// Items after a place, at most so many, and of entries about so many bytes; at least one if there is one.
fn page(store: &mut Store, after: u64, items_max: usize, bytes_max: usize) -> Result<FeedPage, StateError> {
    let feed = load(store)?;
    let mut found = FeedPage { items: Vec::new(), last: after, rest: 0 };
    let mut place = (after + 1).max(feed.first * PIECE_ITEMS);
    let mut bytes = 0;
    while place / PIECE_ITEMS < feed.next {
        let piece = piece(store, place / PIECE_ITEMS)?;
        let at = (place % PIECE_ITEMS) as usize;
        let Some(&(timeline, number)) = piece.items.get(at) else {
            place = (place / PIECE_ITEMS + 1) * PIECE_ITEMS;
            continue;
        };
        if found.items.len() >= items_max || bytes >= bytes_max {
            found.rest = feed.added - piece.before - at as u64;
            return Ok(found);
        }
        found.last = place;
        let what = if number & NOTE == 0 {
            let entry = store.entries(timeline, number, number, usize::MAX)?.entries.pop();
            entry.map(|entry| Fed::Entry(number, entry))
        } else {
            Some(Fed::Note(number as u32))
        };
        if let Some(what) = what {
            bytes += if let Fed::Entry(_, entry) = &what { entry.len() } else { 0 };
            found.items.push(FeedItem { place, time_ms: piece.time_ms, timeline, what });
        }
        place += 1;
    }
    Ok(found)
}

impl<M: Machine> Shard<M> {
    /// Feeds a follower from now on; what is appended from here on waits for it, up to so many items. Asking again
    /// changes the number only. Names have up to 16 bytes. False where there are too many followers.
    pub async fn follow(&self, follower: &str, max: u64) -> Result<bool, AskError> {
        self.change_feed(FeedChange::Follow { follower: follower.to_owned(), max }).await
    }

    /// Feeds it no more, and forgets what it kept.
    pub async fn unfollow(&self, follower: &str) -> Result<bool, AskError> {
        self.change_feed(FeedChange::Unfollow { follower: follower.to_owned() }).await
    }

    /// A follower has everything up to the place `to`, and keeps these parts, none of them where it is empty; all of
    /// it or nothing. False where its cursor is not at `from`: another leader went on meanwhile.
    pub async fn move_cursor(
        &self,
        follower: &str,
        from: u64,
        to: u64,
        keep: Vec<(u16, Vec<u8>)>,
    ) -> Result<bool, AskError> {
        self.change_feed(FeedChange::Move { follower: follower.to_owned(), from, to, keep }).await
    }

    async fn change_feed(&self, change: FeedChange) -> Result<bool, AskError> {
        self.admit()?;
        let len = codec::encode(&change).len();
        if len > CHANGE_LEN_MAX {
            tracing::error!(shard = %self.0.id, len, "a follower of the feed keeps more than can be written down");
            return Err(AskError::StorageFull);
        }
        let (done, changed) = oneshot::channel();
        let reply = Box::new(move |result| drop(done.send(result)));
        self.enqueue(|builder| builder.feed(&change), Waiter::Fed(reply));
        changed.await.unwrap_or(Err(AskError::Unknown))
    }

    fn read<T>(&self, read: impl FnOnce(&mut Store) -> Result<T, StateError>) -> Result<T, AskError> {
        let mut core = lock(&self.0.core);
        self.lead()?;
        self.0.check(&core)?;
        let found = read(&mut core.store);
        drop(core);
        found.map_err(|error| self.0.state_failed(&error.to_string()))
    }

    /// Where a follower is; `None` where it does not follow. Of the leader alone, as are all reads of the feed.
    pub fn cursor(&self, follower: &str) -> Result<Option<FeedCursor>, AskError> {
        self.read(|store| cursor(store, follower))
    }

    /// What was appended after a place: at most so many items, and of entries about so many bytes.
    pub fn feed(&self, after: u64, items_max: usize, bytes_max: usize) -> Result<FeedPage, AskError> {
        self.read(|store| page(store, after, items_max, bytes_max))
    }

    /// What a follower kept under this number; empty for nothing.
    pub fn kept(&self, follower: &str, part: u16) -> Result<Vec<u8>, AskError> {
        self.read(|store| {
            Ok(store.get::<Kept>(&kept_key(follower, part))?.map(|kept| kept.0.clone()).unwrap_or_default())
        })
    }

    /// Changes whenever the feed grew.
    pub fn watch_feed(&self) -> watch::Receiver<u64> {
        self.0.feed_end.subscribe()
    }
}
