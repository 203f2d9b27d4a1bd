//! The store in an SQLite file. The one file that knows rusqlite.

mod aside;
mod fold;

use std::path::Path;

use magpie_protocol::{ConversationId, DeviceId, Incarnation, TimelineId, UserId, codec, frame::conversation::Content};
use rusqlite::{Connection, OptionalExtension, params, types::ValueRef};

use super::{
    FileRow, Identity, LaneRow, Loaded, NewEntry, Reaction, Store, StoreError, content_bytes,
    lock::{FileIdentity, StoreLock, Witness},
    mint_incarnation,
};
use crate::{
    Error, History,
    fold::{Change, Topic},
    session::sync::Mark,
};

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS timelines (kind INTEGER, id BLOB, cursor INTEGER NOT NULL, first INTEGER NOT NULL,
        head INTEGER NOT NULL, read INTEGER NOT NULL, ended INTEGER, title TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS entries (kind INTEGER, id BLOB, number INTEGER, bytes BLOB NOT NULL,
        PRIMARY KEY (kind, id, number)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS lanes (conversation BLOB PRIMARY KEY, incarnation INTEGER NOT NULL,
        next INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS outgoing (conversation BLOB, number INTEGER, content BLOB NOT NULL,
        PRIMARY KEY (conversation, number)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS kept (topic INTEGER, key BLOB, value BLOB NOT NULL, PRIMARY KEY (topic, key))
        WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS reactions (kind INTEGER, id BLOB, number INTEGER, user INTEGER, emoji TEXT,
        place INTEGER NOT NULL, PRIMARY KEY (kind, id, number, user, emoji)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS hidden (kind INTEGER, id BLOB, number INTEGER, all_below INTEGER NOT NULL,
        PRIMARY KEY (kind, id, number)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS aside (kind INTEGER, id BLOB, number INTEGER, bytes BLOB, lost INTEGER NOT NULL,
        PRIMARY KEY (kind, id, number, bytes)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY AUTOINCREMENT, conversation BLOB NOT NULL,
        path TEXT NOT NULL, content BLOB NOT NULL);
";

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        Self(Error::Store(e.to_string()))
    }
}

/// See the module.
pub(super) struct Sqlite {
    /// `None` once closed.
    db: Option<Connection>,
    lock: Option<StoreLock>,
    witness: Witness,
    full_sync: bool,
    keep_entries: bool,
}

fn id_bytes(timeline: TimelineId) -> (u8, [u8; 16]) {
    let (kind, id) = timeline.to_parts();
    (kind, id.to_be_bytes())
}

/// The columns of ids and counters are 64 bits that SQLite shows as signed.
fn signed(n: u64) -> i64 {
    n.cast_signed()
}

impl Sqlite {
    /// Opens or makes the store, and finds out whether it may go on under its incarnation.
    pub(super) fn open(path: &Path, history: History) -> Result<(Self, Loaded), StoreError> {
        let lock = StoreLock::take(path)?;
        let db = Connection::open(path)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        db.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
        db.execute_batch("PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF; PRAGMA cache_size=-512;")?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > SCHEMA_VERSION {
            let what = format!("{} has format {version}, newer than {SCHEMA_VERSION}", path.display());
            return Err(Error::Store(format!("{what}: use a newer client")).into());
        }
        db.execute_batch(SCHEMA)?;
        db.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        db.set_prepared_statement_cache_capacity(32);
        let keep_entries = history == History::All;
        let mut store =
            Self { db: Some(db), lock: Some(lock), witness: Witness::default(), full_sync: true, keep_entries };
        let identity = store.take_hold(path)?;
        let (timelines, lanes, files) = (store.timelines()?, store.lanes()?, store.files()?);
        let loaded = Loaded { timelines, lanes, files, identity };
        Ok((store, loaded))
    }

    fn db(&mut self, full_sync: bool) -> Result<&mut Connection, StoreError> {
        let db = self.db.as_mut().ok_or(Error::Closed)?;
        if self.full_sync != full_sync {
            db.pragma_update(None, "synchronous", if full_sync { "FULL" } else { "NORMAL" })?;
            self.full_sync = full_sync;
        }
        Ok(db)
    }

    /// Compares store and witness, mints a new incarnation if they disagree, and marks both.
    fn take_hold(&mut self, path: &Path) -> Result<Identity, StoreError> {
        let here = FileIdentity::of(path)?;
        let (Some(lock), Some(db)) = (&self.lock, &mut self.db) else { return Err(Error::Closed.into()) };
        let stored = read_identity(db)?;
        let number = |key| get_number(db, key);
        let same_file = number("file_device")? == here.device && number("file_inode")? == here.inode;
        let mark = number("witness_mark")?;
        let sends = number("witness_sends")?;
        let witnessed = lock.witness().is_some_and(|seen| seen.mark == mark && seen.sends <= sends);
        let changed_ns = number("witness_changed_ns")?;
        let untouched = changed_ns == 0 || changed_ns == lock.changed_ns()?.cast_unsigned();
        let identity = match stored {
            Some(identity) if same_file && witnessed && untouched => identity,
            Some(identity) => {
                tracing::info!(same_file, witnessed, untouched, "the store was copied or restored: new incarnation");
                Identity { incarnation: mint_incarnation(), ..identity }
            }
            None => Identity::mint()?,
        };
        self.witness = Witness { mark: rand::random(), sends: 0 };
        let tx = db.transaction()?;
        write_identity(&tx, &identity)?;
        put_number(&tx, "file_device", here.device)?;
        put_number(&tx, "file_inode", here.inode)?;
        put_number(&tx, "witness_mark", self.witness.mark)?;
        put_number(&tx, "witness_sends", 0)?;
        put_number(&tx, "witness_changed_ns", 0)?;
        tx.commit()?;
        // A crash here leaves two that disagree: a new incarnation next time, which is always safe.
        lock.set_witness(self.witness, true)?;
        Ok(identity)
    }

    fn files(&mut self) -> Result<Vec<FileRow>, StoreError> {
        let mut statement = self.db(false)?.prepare("SELECT id, conversation, path, content FROM files ORDER BY id")?;
        let mut rows = statement.query([])?;
        let mut files = Vec::new();
        while let Some(row) = rows.next()? {
            let content: Content = codec::decode_stored(row.get_ref(3)?.as_blob().unwrap_or_default())
                .map_err(|e| Error::Store(format!("a file that is to be sent is damaged: {e}")))?;
            let conversation = ConversationId::from_bits(u128::from_be_bytes(row.get(1)?));
            files.push(FileRow { id: row.get(0)?, conversation, path: row.get::<_, String>(2)?.into(), content });
        }
        Ok(files)
    }

    fn lanes(&mut self) -> Result<Vec<LaneRow>, StoreError> {
        let db = self.db(false)?;
        let mut lanes = Vec::new();
        let mut statement = db.prepare("SELECT conversation, incarnation, next FROM lanes")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            lanes.push(LaneRow {
                conversation: ConversationId::from_bits(u128::from_be_bytes(row.get(0)?)),
                incarnation: Incarnation::from_bits(row.get::<_, i64>(1)?.cast_unsigned()),
                next: row.get::<_, i64>(2)?.cast_unsigned(),
                sends: Vec::new(),
            });
        }
        let mut sends = db.prepare("SELECT number, content FROM outgoing WHERE conversation = ? ORDER BY number")?;
        for lane in &mut lanes {
            let mut rows = sends.query([lane.conversation.bits().to_be_bytes()])?;
            while let Some(row) = rows.next()? {
                let content: Content = codec::decode_stored(row.get_ref(1)?.as_blob().unwrap_or_default())
                    .map_err(|e| Error::Store(format!("an unsent post in {} is damaged: {e}", lane.conversation)))?;
                lane.sends.push((row.get::<_, i64>(0)?.cast_unsigned(), content));
            }
        }
        Ok(lanes)
    }
}

fn get(db: &Connection, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = db.prepare_cached("SELECT value FROM meta WHERE key = ?")?;
    let value = statement.query_row([key], |row| match row.get_ref(0)? {
        ValueRef::Blob(bytes) => Ok(bytes.to_vec()),
        _ => Ok(Vec::new()),
    });
    Ok(value.optional()?)
}

fn put(db: &Connection, key: &str, value: &[u8]) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)")?.execute(params![key, value])?;
    Ok(())
}

/// A number of `meta`; 0 when there is none.
fn get_number(db: &Connection, key: &str) -> Result<u64, StoreError> {
    let bytes = get(db, key)?.unwrap_or_default();
    Ok(<[u8; 8]>::try_from(bytes).map_or(0, u64::from_be_bytes))
}

fn put_number(db: &Connection, key: &str, number: u64) -> Result<(), StoreError> {
    put(db, key, &number.to_be_bytes())
}

fn read_identity(db: &Connection) -> Result<Option<Identity>, StoreError> {
    let Some(seed) = get(db, "key_seed")? else { return Ok(None) };
    let key_seed = seed.try_into().map_err(|_| Error::Store("the device key is damaged".into()))?;
    let user = get(db, "user")?.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    Ok(Some(Identity {
        incarnation: Incarnation::from_bits(get_number(db, "incarnation")?),
        key_seed,
        token: get(db, "token")?.unwrap_or_default(),
        user: user.map(|bits| UserId::from_bits(u64::from_be_bytes(bits))),
        device: DeviceId::from_bits(get_number(db, "device")?),
        handle: String::from_utf8_lossy(&get(db, "handle")?.unwrap_or_default()).into_owned(),
        history_epoch: get_number(db, "history_epoch")?,
    }))
}

fn write_identity(db: &Connection, identity: &Identity) -> Result<(), StoreError> {
    put_number(db, "incarnation", identity.incarnation.bits())?;
    put(db, "key_seed", &identity.key_seed)?;
    put(db, "token", &identity.token)?;
    if let Some(user) = identity.user {
        put_number(db, "user", user.bits())?;
    }
    put_number(db, "device", identity.device.bits())?;
    put(db, "handle", identity.handle.as_bytes())?;
    put_number(db, "history_epoch", identity.history_epoch)
}

fn write_mark(db: &Connection, timeline: TimelineId, mark: &Mark) -> Result<(), StoreError> {
    let (kind, id) = id_bytes(timeline);
    db.prepare_cached(
        "INSERT OR REPLACE INTO timelines (kind, id, cursor, first, head, read, ended, title)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        kind,
        id,
        signed(mark.cursor),
        signed(mark.first),
        signed(mark.head),
        signed(mark.read),
        mark.ended.map(signed),
        mark.title.as_deref()
    ])?;
    Ok(())
}

