//! The folder of a backup: one snapshot file a shard, the record of the cluster, and the manifest.
//!
//! The manifest is text, a line a fact, and ends with the checksum of what stands before. It is written last, when
//! everything else is durable and was read back: a folder without one is not a backup.

use std::{
    fmt::Write,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use magpie_protocol::{ShardId, codec};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{
    disk::{Disk, DiskFile, write_whole},
    shard::cut,
    snapshot::{self, SnapshotError},
    system::{self, SYSTEM_SHARD, System},
};

/// The version of the folder's format.
pub const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest";
const SYSTEM: &str = "system";
const WINDOW_BYTES: u64 = 1 << 20;

/// What is wrong with a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("{0} is not empty: a backup is made in a folder of its own")]
    NotEmpty(String),
    #[error("{0} is not a backup: there is no manifest in it. A backup that was interrupted has none")]
    NoManifest(String),
    #[error(
        "the backup in {0} has format {1}, and this build knows format {FORMAT}: use the build that made it, or a newer one"
    )]
    Format(String, String),
    #[error("{file} is damaged: {what}")]
    Damaged { file: String, what: String },
}

/// One file of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileFacts {
    pub bytes: u64,
    /// XXH3-64 of the whole file.
    pub sum: u64,
    /// The last entry of the log that is in it, and how many records it has; of the system record, version and 1.
    pub index: u64,
    pub records: u64,
}

/// What a backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Which cluster, in which history.
    pub cluster: u64,
    pub epoch: u64,
    pub cut: u64,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// What every node of the cluster could do.
    pub level: u32,
    pub shards: Vec<FileFacts>,
    pub system: FileFacts,
}

impl Manifest {
    /// As it is stored.
    pub fn to_text(&self) -> String {
        let mut text = format!("magpie backup {FORMAT}\n");
        let Self { cluster, epoch, cut, time_ms, level, shards, system } = self;
        let count = shards.len();
        _ = writeln!(
            text,
            "cluster {cluster:016x}\nepoch {epoch}\ncut {cut}\ntime-ms {time_ms}\nlevel {level}\nshards {count}"
        );
        for file in shards.iter().chain([system]) {
            let FileFacts { bytes, sum, index, records } = file;
            _ = writeln!(text, "file {bytes} {sum:016x} {index} {records}");
        }
        _ = writeln!(text, "sum {:016x}", xxh3_64(text.as_bytes()));
        text
    }

    fn parse(text: &str, dir: &str) -> Result<Self, FolderError> {
        let damaged =
            || FolderError::Damaged { file: format!("{dir}/{MANIFEST}"), what: "it does not check out".into() };
        let first = text.lines().next().and_then(|line| line.strip_prefix("magpie backup ")).ok_or_else(damaged)?;
        if first != FORMAT.to_string() {
            return Err(FolderError::Format(dir.to_owned(), first.to_owned()));
        }
        Self::parse_lines(text).ok_or_else(damaged)
    }

    fn parse_lines(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip(1);
        let mut fact = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
        let cluster = u64::from_str_radix(&fact("cluster")?, 16).ok()?;
        let (epoch, cut) = (fact("epoch")?.parse().ok()?, fact("cut")?.parse().ok()?);
        let (time_ms, level) = (fact("time-ms")?.parse().ok()?, fact("level")?.parse().ok()?);
        let count: u16 = fact("shards")?.parse().ok()?;
        let mut files = Vec::new();
        for _ in 0..=count {
            let line = fact("file")?;
            let mut words = line.split(' ');
            files.push(FileFacts {
                bytes: words.next()?.parse().ok()?,
                sum: u64::from_str_radix(words.next()?, 16).ok()?,
                index: words.next()?.parse().ok()?,
                records: words.next()?.parse().ok()?,
            });
        }
        let system = files.pop()?;
        let manifest = Self { cluster, epoch, cut, time_ms, level, shards: files, system };
        // With its sum, to the last byte.
        (manifest.to_text() == text).then_some(manifest)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().chain([&self.system]).map(|file| file.bytes).sum()
    }
}

/// A backup's folder.
#[derive(Clone)]
pub struct Folder {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// A shard's file on its way into the folder.
pub struct Incoming {
    file: Box<dyn DiskFile>,
    len: u64,
}

impl Incoming {
    /// Takes what comes next.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.file.append(bytes)
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing came yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What a shard's file says.
struct Seen {
    facts: FileFacts,
    cut: Option<u64>,
    system: Option<System>,
}

impl Folder {
    /// A new backup's, which must be empty.
    pub fn create(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, FolderError> {
        if !disk.list(dir)?.is_empty() {
            return Err(FolderError::NotEmpty(dir.display().to_string()));
        }
        disk.create_dir(dir)?;
        Ok(Self { disk, dir: dir.to_owned() })
    }

    /// A backup, as its manifest says that it is.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Self, Manifest), FolderError> {
        let name = dir.display().to_string();
        if !disk.list(dir)?.iter().any(|file| file == MANIFEST) {
            return Err(FolderError::NoManifest(name));
        }
        let text = String::from_utf8_lossy(&disk.read(&dir.join(MANIFEST))?).into_owned();
        let manifest = Manifest::parse(&text, &name)?;
        Ok((Self { disk, dir: dir.to_owned() }, manifest))
    }

    /// The disk that it is on.
    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// A shard's file.
    pub fn path(&self, shard: ShardId) -> PathBuf {
        self.dir.join(format!("{shard}.snap"))
    }

    /// Begins a shard's file.
    pub fn begin(&self, shard: ShardId) -> io::Result<Incoming> {
        Ok(Incoming { file: self.disk.create(&self.path(shard))?, len: 0 })
    }

