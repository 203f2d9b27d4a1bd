//! A shard's whole state in one file: with the log behind it, the truth.
//!
//! `MAGPSNP\x01 | meta len u32 | meta | blocks | end`. The meta ends with its own checksum, because it is also read
//! alone. A block is `packed len u32 | raw len u32 | checksum u64 |
//! LZ4`, raw being records of `key len u16 | key | value len u32 | value`; the end is a block of length 0 whose
//! checksum covers those of all blocks and the meta. Checksums are XXH3-64, numbers little endian.

mod incoming;

pub use incoming::{forget_partial, keep_only, receive};

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use magpie_protocol::ShardId;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{
    disk::{Disk, DiskFile, temporary_name},
    state::{
        StateBase, StateError,
        base::{Applied, unseal},
        key::Key,
    },
};

const MAGIC: [u8; 8] = *b"MAGPSNP\x01";
const BLOCK_BYTES: usize = 256 * 1024;

/// What is wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    #[error("snapshot: {0}")]
    Io(#[from] io::Error),
    #[error("snapshot damaged: {file} at offset {offset}: {what}")]
    Damaged { file: String, offset: usize, what: String },
    #[error(transparent)]
    State(#[from] StateError),
}

/// The file of a shard's snapshot at this index.
pub fn snapshot_path(dir: &Path, shard: ShardId, index: u64) -> PathBuf {
    dir.join(format!("{shard}-{index:016}.snap"))
}

/// The snapshots of a shard in `dir`, oldest first.
pub fn list(disk: &Arc<dyn Disk>, dir: &Path, shard: ShardId) -> io::Result<Vec<(u64, PathBuf)>> {
    let prefix = format!("{shard}-");
    let mut found = Vec::new();
    for name in disk.list(dir)? {
        if let Some(index) =
            name.strip_prefix(&prefix).and_then(|n| n.strip_suffix(".snap")).and_then(|n| n.parse().ok())
        {
            found.push((index, dir.join(name)));
        }
    }
    found.sort();
    Ok(found)
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

struct Writer {
    file: Box<dyn DiskFile>,
    block: Vec<u8>,
    total: Xxh3,
    written: u64,
}

impl Writer {
    fn begin(disk: &Arc<dyn Disk>, path: &Path, applied: &Applied) -> io::Result<Self> {
        disk.create_dir(folder(path))?;
        let meta = seal_meta(applied);
        let mut file = disk.create(&temporary_name(path))?;
        file.append(&[&MAGIC[..], &(meta.len() as u32).to_le_bytes(), &meta].concat())?;
        let mut total = Xxh3::new();
        total.update(&meta);
        Ok(Self { file, block: Vec::with_capacity(BLOCK_BYTES), total, written: 0 })
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.block.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.block.extend_from_slice(value);
        if self.block.len() >= BLOCK_BYTES { self.block() } else { Ok(()) }
    }

    fn end(mut self, disk: &Arc<dyn Disk>, path: &Path) -> Result<u64, SnapshotError> {
        if !self.block.is_empty() {
            self.block()?;
        }
        let end = self.total.digest();
        self.file.append(&[&[0; 8][..], &end.to_le_bytes()].concat())?;
        self.file.sync()?;
        let written = self.written;
        drop(self);
        let temporary = temporary_name(path);
        read(disk, &temporary, &mut |_, _| Ok(()))?;
        disk.rename(&temporary, path)?;
        disk.sync_dir(folder(path))?;
        metrics::counter!(crate::metrics::SNAPSHOT_BYTES).increment(written);
        Ok(written)
    }

    fn block(&mut self) -> io::Result<()> {
        let packed = lz4_flex::block::compress(&self.block);
        let checksum = xxh3_64(&packed);
        self.total.update(&checksum.to_le_bytes());
        let mut out = Vec::with_capacity(packed.len() + 16);
        out.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.block.len() as u32).to_le_bytes());
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&packed);
        self.written += out.len() as u64;
        self.block.clear();
        self.file.append(&out)
    }
}

/// Writes the base of a shard as a snapshot, makes it durable, reads it back, and returns its path.
/// The base must not change meanwhile.
pub fn write(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    shard: ShardId,
    base: &dyn StateBase,
) -> Result<(PathBuf, Applied, u64), SnapshotError> {
    let applied = base.applied();
    let path = snapshot_path(dir, shard, applied.index());
    let written = write_as(disk, &path, base)?;
    Ok((path, applied, written))
}

/// The same, to this file. Returns about how many bytes it has.
pub fn write_as(disk: &Arc<dyn Disk>, path: &Path, base: &dyn StateBase) -> Result<u64, SnapshotError> {
    let mut writer = Writer::begin(disk, path, &base.applied())?;
    let mut failed: Option<io::Error> = None;
    base.scan(&mut |key, stored| {
        writer.record(key, unseal(key, stored)?).map_err(|error| {
            let what = error.to_string();
            failed = Some(error);
            StateError::Io(what)
        })
    })
    .or_else(|e| failed.take().map_or(Err(SnapshotError::State(e)), |e| Err(e.into())))?;
    writer.end(disk, path)
}

