//! Sessions rather than messages: held, begun, and begun again all at once.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use magpie_client::Event;

use super::{Ran, chat::usage_of};
use crate::{
    figures::{Figures, Spread},
    ledger::Ledger,
    peers::{Server, System},
    progress::Progress,
    samples::Sampler,
    system::{
        Topology,
        magpie::{self, Magpie, PASSWORD, Person},
    },
    workload::{Proof, Workload},
};

/// How long everybody may take to come back.
const PATIENCE: Duration = Duration::from_secs(300);
/// The SDK waits so long at most before it connects for the first time after a connection broke.
const PAUSE_MAX_MS: f64 = 100.0;

/// Sessions that do nothing: what each takes of memory, and all of a core.
pub(crate) async fn idle(work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<Ran> {
    let empty = server.processes.usage();
    progress.say(format!("{} people come in", work.users));
    let topology = Topology { users: work.users, rooms: Vec::new() };
    let ledger = topology.ledger();
    let _everybody = server.system.gather(&topology, &ledger).await?;
    tokio::time::sleep(Duration::from_secs_f64(work.warm_up)).await;
    let before = server.processes.usage();
    let mut sampler = Sampler::new(&server.processes, before);
    let end = Instant::now() + Duration::from_secs_f64(work.seconds);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(1).min(end.saturating_duration_since(Instant::now()))).await;
        sampler.look(&ledger, progress);
    }
    let after = server.processes.usage();
    let grown = after.rss_kib.saturating_sub(empty.rss_kib) as f64;
    let figures = Figures {
        rss_mib: Some(after.rss_kib as f64 / 1024.0),
        rss_kb_per_session: Some(grown * 1.024 / work.users as f64),
        cores: Some((after.cpu_ms - before.cpu_ms) / 1000.0 / after.seconds_since(&before)),
        ..Figures::default()
    };
    Ok(Ran { figures, samples: sampler.samples })
}

/// People in so many groups each, of the workload's size.
async fn people(work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<(Magpie, Vec<Person>)> {
    let magpie = server.system.magpie()?.clone();
    progress.say(format!("{} people sign up", work.users));
    let people = magpie.sign_up(work.users, &Ledger::new(Vec::new())).await?;
    if work.conversations > 0 {
        progress.say(format!("groups, {} for each person", work.conversations));
        let members = work.members.min(work.users);
        let users = work.users;
        let groups = users * work.conversations / members;
        // The members of a group stand apart by a stride of their own, so that no two groups are the same.
        let room = |group: usize| (0..members).map(move |place| (group + place * (group / users + 1)) % users);
        let rooms: Vec<Vec<usize>> = (0..groups).map(|group| distinct(room(group), members, work.users)).collect();
        Magpie::furnish(&people, &rooms).await?;
    }
    Ok((magpie, people))
}

/// These, and as many others as are missing because some came twice.
fn distinct(some: impl Iterator<Item = usize>, count: usize, of: usize) -> Vec<usize> {
    let mut chosen: std::collections::BTreeSet<usize> = some.collect();
    let mut next = 0;
    while chosen.len() < count && next < of {
        chosen.insert(next);
        next += 1;
    }
    chosen.into_iter().collect()
}

fn for_sessions(count: usize, used: (crate::process::Usage, crate::process::Usage), waits: Vec<f64>) -> Figures {
    let seconds = used.1.seconds_since(&used.0);
    let cpu_ms = used.1.cpu_ms - used.0.cpu_ms;
    let mut sorted = waits;
    sorted.sort_by(f64::total_cmp);
    let at = |q: f64| sorted.get(((sorted.len().max(1) - 1) as f64 * q) as usize).copied().unwrap_or_default();
    Figures {
        cpu_ms_per_message: cpu_ms / count as f64,
        per_s: count as f64 / seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        rss_mib: Some(used.1.rss_kib as f64 / 1024.0),
        cores: Some(cpu_ms / 1000.0 / seconds),
        took_s: Some(seconds),
        ..Figures::default()
    }
}

/// Everybody signs in, so many at a time; what it cost. What they then have is kept until all are in.
async fn each_signs_in<T: Send + 'static, F>(
    work: &Workload,
    server: &Server,
    progress: &Progress,
    mut sign_in: impl FnMut(usize) -> F,
) -> anyhow::Result<Ran>
where
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    progress.say("they sign in");
    let waits = Arc::new(Mutex::new(Vec::with_capacity(work.users)));
    let all = magpie::all(work.users, work.outstanding, |index| {
        let (one, waits) = (sign_in(index), waits.clone());
        async move {
            let began = Instant::now();
            let kept = one.await?;
            waits.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed().as_secs_f64() * 1000.0);
            Ok(kept)
        }
    });
    let (kept, before, after) = usage_of(&server.processes, all).await?;
    drop(kept);
    let waits = std::mem::take(&mut *waits.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Ran { figures: for_sessions(work.users, (before, after), waits), samples: Vec::new() })
}