    /// A shard's file is all there: it is made durable and read back. It must be of this cut.
    pub fn end(&self, shard: ShardId, cut: u64, mut incoming: Incoming) -> Result<FileFacts, FolderError> {
        incoming.file.sync()?;
        drop(incoming);
        let seen = self.look(shard)?;
        if seen.cut != Some(cut) {
            return Err(self.damaged(shard, format!("it is of cut {:?} and not of {cut}", seen.cut)));
        }
        if let Some(system) = seen.system {
            system_to(&self.disk, &self.dir.join(SYSTEM), &system)?;
        }
        Ok(seen.facts)
    }

    fn damaged(&self, shard: ShardId, what: String) -> FolderError {
        FolderError::Damaged { file: self.path(shard).display().to_string(), what }
    }

    /// Reads all of a shard's file.
    fn look(&self, shard: ShardId) -> Result<Seen, FolderError> {
        let path = self.path(shard);
        let mut seen = Seen { facts: sum_of(&self.disk, &path)?, cut: None, system: None };
        let applied = snapshot::read(&self.disk, &path, &mut |key, value| {
            seen.facts.records += 1;
            seen.cut = seen.cut.or(cut::made_in(key, value));
            if shard == SYSTEM_SHARD && key == system::key().as_bytes() {
                seen.system = codec::decode_stored(value).ok();
            }
            Ok(())
        })?;
        seen.facts.index = applied.index();
        Ok(seen)
    }

    /// Everything is there: says so. The facts are those of the shards, in order.
    pub fn finish(&self, cut: u64, time_ms: u64, shards: Vec<FileFacts>) -> Result<Manifest, FolderError> {
        let system = self.system()?;
        let path = self.dir.join(SYSTEM);
        let facts = FileFacts { index: system.version, records: 1, ..sum_of(&self.disk, &path)? };
        if system.shards.len() != shards.len() {
            let what = format!("the cluster has {} shards, and {} came", system.shards.len(), shards.len());
            return Err(FolderError::Damaged { file: self.dir.display().to_string(), what });
        }
        let (cluster, epoch, level) = (system.id, system.epoch, system.level);
        let manifest = Manifest { cluster, epoch, cut, time_ms, level, shards, system: facts };
        self.disk.sync_dir(&self.dir)?;
        write_whole(&self.disk, &self.dir.join(MANIFEST), manifest.to_text().as_bytes())?;
        Ok(manifest)
    }

    /// The record of the cluster.
    pub fn system(&self) -> Result<System, FolderError> {
        let path = self.dir.join(SYSTEM);
        let bytes = self.disk.read(&path)?;
        let whole = bytes.split_last_chunk::<8>().filter(|(body, sum)| xxh3_64(body) == u64::from_le_bytes(**sum));
        let damaged =
            || FolderError::Damaged { file: path.display().to_string(), what: "it does not check out".into() };
        whole.and_then(|(body, _)| codec::decode_stored(body).ok()).ok_or_else(damaged)
    }

    /// Reads everything, and compares it with what the manifest says.
    pub fn check(&self, manifest: &Manifest) -> Result<(), FolderError> {
        for (at, facts) in manifest.shards.iter().enumerate() {
            let shard = ShardId::new(at as u16);
            let seen = self.look(shard)?;
            if seen.facts != *facts || seen.cut != Some(manifest.cut) {
                return Err(self.damaged(shard, "it is another file than the one that the manifest names".into()));
            }
        }
        let (path, system) = (self.dir.join(SYSTEM), self.system()?);
        let facts = sum_of(&self.disk, &path)?;
        if (facts.bytes, facts.sum) != (manifest.system.bytes, manifest.system.sum) || system.id != manifest.cluster {
            let what = "it is another file than the one that the manifest names".into();
            return Err(FolderError::Damaged { file: path.display().to_string(), what });
        }
        Ok(())
    }
}

fn system_to(disk: &Arc<dyn Disk>, path: &Path, system: &System) -> io::Result<()> {
    let mut bytes = codec::encode(system);
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    write_whole(disk, path, &bytes)
}

/// Length and checksum of a file.
fn sum_of(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<FileFacts> {
    let (bytes, mut sum, mut at) = (disk.len(path)?, Xxh3::new(), 0);
    while at < bytes {
        let window = disk.read_at(path, at, (bytes - at).min(WINDOW_BYTES) as usize)?;
        sum.update(&window);
        at += window.len() as u64;
    }
    Ok(FileFacts { bytes, sum: sum.digest(), ..FileFacts::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_what_was_written_or_nothing() {
        let file = |n| FileFacts { bytes: n, sum: n << 60, index: n + 1, records: n + 2 };
        let (shards, system) = (vec![file(1), file(2)], file(3));
        let manifest = Manifest { cluster: 7, epoch: 2, cut: 3, time_ms: 4, level: 2, shards, system };
        let text = manifest.to_text();
        assert_eq!(Manifest::parse(&text, "d").unwrap(), manifest);
        for cut in 0..text.len() - 1 {
            assert!(Manifest::parse(&text[..cut], "d").is_err(), "cut at {cut}");
        }
        for at in 16..text.len() - 1 {
            let mut other = text.clone().into_bytes();
            other[at] ^= 1;
            let other = String::from_utf8(other).unwrap();
            assert!(Manifest::parse(&other, "d").is_err(), "changed at {at}: {other}");
        }
        let newer = text.replace("backup 1", "backup 2");
        let error = Manifest::parse(&newer, "d").unwrap_err().to_string();
        assert!(error.contains("has format 2"), "{error}");
    }
}