/// Writes a snapshot anew to another file, as being this far, with another value where `change` gives one.
pub fn rewrite(
    (from, source): &(Arc<dyn Disk>, PathBuf),
    (to, target): &(Arc<dyn Disk>, PathBuf),
    applied: &Applied,
    change: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<u64, SnapshotError> {
    let mut writer = Writer::begin(to, target, applied)?;
    read(from, source, &mut |key, value| {
        let changed = change(key);
        Ok(writer.record(key, changed.as_deref().unwrap_or(value))?)
    })?;
    writer.end(to, target)
}

fn seal_meta(applied: &Applied) -> Vec<u8> {
    let mut meta = applied.to_bytes();
    meta.extend_from_slice(&xxh3_64(&meta).to_le_bytes());
    meta
}

fn open_meta(meta: &[u8]) -> Option<Applied> {
    let (body, checksum) = meta.split_last_chunk::<8>()?;
    (xxh3_64(body) == u64::from_le_bytes(*checksum)).then(|| Applied::from_bytes(body))?
}

/// How far the snapshot in this file is, from its front alone.
pub fn read_meta(disk: &Arc<dyn Disk>, path: &Path) -> Result<Applied, SnapshotError> {
    let damaged = || SnapshotError::Damaged { file: path.display().to_string(), offset: 0, what: "its header".into() };
    let head = disk.read_at(path, 0, 12).map_err(|_| damaged())?;
    if head[..8] != MAGIC {
        return Err(damaged());
    }
    let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    let meta = disk.read_at(path, 12, len.min(1 << 20)).map_err(|_| damaged())?;
    open_meta(&meta).ok_or_else(damaged)
}

/// What [`read`] calls for each key and value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), SnapshotError> + 'a;

/// A file that is read from its front, a window at a time: snapshots are longer than memory has room for.
struct Reader<'a> {
    disk: &'a Arc<dyn Disk>,
    path: &'a Path,
    len: u64,
    at: u64,
    window: Vec<u8>,
    used: usize,
}

const WINDOW_BYTES: u64 = 1 << 20;

impl<'a> Reader<'a> {
    fn open(disk: &'a Arc<dyn Disk>, path: &'a Path) -> io::Result<Self> {
        Ok(Self { disk, path, len: disk.len(path)?, at: 0, window: Vec::new(), used: 0 })
    }

    fn damaged(&self, what: &str) -> SnapshotError {
        let offset = self.at as usize;
        SnapshotError::Damaged { file: self.path.display().to_string(), offset, what: what.to_owned() }
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, SnapshotError> {
        if self.len - self.at < len as u64 {
            return Err(self.damaged("cut short"));
        }
        if self.window.len() - self.used < len {
            let more = (self.len - self.at).min(WINDOW_BYTES.max(len as u64));
            self.window = self.disk.read_at(self.path, self.at, more as usize)?;
            self.used = 0;
        }
        let bytes = self.window[self.used..self.used + len].to_vec();
        self.used += len;
        self.at += len as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        Ok(self.take(4)?.try_into().map_or(0, u32::from_le_bytes))
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(self.take(8)?.try_into().map_or(0, u64::from_le_bytes))
    }
}

/// Reads a whole snapshot, checking every block before its records are given out.
pub fn read(disk: &Arc<dyn Disk>, path: &Path, visit: &mut Visit<'_>) -> Result<Applied, SnapshotError> {
    let mut reader = Reader::open(disk, path)?;
    if reader.len < MAGIC.len() as u64 || reader.take(MAGIC.len())? != MAGIC {
        reader.at = 0;
        return Err(reader.damaged("its header does not check out"));
    }
    let meta_len = reader.u32()? as usize;
    let meta = reader.take(meta_len)?;
    let applied = open_meta(&meta).ok_or_else(|| reader.damaged("its position does not check out"))?;
    let mut total = Xxh3::new();
    total.update(&meta);
    loop {
        let (packed_len, raw_len) = (reader.u32()? as usize, reader.u32()? as usize);
        let checksum = reader.u64()?;
        if packed_len == 0 {
            return if raw_len == 0 && checksum == total.digest() && reader.at == reader.len {
                Ok(applied)
            } else {
                Err(reader.damaged("its end does not check out"))
            };
        }
        let packed = reader.take(packed_len)?;
        if xxh3_64(&packed) != checksum || raw_len > 64 * 1024 * 1024 {
            return Err(reader.damaged("a block does not check out"));
        }
        total.update(&checksum.to_le_bytes());
        let raw = lz4_flex::block::decompress(&packed, raw_len).map_err(|e| reader.damaged(&e.to_string()))?;
        if raw.len() != raw_len {
            return Err(reader.damaged("a block has another length than it says"));
        }
        visit_records(&raw, visit)?.then_some(()).ok_or_else(|| reader.damaged("its records do not add up"))?;
    }
}

fn visit_records(mut raw: &[u8], visit: &mut Visit<'_>) -> Result<bool, SnapshotError> {
    while let Some((len, rest)) = raw.split_first_chunk::<2>() {
        let key_len = usize::from(u16::from_le_bytes(*len));
        let Some((key, rest)) = rest.split_at_checked(key_len) else { return Ok(false) };
        let Some((len, rest)) = rest.split_first_chunk::<4>() else { return Ok(false) };
        let Some((value, rest)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize) else { return Ok(false) };
        visit(key, value)?;
        raw = rest;
    }
    Ok(raw.is_empty())
}

/// Rebuilds a base from a snapshot.
pub fn load(disk: &Arc<dyn Disk>, path: &Path, base: &dyn StateBase) -> Result<Applied, SnapshotError> {
    // Checked as a whole before the first record is used.
    let applied = read(disk, path, &mut |_, _| Ok(()))?;
    base.clear()?;
    let mut writes = Vec::new();
    read(disk, path, &mut |key, value| {
        let (front, id) = key.split_at_checked(3).unwrap_or((&[0; 3], &[]));
        let slot = magpie_protocol::Slot::new(u16::from_be_bytes([front[0], front[1]]));
        writes.push((Key::new(slot, front[2]).bytes(id), Some(value.to_vec())));
        if writes.len() >= 4096 {
            base.commit(std::mem::take(&mut writes), &Applied::default())?;
        }
        Ok(())
    })?;
    base.commit(writes, &applied)?;
    Ok(applied)
}