fn write_send(db: &Connection, conversation: &[u8; 16], number: u64, content: &Content) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR REPLACE INTO outgoing (conversation, number, content) VALUES (?, ?, ?)")?
        .execute(params![conversation, signed(number), content_bytes(content)])?;
    Ok(())
}

fn write_lane(db: &Connection, conversation: &[u8; 16], incarnation: Incarnation, next: u64) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR REPLACE INTO lanes (conversation, incarnation, next) VALUES (?, ?, ?)")?
        .execute(params![conversation, signed(incarnation.bits()), signed(next)])?;
    Ok(())
}

impl Store for Sqlite {
    fn timelines(&mut self) -> Result<Vec<(TimelineId, Mark)>, StoreError> {
        let db = self.db(false)?;
        let mut statement =
            db.prepare_cached("SELECT kind, id, cursor, first, head, read, ended, title FROM timelines")?;
        let mut rows = statement.query([])?;
        let mut marks = Vec::new();
        while let Some(row) = rows.next()? {
            let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let id = TimelineId::from_parts(row.get(0)?, u128::from_be_bytes(row.get(1)?));
            let mark = Mark {
                cursor: number(2)?,
                first: number(3)?,
                head: number(4)?,
                read: number(5)?,
                ended: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
                title: row.get::<_, Option<String>>(7)?.map(Into::into),
            };
            marks.push((id.ok_or_else(|| Error::Store("a timeline id is damaged".into()))?, mark));
        }
        Ok(marks)
    }

