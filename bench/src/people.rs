//! People for a load: signed up, in conversations, each device writing down what it sees.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use magpie_client::{
    Client, Config, Entry, Event, History, Network, NetworkConfig, StorePlace, TimelineId, UserId, entry::Body,
};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{Target, ledger::Ledger};

const PASSWORD: &str = "load for a node";
/// People who sign up at a time.
const SIGN_UPS: usize = 32;

/// One person with one device.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) client: Client,
    pub(crate) id: UserId,
}

/// Signs so many people up, under names that no run before used.
pub(crate) async fn sign_up(target: &Target, count: usize, ledger: &Ledger) -> anyhow::Result<Vec<Person>> {
    let ca = std::fs::read(&target.ca).with_context(|| format!("cannot read {}", target.ca.display()))?;
    let network = Network::new(NetworkConfig::new(ca))?;
    let run = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_millis();
    let gate = Arc::new(Semaphore::new(SIGN_UPS));
    let mut signing = JoinSet::new();
    for index in 0..count {
        let (network, gate, ledger, server) = (network.clone(), gate.clone(), ledger.clone(), target.server);
        signing.spawn(async move {
            let _place = gate.acquire().await;
            let mut config = Config::new(server);
            config.history = History::None;
            let (client, mut events) = Client::open(&network, config, StorePlace::Memory)?;
            let me = client.sign_up(&format!("load-{run}-{index}"), PASSWORD).await?;
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    if let Event::Entry {
                        timeline: TimelineId::Conversation(_),
                        entry: Entry { body: Body::Text(text), .. },
                    } = event
                    {
                        ledger.saw(index, &text);
                    }
                }
            });
            anyhow::Ok((index, Person { client, id: me.user }))
        });
    }
    let mut people = Vec::with_capacity(count);
    while let Some(signed) = signing.join_next().await {
        people.push(signed??);
    }
    people.sort_by_key(|(index, _)| *index);
    Ok(people.into_iter().map(|(_, person)| person).collect())
}

/// Waits until it holds, no longer than this.
pub(crate) async fn until(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + within;
    while !holds() {
        if tokio::time::Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}