/// People sign in: by password on new devices, or by token on theirs; at a peer, each as it is there.
pub(crate) async fn sign_in(work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<Ran> {
    if !matches!(server.system, System::Magpie(_)) {
        return sign_in_to_peer(work, server, progress).await;
    }
    let (magpie, people) = people(work, server, progress).await?;
    // What their coming left behind settles.
    tokio::time::sleep(Duration::from_secs_f64(work.warm_up)).await;
    let mut ran = each_signs_in(work, server, progress, |index| {
        let (magpie, person, proof) = (magpie.clone(), people[index].clone(), work.proof);
        async move {
            match proof {
                Proof::Password => {
                    let (client, mut events) = magpie.device(index)?;
                    client.sign_in(&person.handle, PASSWORD).await?;
                    while !matches!(events.next().await, Some(Event::Synced) | None) {}
                    Ok(Some((client, events)))
                }
                Proof::Token => {
                    person.reconnect(PATIENCE).await?;
                    Ok(None)
                }
            }
        }
    })
    .await?;
    ran.figures.pause_max_ms = matches!(work.proof, Proof::Token).then_some(PAUSE_MAX_MS);
    Ok(ran)
}

/// As Magpie's people with their tokens: the connection of each breaks, and it comes back as somebody who is known.
async fn sign_in_to_peer(work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<Ran> {
    progress.say(format!("{} people come in", work.users));
    let topology = Topology { users: work.users, rooms: Vec::new() };
    let ledger = topology.ledger();
    let mut there = server.system.gather(&topology, &ledger).await?.into_iter();
    tokio::time::sleep(Duration::from_secs_f64(work.warm_up)).await;
    each_signs_in(work, server, progress, |index| {
        let (person, system, ledger) = (there.next(), server.system.clone(), ledger.clone());
        async move {
            drop(person);
            let back = tokio::time::timeout(PATIENCE, system.sign_in(index, ledger)).await;
            back.with_context(|| format!("person {index} did not come back within {PATIENCE:?}"))?
        }
    })
    .await
}

/// Every connection breaks at once; how long until all are back and have everything.
pub(crate) async fn storm(work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<Ran> {
    let (_magpie, people) = people(work, server, progress).await?;
    tokio::time::sleep(Duration::from_secs_f64(work.warm_up)).await;
    progress.say("everybody reconnects");
    let back = async {
        let began = Instant::now();
        let begun: Vec<u64> = people.iter().map(|person| person.synced.load(Ordering::Relaxed)).collect();
        people.iter().for_each(|person| person.client.drop_connection());
        let mut waits = Vec::with_capacity(people.len());
        let mut away: Vec<(&Person, u64)> = people.iter().zip(begun).collect();
        while !away.is_empty() {
            ensure!(began.elapsed() < PATIENCE, "{} of {} are not back", away.len(), people.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = began.elapsed().as_secs_f64() * 1000.0;
            away.retain(|(person, before)| {
                let back = person.synced.load(Ordering::Relaxed) > *before;
                if back {
                    waits.push(now);
                }
                !back
            });
        }
        Ok(waits)
    };
    let (waits, before, after) = usage_of(&server.processes, back).await?;
    let spread = Spread::of(waits.clone()).unwrap_or_default();
    let mut figures = for_sessions(people.len(), (before, after), waits);
    figures.took_s = Some(spread.max / 1000.0);
    figures.pause_max_ms = Some(PAUSE_MAX_MS);
    Ok(Ran { figures, samples: Vec::new() })
}