    fn put_identity(&mut self, identity: &Identity) -> Result<(), StoreError> {
        let tx = self.db(true)?.transaction()?;
        write_identity(&tx, identity)?;
        Ok(tx.commit()?)
    }

    fn put_marks(&mut self, marks: &[(TimelineId, Mark)]) -> Result<(), StoreError> {
        let tx = self.db(false)?.transaction()?;
        for (timeline, mark) in marks {
            write_mark(&tx, *timeline, mark)?;
        }
        Ok(tx.commit()?)
    }

    fn append(
        &mut self,
        timeline: TimelineId,
        mark: &Mark,
        entries: &[NewEntry],
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let keep = self.keep_entries;
        let tx = self.db(false)?.transaction()?;
        write_mark(&tx, timeline, mark)?;
        if keep {
            let (kind, id) = id_bytes(timeline);
            let mut insert =
                tx.prepare_cached("INSERT OR IGNORE INTO entries (kind, id, number, bytes) VALUES (?, ?, ?, ?)")?;
            for entry in entries {
                insert.execute(params![kind, id, signed(entry.number), &entry.bytes.0[..]])?;
            }
            drop(insert);
            fold::drop_hidden(&tx, timeline)?;
            changes.iter().try_for_each(|change| fold::change(&tx, timeline, change))?;
        }
        Ok(tx.commit()?)
    }

