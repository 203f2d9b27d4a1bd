//! The index of one shard: which words stand in which entries, and how far each conversation was read for it.
//!
//! It is a cache: derived from the timelines, and good for nothing but to know where to look. The one file that knows
//! tantivy. What was read of a conversation and how far that is are written in the same commit, so they never disagree.
//! An index that cannot be read, or was made of another history, is deleted and made anew.

mod collect;

use std::{
    collections::HashMap,
    fs,
    ops::Bound,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use magpie_protocol::{ConversationId, frame::search::Place};
use tantivy::{
    DocSet as _, Index as Tantivy, IndexReader, IndexWriter, ReloadPolicy, TERMINATED, TantivyDocument, TantivyError,
    Term,
    directory::{MmapDirectory, error::OpenReadError},
    indexer::IndexWriterOptions,
    query::{BooleanQuery, InvertedIndexRangeQuery, Query, TermQuery, TermSetQuery},
    schema::{FAST, Field, INDEXED, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions},
};

use super::tokens::{self, Asked, Question};

/// Of the form of the index: another one is made anew.
const FORM: &str = "magpie search index, form 1";
const FORM_FILE: &str = "form";
/// A writer that nothing came to for this long gives its memory back.
const WRITER_IDLE: Duration = Duration::from_secs(60);
/// A segment that is merged while something is taken out of it has to be written once more.
const REWRITES_MAX: usize = 4;

/// Why there is no answer from an index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// It is of no use as it is.
    #[error("the search index is damaged: {0}")]
    Damaged(String),
    /// Something else holds it right now.
    #[error("the search index is in use")]
    Busy,
    #[error("the search index does not answer")]
    Gone,
}

impl From<TantivyError> for IndexError {
    fn from(error: TantivyError) -> Self {
        match error {
            TantivyError::LockFailure(..) => Self::Busy,
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<std::io::Error> for IndexError {
    fn from(error: std::io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// What an entry changes in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This entry says this and nothing else.
    Put { number: u64, time_ms: u64, words: String },
    /// This entry has no words any more.
    Drop { number: u64 },
}

/// How far a conversation was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub conversation: ConversationId,
    /// The last entry that was read for the index.
    pub through: u64,
    /// When somebody searched it last, in milliseconds since 1970.
    pub searched_ms: u64,
}

/// Entries of one conversation that somebody may read: from, and up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub conversation: ConversationId,
    pub first: u64,
    pub last: u64,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub question: Question,
    pub windows: Vec<Window>,
    /// Only what is older.
    pub before: Option<Place>,
    pub limit: usize,
}

#[derive(Clone, Copy)]
struct Fields {
    /// Of an entry: its conversation.
    conversation: Field,
    /// Of an entry: conversation and number, to find it again.
    key: Field,
    words: Field,
    /// Of a cursor: its conversation.
    cursor: Field,
    /// Of an entry its number; of a cursor how far it is.
    number: Field,
    /// Of an entry its time; of a cursor when it was searched last.
    time: Field,
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    let fast = || NumericOptions::from(FAST);
    let words = TextFieldIndexing::default()
        .set_tokenizer("whitespace")
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic);
    let fields = Fields {
        conversation: schema.add_bytes_field("conversation", INDEXED | FAST),
        key: schema.add_bytes_field("key", INDEXED),
        words: schema.add_text_field("words", TextOptions::default().set_indexing_options(words)),
        cursor: schema.add_bytes_field("cursor", INDEXED),
        number: schema.add_u64_field("number", fast()),
        time: schema.add_u64_field("time", fast()),
    };
    (schema.build(), fields)
}

fn conversation_bytes(conversation: ConversationId) -> [u8; 16] {
    conversation.bits().to_be_bytes()
}

fn key_bytes(conversation: ConversationId, number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&conversation_bytes(conversation));
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}

struct Writer {
    inner: IndexWriter,
    used: Instant,
}

