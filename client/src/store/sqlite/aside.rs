//! What was set aside when the server's history became another one.

use magpie_protocol::{TimelineId, UserId};
use rusqlite::{Connection, OptionalExtension, params};

use crate::store::{StoreError, is_said_by, is_same};

/// A stored entry, with where it stands.
type Row = (u8, [u8; 16], i64, Vec<u8>);

fn rows(db: &Connection, what: &str) -> Result<Vec<Row>, StoreError> {
    let mut select = db.prepare(what)?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Sets aside what this person said.
pub(super) fn set_aside(db: &Connection, me: Option<UserId>) -> Result<(), StoreError> {
    let mut insert =
        db.prepare("INSERT OR IGNORE INTO aside (kind, id, number, bytes, lost) VALUES (?, ?, ?, ?, 0)")?;
    let mut select = db.prepare("SELECT kind, id, number, bytes FROM entries")?;
    let mut all = select.query([])?;
    while let Some(row) = all.next()? {
        let bytes: Vec<u8> = row.get(3)?;
        if is_said_by(&bytes, me) {
            insert.execute(params![row.get::<_, u8>(0)?, row.get::<_, [u8; 16]>(1)?, row.get::<_, i64>(2)?, bytes])?;
        }
    }
    Ok(())
}

/// Whether anything waits to be compared.
pub(super) fn any(db: &Connection) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("SELECT 1 FROM aside WHERE lost = 0 LIMIT 1")?.exists([])?)
}

/// What is not here again, and was not deleted here, is lost. Returns how much that is.
pub(super) fn compare(db: &Connection) -> Result<u64, StoreError> {
    let mut here = db.prepare("SELECT bytes FROM entries WHERE kind = ? AND id = ? AND number = ?")?;
    let mut hidden = db.prepare(
        "SELECT 1 FROM hidden WHERE kind = ?1 AND id = ?2 AND (number = ?3 OR all_below = 1 AND number >= ?3)",
    )?;
    for (kind, id, number, bytes) in rows(db, "SELECT kind, id, number, bytes FROM aside WHERE lost = 0")? {
        let there: Option<Vec<u8>> = here.query_row(params![kind, id, number], |row| row.get(0)).optional()?;
        if there.is_some_and(|there| is_same(&there, &bytes)) || hidden.exists(params![kind, id, number])? {
            db.prepare_cached("DELETE FROM aside WHERE kind = ? AND id = ? AND number = ? AND bytes = ?")?
                .execute(params![kind, id, number, bytes])?;
        }
    }
    Ok(db.execute("UPDATE aside SET lost = 1 WHERE lost = 0", [])? as u64)
}

/// What was lost.
pub(super) fn lost(db: &Connection) -> Result<Vec<(TimelineId, Vec<u8>)>, StoreError> {
    let lost = rows(db, "SELECT kind, id, number, bytes FROM aside WHERE lost = 1 ORDER BY kind, id, number")?;
    let known = |(kind, id, _, bytes)| Some((TimelineId::from_parts(kind, u128::from_be_bytes(id))?, bytes));
    Ok(lost.into_iter().filter_map(known).collect())
}