    fn kept(&mut self, topic: Topic) -> Result<Vec<Vec<u8>>, StoreError> {
        let db = self.db(false)?;
        let mut statement = db.prepare_cached("SELECT value FROM kept WHERE topic = ? ORDER BY key")?;
        let rows = statement.query_map([topic as u8], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn reactions(&mut self, timeline: TimelineId, from: u64, to: u64) -> Result<Vec<Reaction>, StoreError> {
        fold::reactions(self.db(false)?, timeline, from, to)
    }

    fn entries_before(&mut self, timeline: TimelineId, before: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let (kind, id) = id_bytes(timeline);
        let db = self.db(false)?;
        let mut statement = db.prepare_cached(
            "SELECT bytes FROM entries WHERE kind = ? AND id = ? AND number < ? ORDER BY number DESC LIMIT ?",
        )?;
        // Numbers above what SQLite shows as positive never come.
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![kind, id, before, limit], |row| row.get(0))?;
        let mut found: Vec<Vec<u8>> = rows.collect::<Result<_, _>>()?;
        found.reverse();
        Ok(found)
    }

    fn put_send(
        &mut self,
        conversation: ConversationId,
        incarnation: Incarnation,
        number: u64,
        content: &Content,
        file: Option<i64>,
    ) -> Result<(), StoreError> {
        let key = conversation.bits().to_be_bytes();
        let sends = self.witness.sends + 1;
        let tx = self.db(true)?.transaction()?;
        write_lane(&tx, &key, incarnation, number + 1)?;
        write_send(&tx, &key, number, content)?;
        if let Some(file) = file {
            tx.prepare_cached("DELETE FROM files WHERE id = ?")?.execute([file])?;
        }
        put_number(&tx, "witness_sends", sends)?;
        tx.commit()?;
        self.witness.sends = sends;
        // The post is durable; a witness that knows of fewer proves nothing, and harms nothing.
        if let Some(Err(e)) = self.lock.as_ref().map(|lock| lock.set_witness(self.witness, false)) {
            tracing::warn!(error = %e, "the store's witness could not be written");
        }
        Ok(())
    }

    fn put_file(&mut self, file: &FileRow) -> Result<i64, StoreError> {
        let key = file.conversation.bits().to_be_bytes();
        let db = self.db(true)?;
        db.prepare_cached("INSERT INTO files (conversation, path, content) VALUES (?, ?, ?)")?.execute(params![
            key,
            file.path.to_string_lossy(),
            content_bytes(&file.content)
        ])?;
        Ok(db.last_insert_rowid())
    }

    fn forget_file(&mut self, id: i64) -> Result<(), StoreError> {
        self.db(false)?.prepare_cached("DELETE FROM files WHERE id = ?")?.execute([id])?;
        Ok(())
    }

    fn resolve_send(&mut self, conversation: ConversationId, _: Incarnation, number: u64) -> Result<(), StoreError> {
        // Lost with the power, the post is sent again and gets the same answer.
        self.db(false)?
            .prepare_cached("DELETE FROM outgoing WHERE conversation = ? AND number = ?")?
            .execute(params![conversation.bits().to_be_bytes(), signed(number)])?;
        Ok(())
    }

    fn put_lane(&mut self, lane: &LaneRow) -> Result<(), StoreError> {
        let key = lane.conversation.bits().to_be_bytes();
        let tx = self.db(true)?.transaction()?;
        tx.prepare_cached("DELETE FROM outgoing WHERE conversation = ?")?.execute([key])?;
        write_lane(&tx, &key, lane.incarnation, lane.next)?;
        for (number, content) in &lane.sends {
            write_send(&tx, &key, *number, content)?;
        }
        Ok(tx.commit()?)
    }

    fn entries(&mut self, timeline: TimelineId, after: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let (kind, id) = id_bytes(timeline);
        let db = self.db(false)?;
        let mut statement = db.prepare_cached(
            "SELECT bytes FROM entries WHERE kind = ? AND id = ? AND number > ? ORDER BY number LIMIT ?",
        )?;
        let rows = statement.query_map(params![kind, id, signed(after), limit], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn start_over(&mut self, me: Option<UserId>) -> Result<(), StoreError> {
        let tx = self.db(true)?.transaction()?;
        aside::set_aside(&tx, me)?;
        tx.execute_batch(
            "DELETE FROM entries; DELETE FROM timelines; DELETE FROM kept; DELETE FROM reactions; DELETE FROM hidden;",
        )?;
        Ok(tx.commit()?)
    }

    fn compare_aside(&mut self) -> Result<u64, StoreError> {
        if !aside::any(self.db(false)?)? {
            return Ok(0);
        }
        let tx = self.db(true)?.transaction()?;
        let lost = aside::compare(&tx)?;
        tx.commit()?;
        Ok(lost)
    }

    fn lost(&mut self) -> Result<Vec<(TimelineId, Vec<u8>)>, StoreError> {
        aside::lost(self.db(false)?)
    }

    fn forget_lost(&mut self) -> Result<(), StoreError> {
        self.db(true)?.execute("DELETE FROM aside WHERE lost = 1", [])?;
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let witness = self.witness;
        if let (Some(db), Some(lock)) = (self.db.take(), self.lock.take()) {
            lock.set_witness(witness, true)?;
            put_number(&db, "witness_changed_ns", lock.changed_ns()?.cast_unsigned())?;
            db.close().map_err(|(_, e)| StoreError::from(e))?;
        }
        Ok(())
    }
}