/// See the module's documentation. It blocks: for a thread of its own.
pub struct Index {
    inner: Tantivy,
    fields: Fields,
    reader: IndexReader,
    writer: Option<Writer>,
    memory_bytes: usize,
    /// How far conversations are that were written to and not committed yet.
    pending: HashMap<ConversationId, Cursor>,
}

impl Index {
    /// The index in this folder, if it is of this history and can be read; else a new one in its place.
    pub fn open(dir: &Path, history: &str, memory_bytes: usize) -> Result<Self, IndexError> {
        let form = format!("{FORM}\n{history}\n");
        if fs::read_to_string(dir.join(FORM_FILE)).is_ok_and(|there| there == form) {
            match Self::open_there(dir, memory_bytes) {
                Ok(index) => return Ok(index),
                Err(IndexError::Busy) => return Err(IndexError::Busy),
                Err(error) => tracing::warn!(dir = %dir.display(), %error, "it is made anew"),
            }
        }
        delete(dir)?;
        fs::create_dir_all(dir)?;
        let (schema, fields) = schema();
        let inner = Tantivy::create_in_dir(dir, schema)?;
        // Last: a folder without it is none.
        fs::write(dir.join(FORM_FILE), form)?;
        Self::with(inner, fields, memory_bytes)
    }

    fn open_there(dir: &Path, memory_bytes: usize) -> Result<Self, IndexError> {
        let directory = MmapDirectory::open(dir).map_err(TantivyError::from)?;
        let inner = Tantivy::open(directory)?;
        let (expected, fields) = schema();
        if inner.schema() != expected {
            return Err(IndexError::Damaged("it has other fields".to_owned()));
        }
        // Not what tantivy's own check looks at: that leaves out what a damaged list of files does.
        for file in inner.load_metas()?.list_segment_files() {
            let is_whole = match inner.directory().validate_checksum(&file) {
                // A segment of which nothing was deleted has no such file.
                Err(OpenReadError::FileDoesNotExist(_)) => true,
                checked => checked.map_err(TantivyError::from)?,
            };
            if !is_whole {
                return Err(IndexError::Damaged(format!("{} does not check out", file.display())));
            }
        }
        Self::with(inner, fields, memory_bytes)
    }

