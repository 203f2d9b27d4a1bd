//! Groups in which one member speaks and all hear.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use magpie_client::TimelineId;
use tokio::task::JoinSet;

use crate::{
    GroupArgs,
    direct::{Writer, measure, write},
    ledger::{Ledger, Outcome},
    people::{self, until},
};

/// Runs the workload.
pub(crate) async fn run(args: &GroupArgs) -> anyhow::Result<Outcome> {
    anyhow::ensure!((2..=500).contains(&args.members), "--members is {}; it must be 2 to 500", args.members);
    anyhow::ensure!((1..=32).contains(&args.outstanding), "--outstanding is {}; it must be 1 to 32", args.outstanding);
    let ledger = Ledger::new()?;
    let people = people::sign_up(&args.target, args.groups * args.members, &ledger).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for (group, members) in people.chunks_exact(args.members).enumerate() {
        let others = members[1..].iter().map(|person| person.id).collect();
        let conversation = members[0].client.create_group(&format!("group {group}"), others).await?;
        let ready = args.members as u64 + 1;
        let timeline = TimelineId::Conversation(conversation);
        let all = || members.iter().all(|person| person.client.cursor(timeline) >= ready);
        anyhow::ensure!(until(Duration::from_secs(60), all).await, "a group did not reach all its members");
        for _ in 0..args.outstanding {
            writers.spawn(write(Writer {
                person: members[0].clone(),
                index: group * args.members,
                conversation,
                ledger: ledger.clone(),
                bytes: args.target.bytes,
                stop: stop.clone(),
                every: None,
                next: Instant::now(),
            }));
        }
    }
    measure(&args.target, &ledger, &stop, writers, "group", args.members as u64).await
}
