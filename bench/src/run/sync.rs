//! Devices that come back after they missed much.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use magpie_client::{Event, TimelineId, entry::Body};

use super::{Ran, chat::usage_of};
use crate::{
    figures::Figures,
    ledger::{Accounts, Ledger},
    peers::Server,
    progress::Progress,
    system::magpie::{self, Magpie, PASSWORD},
    workload::Workload,
};

/// One group in which much was said; then new devices of its members pull all of it. Counts messages that arrive.
pub(crate) async fn run(work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<Ran> {
    let magpie = server.system.magpie()?.clone();
    progress.say("a group is made");
    let members = work.members.min(work.users).max(2);
    let people = magpie.sign_up(members, &Ledger::new(Vec::new())).await?;
    let groups: Vec<Vec<usize>> = vec![(0..members).collect()];
    let conversation = Magpie::furnish(&people, &groups).await?[0];
    for person in &people[1..] {
        person.client.close().await;
    }
    progress.say(format!("{} messages are said", work.missed));
    let bytes = work.payload.first().map_or(100, |payload| payload.bytes);
    let speaker = people[0].client.clone();
    for chunk in (1..=work.missed).collect::<Vec<_>>().chunks(1000) {
        let said = chunk.iter().map(|n| speaker.say(conversation, format!("{n} {}", "m".repeat(bytes))));
        for sending in said.collect::<Result<Vec<_>, _>>()? {
            sending.posted().await?;
        }
    }
    tokio::time::sleep(Duration::from_secs_f64(work.warm_up)).await;
    progress.say(format!("{} devices come back", work.users));
    let (had, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let missed = work.missed as u64;
    let back = magpie::all(work.users, work.users, |index| {
        let (magpie, handle) = (magpie.clone(), people[1 + index % (members - 1)].handle.clone());
        let (had, wrong) = (had.clone(), wrong.clone());
        async move {
            let (client, mut events) = magpie.device(index)?;
            client.sign_in(&handle, PASSWORD).await?;
            let began = Instant::now();
            let mut last = 0;
            while last < missed {
                ensure!(began.elapsed() < Duration::from_secs(300), "a device has {last} of {missed} after 5 minutes");
                let Some(event) = events.next().await else { anyhow::bail!("a client ended") };
                let Event::Entry { timeline: TimelineId::Conversation(_), entry } = event else { continue };
                let Body::Text(text) = entry.body else { continue };
                let number: u64 = text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default();
                wrong.fetch_add(u64::from(number != last + 1), Ordering::Relaxed);
                last = number;
                had.fetch_add(1, Ordering::Relaxed);
            }
            Ok(client)
        }
    });
    let (kept, before, after) = usage_of(&server.processes, back).await?;
    drop(kept);
    let (had, seconds) = (had.load(Ordering::Relaxed), after.seconds_since(&before));
    let figures = Figures {
        cpu_ms_per_message: (after.cpu_ms - before.cpu_ms) / had.max(1) as f64,
        per_s: had as f64 / seconds,
        deliveries: Some(had),
        messages: Some(missed),
        accounts: Accounts {
            lost: (missed * work.users as u64).saturating_sub(had),
            duplicated: 0,
            reordered: wrong.load(Ordering::Relaxed),
        },
        cores: Some((after.cpu_ms - before.cpu_ms) / 1000.0 / seconds),
        rss_mib: Some(after.rss_kib as f64 / 1024.0),
        took_s: Some(seconds),
        ..Figures::default()
    };
    Ok(Ran { figures, samples: Vec::new() })
}