    fn with(inner: Tantivy, fields: Fields, memory_bytes: usize) -> Result<Self, IndexError> {
        let reader = inner.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { inner, fields, reader, writer: None, memory_bytes, pending: HashMap::new() })
    }

    fn writer(&mut self) -> Result<&mut IndexWriter, IndexError> {
        if self.writer.is_none() {
            let options = IndexWriterOptions::builder()
                .memory_budget_per_thread(self.memory_bytes)
                .num_worker_threads(1)
                .num_merge_threads(1)
                .build();
            self.writer = Some(Writer { inner: self.inner.writer_with_options(options)?, used: Instant::now() });
        }
        match &mut self.writer {
            Some(writer) => {
                writer.used = Instant::now();
                Ok(&mut writer.inner)
            }
            None => Err(IndexError::Gone),
        }
    }

    /// Gives the writer's memory and threads back, if nothing came to it for a while.
    pub fn rest(&mut self) -> Result<(), IndexError> {
        if self.writer.as_ref().is_some_and(|writer| writer.used.elapsed() > WRITER_IDLE) {
            self.commit()?;
            if let Some(writer) = self.writer.take() {
                writer.inner.wait_merging_threads()?;
            }
        }
        Ok(())
    }

    /// How far these conversations are, those that were ever read, with what is not committed yet.
    pub fn cursors(&self, conversations: &[ConversationId]) -> Result<Vec<Cursor>, IndexError> {
        let searcher = self.reader.searcher();
        let mut found = Vec::new();
        for conversation in conversations {
            if let Some(pending) = self.pending.get(conversation) {
                found.push(*pending);
                continue;
            }
            let term = Term::from_field_bytes(self.fields.cursor, &conversation_bytes(*conversation));
            for segment in searcher.segment_readers() {
                let inverted = segment.inverted_index(self.fields.cursor)?;
                let Some(mut postings) = inverted.read_postings(&term, IndexRecordOption::Basic)? else { continue };
                let (numbers, times) = (segment.fast_fields().u64("number")?, segment.fast_fields().u64("time")?);
                while postings.doc() != TERMINATED {
                    let doc = postings.doc();
                    if !segment.is_deleted(doc) {
                        let value = |column: &tantivy::columnar::Column<u64>| column.first(doc).unwrap_or(0);
                        let (through, searched_ms) = (value(&numbers), value(&times));
                        found.push(Cursor { conversation: *conversation, through, searched_ms });
                    }
                    postings.advance();
                }
            }
        }
        Ok(found)
    }

    /// The conversations that the index knows.
    pub fn conversations(&self) -> Result<Vec<ConversationId>, IndexError> {
        let mut found: Vec<ConversationId> = self.pending.keys().copied().collect();
        for segment in self.reader.searcher().segment_readers() {
            let inverted = segment.inverted_index(self.fields.cursor)?;
            let mut terms = inverted.terms().stream()?;
            while terms.advance() {
                let bits = <[u8; 16]>::try_from(terms.key())
                    .map_err(|_| IndexError::Damaged("a cursor of no conversation".to_owned()))?;
                found.push(ConversationId::from_bits(u128::from_be_bytes(bits)));
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Adds what was read of a conversation after `from`, up to `cursor`. Nothing happens where another was quicker:
    /// how far the conversation is then comes back.
    pub fn add(&mut self, from: u64, cursor: Cursor, changes: Vec<Change>) -> Result<Cursor, IndexError> {
        let there = self.cursors(&[cursor.conversation])?.first().copied();
        if let Some(there) = there.filter(|there| there.through != from) {
            return Ok(there);
        }
        if there.is_none() && from != 0 {
            return Ok(Cursor { through: 0, ..cursor });
        }
        let (fields, conversation) = (self.fields, cursor.conversation);
        let writer = self.writer()?;
        let mut documents = 0;
        for change in changes {
            let (number, put) = match change {
                Change::Put { number, time_ms, words } => (number, Some((time_ms, tokens::terms(&words)))),
                Change::Drop { number } => (number, None),
            };
            let key = key_bytes(conversation, number);
            if number <= from {
                writer.delete_term(Term::from_field_bytes(fields.key, &key));
            }
            let Some((time_ms, terms)) = put.filter(|(_, terms)| !terms.is_empty()) else { continue };
            let mut document = TantivyDocument::new();
            document.add_bytes(fields.conversation, &conversation_bytes(conversation));
            document.add_bytes(fields.key, &key);
            document.add_u64(fields.number, number);
            document.add_u64(fields.time, time_ms);
            // No term has a space in it.
            document.add_text(fields.words, terms.into_iter().collect::<Vec<_>>().join(" "));
            writer.add_document(document)?;
            documents += 1;
        }
        self.put_cursor(cursor)?;
        metrics::counter!(crate::metrics::SEARCH_INDEXED).increment(documents);
        Ok(cursor)
    }

    /// Says how far a conversation is, or when it was searched last.
    pub fn put_cursor(&mut self, cursor: Cursor) -> Result<(), IndexError> {
        let fields = self.fields;
        let bytes = conversation_bytes(cursor.conversation);
        let writer = self.writer()?;
        writer.delete_term(Term::from_field_bytes(fields.cursor, &bytes));
        let mut document = TantivyDocument::new();
        document.add_bytes(fields.cursor, &bytes);
        document.add_u64(fields.number, cursor.through);
        document.add_u64(fields.time, cursor.searched_ms);
        writer.add_document(document)?;
        self.pending.insert(cursor.conversation, cursor);
        Ok(())
    }

    /// Takes a conversation out.
    pub fn forget(&mut self, conversation: ConversationId) -> Result<(), IndexError> {
        let fields = self.fields;
        let bytes = conversation_bytes(conversation);
        let writer = self.writer()?;
        writer.delete_term(Term::from_field_bytes(fields.conversation, &bytes));
        writer.delete_term(Term::from_field_bytes(fields.cursor, &bytes));
        let gone = Cursor { conversation, through: 0, searched_ms: 0 };
        self.pending.insert(conversation, gone);
        Ok(())
    }

    /// Makes what was added durable and found, cursors and words in one.
    pub fn commit(&mut self) -> Result<(), IndexError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.writer()?.commit()?;
        self.pending.clear();
        self.reader.reload()?;
        Ok(())
    }

    /// Takes out the half of the conversations that was searched longest ago, and gives its room back. False where there
    /// is no half to take.
    pub fn shed(&mut self) -> Result<bool, IndexError> {
        self.commit()?;
        let all = self.conversations()?;
        let mut cursors = self.cursors(&all)?;
        cursors.sort_by_key(|cursor| cursor.searched_ms);
        cursors.truncate(cursors.len() / 2);
        cursors.iter().try_for_each(|cursor| self.forget(cursor.conversation))?;
        self.rewrite()?;
        Ok(!cursors.is_empty())
    }

    /// Writes segments anew that hold what was taken out, so that it leaves the disk.
    pub fn rewrite(&mut self) -> Result<(), IndexError> {
        self.commit()?;
        for _ in 0..REWRITES_MAX {
            let segments = self.inner.searchable_segment_metas()?;
            let with_deleted: Vec<_> = segments.iter().filter(|s| s.has_deletes()).map(|s| s.id()).collect();
            if with_deleted.is_empty() {
                break;
            }
            for segment in with_deleted {
                // One that is being merged with others already cannot be named; it is gone then, too.
                _ = self.writer()?.merge(&[segment]).wait();
            }
            if let Some(writer) = self.writer.take() {
                writer.inner.wait_merging_threads()?;
            }
        }
        self.reader.reload()?;
        self.writer()?.garbage_collect_files().wait()?;
        if let Some(writer) = self.writer.take() {
            writer.inner.wait_merging_threads()?;
        }
        Ok(())
    }

    /// The places of entries that seem to have what is wanted, newest first. Others may have it, too, where the limit is
    /// reached.
    pub fn find(&self, wanted: &Wanted) -> Result<Vec<Place>, IndexError> {
        let fields = self.fields;
        let ids = wanted.windows.iter().map(|window| conversation_bytes(window.conversation));
        let ids = ids.map(|bytes| Term::from_field_bytes(fields.conversation, &bytes));
        let mut all: Vec<Box<dyn Query>> = vec![Box::new(TermSetQuery::new(ids))];
        for asked in wanted.question.asked() {
            all.push(match asked {
                Asked::Term(term) => {
                    Box::new(TermQuery::new(Term::from_field_text(fields.words, term), IndexRecordOption::Basic))
                }
                Asked::Beginning(begin) => {
                    let from = Term::from_field_text(fields.words, begin);
                    let to = Term::from_field_text(fields.words, &format!("{begin}\u{10ffff}"));
                    Box::new(InvertedIndexRangeQuery::new(Bound::Included(from), Bound::Excluded(to)))
                }
            });
        }
        let newest = collect::Newest::of(wanted);
        Ok(self.reader.searcher().search(&BooleanQuery::intersection(all), &newest)?)
    }
}

/// Every word that stands in the files of an index, which is only read.
pub fn words_in(dir: &Path) -> Result<Vec<String>, IndexError> {
    let inner = Tantivy::open(MmapDirectory::open(dir).map_err(TantivyError::from)?)?;
    let (_, fields) = schema();
    let reader: IndexReader = inner.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
    let mut words = Vec::new();
    for segment in reader.searcher().segment_readers() {
        let inverted = segment.inverted_index(fields.words)?;
        let mut terms = inverted.terms().stream()?;
        while terms.advance() {
            words.push(String::from_utf8_lossy(terms.key()).into_owned());
        }
    }
    Ok(words)
}

/// Deletes an index, if there is one.
pub fn delete(dir: &Path) -> Result<(), IndexError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The bytes of all files below a folder.
pub fn bytes_of(dir: &Path) -> u64 {
    let files = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let mut bytes = 0;
    for path in files(dir) {
        bytes += match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => bytes_of(&path),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        };
    }
    bytes
}

#[cfg(test)]
mod tests;
