//! `magpie admin backup`: one consistent cut of a running cluster, fetched into a folder.

use std::{
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use magpie_cluster::{
    backup::folder::{FileFacts, Folder, FolderError, Manifest},
    disk::os::OsDisk,
};
use magpie_protocol::ShardId;
use ureq::http::StatusCode;

use super::{Caller, say};
use crate::admin::backup::{BackupBegun, BackupPart, LEN_HEADER, PartQuery};

/// Bytes asked for at a time.
const PART_BYTES: u64 = 512 * 1024;
/// How often a backup is begun again whose parts were lost because leaders changed.
const TRIES: usize = 5;
/// Nodes keep parts that are asked for within two minutes.
const REMIND_EVERY: Duration = Duration::from_secs(30);
/// How long the node may be out of reach in between.
const AWAY_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// Why an attempt ended.
enum Failed {
    /// The parts are gone: a new cut is needed.
    Gone(String),
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

struct Fetch<'a> {
    caller: &'a Caller<'a>,
    folder: &'a Folder,
    begun: BackupBegun,
    reminded: Instant,
}

/// Whether nothing at all is in a folder, which need not be there.
pub(super) fn is_empty(dir: &Path) -> std::io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Says how far it is, where people look and scripts do not.
pub(super) fn progress(text: &str) {
    _ = writeln!(std::io::stderr().lock(), "{text}");
}

pub(super) fn run(caller: &Caller<'_>, dir: &Path) -> anyhow::Result<i32> {
    if !is_empty(dir).with_context(|| dir.display().to_string())? {
        return Err(FolderError::NotEmpty(dir.display().to_string()).into());
    }
    let was_there = dir.exists();
    let folder = Folder::create(Arc::new(OsDisk), dir)?;
    let mut why = String::new();
    for _ in 0..TRIES {
        match attempt(caller, &folder) {
            Ok(manifest) => return report(caller, dir, &manifest),
            Err(failed) => {
                // What is not whole is of no use, and would stand in the way of the next.
                std::fs::read_dir(dir)?.flatten().try_for_each(|file| std::fs::remove_file(file.path()))?;
                match failed {
                    Failed::Gone(text) => why = text,
                    Failed::Other(error) => {
                        if !was_there {
                            _ = std::fs::remove_dir(dir);
                        }
                        return Err(error);
                    }
                }
            }
        }
        progress(&format!("again: {why}"));
        std::thread::sleep(PAUSE);
    }
    bail!("no backup was made in {TRIES} tries: {why}")
}

fn attempt(caller: &Caller<'_>, folder: &Folder) -> Result<Manifest, Failed> {
    let url = caller.url("backup");
    let mut answer = caller.send(|| caller.agent.post(&url).header("authorization", caller.bearer()).send_empty())?;
    let text = answer.body_mut().read_to_string()?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::GONE => return Err(Failed::Gone(text.trim().to_owned())),
        _ => return Err(anyhow::anyhow!("{}", text.trim()).into()),
    }
    let begun: BackupBegun = serde_json::from_str(&text).context("the node answered something else")?;
    let time_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let mut fetch = Fetch { caller, folder, begun: begun.clone(), reminded: Instant::now() };
    let fetched = fetch.all();
    // Also of one that failed. Nodes that do not hear it forget by themselves.
    _ = caller.post::<serde_json::Value>("backup/end", &begun);
    Ok(folder.finish(begun.cut, time_ms, fetched?)?)
}

