//! Real logs: each file a group, each nick a person, the order of lines the order of messages.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;

use super::Ran;
use crate::{
    figures::Stretch,
    peers::Server,
    process,
    progress::Progress,
    samples::Sampler,
    system::{Topology, until},
    workload::Workload,
};

/// One file: who is in it, and what each said at which minute.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    nicks: Vec<String>,
    lines: Vec<(u32, usize, usize)>,
}

/// Reads `[HH:MM] <nick> text` lines; others are passed over. Minutes count from the first line on.
fn read(text: &str) -> Log {
    let mut log = Log::default();
    let mut places = BTreeMap::new();
    let (mut day, mut last) = (0, 0);
    for line in text.lines() {
        let Some((minute, nick, said)) = parse(line) else { continue };
        if minute < last {
            day += 24 * 60;
        }
        last = minute;
        let place = *places.entry(nick.to_owned()).or_insert_with(|| {
            log.nicks.push(nick.to_owned());
            log.nicks.len() - 1
        });
        log.lines.push((day + minute, place, said.len().clamp(1, 16 * 1024)));
    }
    let first = log.lines.first().map_or(0, |line| line.0);
    log.lines.iter_mut().for_each(|line| line.0 -= first);
    log
}

fn parse(line: &str) -> Option<(u32, &str, &str)> {
    let (time, rest) = line.strip_prefix('[')?.split_once("] <")?;
    let (hour, minute) = time.split_once(':')?;
    let (nick, text) = rest.split_once("> ")?;
    (!text.is_empty()).then_some((hour.parse::<u32>().ok()? * 60 + minute.parse::<u32>().ok()?, nick, text))
}

fn logs(folder: &Path, files: usize) -> anyhow::Result<Vec<Log>> {
    let mut paths = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    if files > 0 {
        paths.truncate(files);
    }
    let read = |path| anyhow::Ok(read(&String::from_utf8_lossy(&fs::read(path)?)));
    let logs = paths.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    // A group has at least two people, and what one hears alone nobody can check.
    Ok(logs.into_iter().filter(|log| (2..=500).contains(&log.nicks.len())).collect())
}

/// Replays the folder: people of a file speak in its order, each line when the one before is acknowledged, at its
/// minute divided by the speed.
pub(crate) async fn run(work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<Ran> {
    let folder = super::folder(work)
        .with_context(|| format!("there is no folder {}: name one with --folder or MAGPIE_IRC_DIR", work.folder))?;
    let logs = logs(&folder, work.files)?;
    ensure!(!logs.is_empty(), "{} holds no logs of 2 to 500 people", folder.display());
    let mut topology = Topology::default();
    let mut first = Vec::new();
    for log in &logs {
        first.push(topology.users);
        topology = topology.with_groups(1, log.nicks.len());
    }
    progress.say(format!("{} people of {} files come in", topology.users, logs.len()));
    let ledger = topology.ledger();
    let users = server.system.gather(&topology, &ledger).await?;
    let (us, it) = (process::Generator, &server.processes);
    let before = (it.usage(), us.usage());
    ledger.begin();
    let mut readers = JoinSet::new();
    let began = Instant::now();
    for (room, log) in logs.into_iter().enumerate() {
        let members: Vec<_> = (0..log.nicks.len()).map(|place| users[first[room] + place].clone()).collect();
        let (ledger, speed, first) = (ledger.clone(), work.speed, first[room]);
        readers.spawn(async move {
            for (minute, place, bytes) in log.lines {
                let mut intended = Instant::now();
                if speed > 0.0 {
                    intended = began + Duration::from_secs_f64(f64::from(minute) * 60.0 / speed);
                    tokio::time::sleep_until(intended.into()).await;
                }
                let text = ledger.text(first + place, room, intended, bytes);
                members[place].send(room, text).await?;
                ledger.acked(intended);
            }
            anyhow::Ok(())
        });
    }
    let mut sampler = Sampler::new(it, before.0);
    let readers = Arc::new(tokio::sync::Mutex::new(readers));
    loop {
        let one = tokio::time::timeout(Duration::from_secs(1), async { readers.lock().await.join_next().await }).await;
        match one {
            Ok(Some(ended)) => ended??,
            Ok(None) => break,
            Err(_) => sampler.look(&ledger, progress),
        }
    }
    until(Duration::from_secs(120), || ledger.missing() == 0).await;
    let after = (it.usage(), us.usage());
    let stretch = Stretch { tally: ledger.end(), server: (before.0, after.0), generator: (before.1, after.1) };
    let mut figures = stretch.figures(false, ledger.accounts());
    figures.took_s = Some(after.0.seconds_since(&before.0));
    Ok(Ran { figures, samples: sampler.samples })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_forms_are_passed_over_and_midnight_is_crossed() {
        let log = read("[23:59] <ann> hello\n=== bob has joined\n[00:01] <bob> hi ann\nnonsense\n[00:01] <ann> ");
        assert_eq!(log.nicks, ["ann", "bob"]);
        assert_eq!(log.lines, [(0, 0, 5), (2, 1, 6)]);
    }
}
