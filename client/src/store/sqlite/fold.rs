//! What entries change in what is stored already.

use magpie_protocol::{TimelineId, UserId, codec};
use rusqlite::{Connection, OptionalExtension, params};

use super::{id_bytes, signed};
use crate::{
    fold::{self, Change, Rewrite, Topic},
    store::{Reaction, StoreError},
};

/// Carries a change out.
pub(super) fn change(db: &Connection, timeline: TimelineId, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Put { topic, key, value } => put(db, *topic, key, value),
        Change::Delete { topic, key } => {
            db.prepare_cached("DELETE FROM kept WHERE topic = ? AND key = ?")?.execute(params![*topic as u8, key])?;
            Ok(())
        }
        Change::Befriend { user, card } => {
            let key = user.bits().to_be_bytes();
            let mut select = db.prepare_cached("SELECT value FROM kept WHERE topic = ? AND key = ?")?;
            let before: Option<Vec<u8>> =
                select.query_row(params![Topic::Card as u8, key], |row| row.get(0)).optional()?;
            put(db, Topic::Card, &key, &codec::encode(&fold::befriended(before.as_deref(), card)))
        }
        Change::Rewrite { number, how } => rewrite(db, timeline, *number, how),
        Change::Hide { timeline, up_to, numbers } => {
            hide(db, *timeline, *up_to, numbers)?;
            drop_hidden(db, *timeline)
        }
        Change::React { number, user, emoji, on } => react(db, timeline, *number, *user, emoji, *on),
    }
}

fn put(db: &Connection, topic: Topic, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR REPLACE INTO kept (topic, key, value) VALUES (?, ?, ?)")?.execute(params![
        topic as u8,
        key,
        value
    ])?;
    Ok(())
}

fn rewrite(db: &Connection, timeline: TimelineId, number: u64, how: &Rewrite) -> Result<(), StoreError> {
    let (kind, id) = id_bytes(timeline);
    let mut select = db.prepare_cached("SELECT bytes FROM entries WHERE kind = ? AND id = ? AND number = ?")?;
    let mut update = db.prepare_cached("UPDATE entries SET bytes = ? WHERE kind = ? AND id = ? AND number = ?")?;
    let mut next = Some((number, how.clone()));
    while let Some((number, how)) = next.take() {
        let bytes: Option<Vec<u8>> =
            select.query_row(params![kind, id, signed(number)], |row| row.get(0)).optional()?;
        let Some((bytes, spent)) = bytes.and_then(|bytes| fold::rewrite(&bytes, &how)) else { return Ok(()) };
        update.execute(params![bytes, kind, id, signed(number)])?;
        next = spent.map(|number| (number, Rewrite::Spent));
    }
    Ok(())
}

fn hide(db: &Connection, timeline: TimelineId, up_to: u64, numbers: &[u64]) -> Result<(), StoreError> {
    let (kind, id) = id_bytes(timeline);
    let mut insert =
        // One that hides all below it goes on doing so when it is named again.
        db.prepare_cached(
            "INSERT INTO hidden (kind, id, number, all_below) VALUES (?, ?, ?, ?)
             ON CONFLICT (kind, id, number) DO UPDATE SET all_below = MAX(all_below, excluded.all_below)",
        )?;
    if up_to > 0 {
        insert.execute(params![kind, id, signed(up_to), 1])?;
    }
    for number in numbers {
        insert.execute(params![kind, id, signed(*number), 0])?;
    }
    Ok(())
}

/// Entries that were deleted here go, also those that came after.
pub(super) fn drop_hidden(db: &Connection, timeline: TimelineId) -> Result<(), StoreError> {
    let (kind, id) = id_bytes(timeline);
    let mut any = db.prepare_cached("SELECT 1 FROM hidden WHERE kind = ? AND id = ? LIMIT 1")?;
    if !any.exists(params![kind, id])? {
        return Ok(());
    }
    db.prepare_cached(
        "DELETE FROM entries WHERE kind = ?1 AND id = ?2 AND (number IN
           (SELECT number FROM hidden WHERE kind = ?1 AND id = ?2)
         OR number <= (SELECT MAX(number) FROM hidden WHERE kind = ?1 AND id = ?2 AND all_below = 1))",
    )?
    .execute(params![kind, id])?;
    Ok(())
}

fn react(
    db: &Connection,
    timeline: TimelineId,
    number: u64,
    user: UserId,
    emoji: &str,
    on: bool,
) -> Result<(), StoreError> {
    let (kind, id) = id_bytes(timeline);
    let (number, user) = (signed(number), signed(user.bits()));
    if on {
        let place = "(SELECT COALESCE(MAX(place), 0) + 1 FROM reactions WHERE kind = ?1 AND id = ?2 AND number = ?3)";
        db.prepare_cached(&format!(
            "INSERT OR IGNORE INTO reactions (kind, id, number, user, emoji, place) VALUES (?1, ?2, ?3, ?4, ?5, {place})"
        ))?
        .execute(params![kind, id, number, user, emoji])?;
    } else {
        db.prepare_cached("DELETE FROM reactions WHERE kind = ? AND id = ? AND number = ? AND user = ? AND emoji = ?")?
            .execute(params![kind, id, number, user, emoji])?;
    }
    Ok(())
}

/// The signs on entries, in order of entry and of when they came.
pub(super) fn reactions(
    db: &Connection,
    timeline: TimelineId,
    from: u64,
    to: u64,
) -> Result<Vec<Reaction>, StoreError> {
    let (kind, id) = id_bytes(timeline);
    let mut statement = db.prepare_cached(
        "SELECT number, user, emoji FROM reactions WHERE kind = ? AND id = ? AND number BETWEEN ? AND ?
         ORDER BY number, place",
    )?;
    let rows = statement.query_map(params![kind, id, signed(from), signed(to)], |row| {
        let user = UserId::from_bits(row.get::<_, i64>(1)?.cast_unsigned());
        Ok(Reaction { number: row.get::<_, i64>(0)?.cast_unsigned(), user, emoji: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