impl Fetch<'_> {
    fn all(&mut self) -> Result<Vec<FileFacts>, Failed> {
        let parts = self.begun.parts.clone();
        let mut files = Vec::new();
        for part in &parts {
            let shard: ShardId = part.shard.parse()?;
            let mut incoming = self.folder.begin(shard)?;
            loop {
                let (len, bytes) = self.part(part, incoming.len(), PART_BYTES)?;
                incoming.append(&bytes)?;
                match len {
                    Some(len) if incoming.len() >= len => break,
                    Some(_) => {}
                    None => std::thread::sleep(PAUSE),
                }
                self.remind()?;
            }
            let facts = self.folder.end(shard, self.begun.cut, incoming)?;
            let done = files.len() + 1;
            progress(&format!("{done} of {}: {shard} from {}, {} bytes", parts.len(), part.node, facts.bytes));
            files.push((shard, facts));
        }
        files.sort_by_key(|(shard, _)| *shard);
        Ok(files.into_iter().map(|(_, facts)| facts).collect())
    }

    /// Says of every part that it is still wanted.
    fn remind(&mut self) -> Result<(), Failed> {
        if self.reminded.elapsed() > REMIND_EVERY {
            self.reminded = Instant::now();
            for part in self.begun.parts.clone() {
                self.part(&part, 0, 0)?;
            }
        }
        Ok(())
    }

    /// Bytes of a shard's part, and how long it is, if that is known.
    fn part(&self, part: &BackupPart, offset: u64, len: u64) -> Result<(Option<u64>, Vec<u8>), Failed> {
        let PartQuery { shard, node, cut, offset, len } =
            PartQuery { shard: part.shard.clone(), node: part.node.clone(), cut: self.begun.cut, offset, len };
        let query = format!("backup/part?shard={shard}&node={node}&cut={cut}&offset={offset}&len={len}");
        let url = self.caller.url(&query);
        let mut answer =
            self.caller.send(|| self.caller.agent.get(&url).header("authorization", self.caller.bearer()).call())?;
        let status = answer.status();
        if status == StatusCode::ACCEPTED {
            return Ok((None, Vec::new()));
        }
        if status == StatusCode::OK {
            let whole = answer.headers().get(LEN_HEADER).and_then(|len| len.to_str().ok()?.parse().ok());
            let whole: u64 = whole.context("the node does not say how long the part is")?;
            return Ok((Some(whole), answer.body_mut().read_to_vec()?));
        }
        let text = answer.body_mut().read_to_string()?.trim().to_owned();
        Err(if status == StatusCode::GONE { Failed::Gone(text) } else { anyhow::anyhow!("{text}").into() })
    }
}

impl Caller<'_> {
    /// Asks again while the node is out of reach or its cluster has no leader.
    fn send(
        &self,
        ask: impl Fn() -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let since = Instant::now();
        loop {
            let asked = ask();
            // Whoever never answered is most likely not there.
            let patient = self.reached.get() && since.elapsed() < AWAY_MAX;
            match asked {
                Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE && since.elapsed() < AWAY_MAX => {}
                Err(_) if patient => {}
                asked => {
                    self.reached.set(asked.is_ok());
                    return asked.with_context(|| self.unreached());
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn report(caller: &Caller<'_>, dir: &Path, manifest: &Manifest) -> anyhow::Result<i32> {
    let Manifest { cluster, epoch, cut, time_ms, level, shards, .. } = manifest;
    let records: u64 = shards.iter().map(|file| file.records).sum();
    let (count, bytes) = (shards.len(), manifest.bytes());
    if caller.args.json {
        let file = |f: &FileFacts| serde_json::json!({ "bytes": f.bytes, "index": f.index, "records": f.records });
        let files: Vec<_> = shards.iter().map(file).collect();
        let text = serde_json::json!({
            "dir": dir, "cluster": format!("{cluster:016x}"), "history_epoch": epoch, "cut": cut, "time_ms": time_ms,
            "level": level, "bytes": bytes, "records": records, "shards": files,
        });
        say(&text.to_string())?;
        return Ok(0);
    }
    say(&format!(
        "{} holds cut {cut} of cluster {cluster:016x}, history epoch {epoch}: {count} shards, {records} records, \
         {bytes} bytes.\nKeys are not in it. Keep those that the nodes have: the folder cluster.keys of each, or of a \
         node that is alone dev-ca.pem and keys/ of its data folder.",
        dir.display()
    ))?;
    Ok(0)
}
