//! Pairs of people who write to each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use magpie_client::{ConversationId, TimelineId};
use tokio::task::JoinSet;

use crate::{
    DirectArgs, Target,
    ledger::{Ledger, Outcome},
    people::{self, Person, until},
    server::Server,
};

/// Entries of a direct conversation before the first message.
const PREAMBLE: u64 = 3;
/// How long the last messages may take to arrive.
const SETTLE: Duration = Duration::from_secs(30);

/// Runs the workload.
pub(crate) async fn run(args: &DirectArgs) -> anyhow::Result<Outcome> {
    anyhow::ensure!(args.users >= 2 && args.users.is_multiple_of(2), "--users is {}; it must be even", args.users);
    anyhow::ensure!((1..=32).contains(&args.outstanding), "--outstanding is {}; it must be 1 to 32", args.outstanding);
    let ledger = Ledger::new()?;
    let people = people::sign_up(&args.target, args.users, &ledger).await?;
    befriend(&people).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    let lanes = args.users * args.outstanding;
    for (index, person) in people.iter().enumerate() {
        let conversation = ConversationId::direct(person.id, people[index ^ 1].id);
        for lane in 0..args.outstanding {
            let every = args.rate.map(|rate| Duration::from_secs_f64(lanes as f64 / rate));
            let offset = every
                .map_or(Duration::ZERO, |every| every.mul_f64((index * args.outstanding + lane) as f64 / lanes as f64));
            writers.spawn(write(Writer {
                person: person.clone(),
                index,
                conversation,
                ledger: ledger.clone(),
                bytes: args.target.bytes,
                stop: stop.clone(),
                every,
                next: Instant::now() + offset,
            }));
        }
    }
    measure(&args.target, &ledger, &stop, writers, "direct", 1).await
}

/// Counts for the given time, then lets everything arrive.
pub(crate) async fn measure(
    target: &Target,
    ledger: &Ledger,
    stop: &AtomicBool,
    mut writers: JoinSet<anyhow::Result<()>>,
    workload: &str,
    receivers: u64,
) -> anyhow::Result<Outcome> {
    let server = Server(target.pid);
    tokio::time::sleep(Target::span(target.warm_up)?).await;
    let (cpu, began) = (server.cpu_ms()?, Instant::now());
    ledger.count(true);
    tokio::time::sleep(Target::span(target.seconds)?).await;
    ledger.count(false);
    let (cpu, seconds) = (server.cpu_ms()? - cpu, began.elapsed().as_secs_f64());
    let rss = server.rss_kib();
    stop.store(true, Ordering::Relaxed);
    while let Some(written) = writers.join_next().await {
        written??;
    }
    until(SETTLE, || ledger.missing(receivers) == 0).await;
    Ok(ledger.result(workload, receivers, seconds, cpu, rss))
}

async fn befriend(people: &[Person]) -> anyhow::Result<()> {
    let mut pairs = JoinSet::new();
    for pair in people.chunks_exact(2) {
        let (a, b) = (pair[0].clone(), pair[1].clone());
        pairs.spawn(async move {
            a.client.request_contact(b.id, "load").await?;
            let mut tries = 0;
            while let Err(error) = b.client.accept_contact(a.id).await {
                tries += 1;
                anyhow::ensure!(tries < 1000, "a contact request did not arrive: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let timeline = TimelineId::Conversation(ConversationId::direct(a.id, b.id));
            let both = || a.client.cursor(timeline) >= PREAMBLE && b.client.cursor(timeline) >= PREAMBLE;
            anyhow::ensure!(until(SETTLE, both).await, "a conversation did not arrive");
            Ok(())
        });
    }
    while let Some(made) = pairs.join_next().await {
        made??;
    }
    Ok(())
}

pub(crate) struct Writer {
    pub(crate) person: Person,
    pub(crate) index: usize,
    pub(crate) conversation: ConversationId,
    pub(crate) ledger: Ledger,
    pub(crate) bytes: usize,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) every: Option<Duration>,
    pub(crate) next: Instant,
}

/// One message after the other: when the last is acknowledged, or at its time.
pub(crate) async fn write(mut writer: Writer) -> anyhow::Result<()> {
    while !writer.stop.load(Ordering::Relaxed) {
        let intended = match writer.every {
            Some(every) => {
                let at = writer.next;
                writer.next += every;
                tokio::time::sleep_until(at.into()).await;
                at
            }
            None => Instant::now(),
        };
        let text = writer.ledger.text(writer.index, intended, writer.bytes);
        writer.person.client.say(writer.conversation, text)?.posted().await?;
        writer.ledger.acked(intended);
    }
    Ok(())
}
