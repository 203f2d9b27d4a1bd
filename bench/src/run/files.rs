//! Files in pairs, now and then: each is brought, named in a message, fetched by the other one and compared.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use magpie_client::{
    Client, Content, ConversationId, MessageId,
    message::{File, Kind, Message},
};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use crate::system::Everybody;

/// Files under way at a time.
const AT_A_TIME: usize = 32;
const TYPE: &str = "application/octet-stream";

/// Sends files at this rate until it is told to stop, and ends when the last has arrived. Where the system is not
/// Magpie, nothing happens.
pub(super) async fn send(
    stop: Arc<AtomicBool>,
    users: Everybody,
    pairs: Vec<(usize, usize)>,
    rate: f64,
    bytes: usize,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut random = StdRng::seed_from_u64(3);
    let mut under_way = JoinSet::new();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) && !pairs.is_empty() {
        tokio::time::sleep(Duration::from_secs_f64(1.0 / rate)).await;
        // Both of a pair stand beside each other.
        let at = random.random_range(0..pairs.len());
        let ((from, room), (to, _)) = (pairs[at], pairs[at ^ 1]);
        let (Some((from, conversation)), Some((to, _))) = (users[from].device(room), users[to].device(room)) else {
            return Ok(());
        };
        let mut content = vec![0; bytes];
        random.fill_bytes(&mut content);
        turn += 1;
        under_way.spawn(one(from, to, conversation, content, folder.path().join(format!("{turn}"))));
        while under_way.len() >= AT_A_TIME {
            under_way.join_next().await.transpose()?.transpose()?;
        }
        while let Some(ended) = under_way.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended??;
    }
    Ok(())
}

async fn one(
    from: Client,
    to: Client,
    conversation: ConversationId,
    content: Vec<u8>,
    at: std::path::PathBuf,
) -> anyhow::Result<()> {
    let named = from.upload(content.clone(), TYPE).await.context("a file was not taken")?;
    let kind = Kind::File(File { blob: named.clone(), name: "file".into() });
    let posted = from.post(conversation, Content::Say(Message::new(kind)))?.posted().await?;
    let message = MessageId { conversation, number: posted.number };
    to.download(message, &named, &at).await.context("a file was not given")?;
    let same = tokio::task::spawn_blocking(move || {
        let arrived = std::fs::read(&at)?;
        std::fs::remove_file(&at)?;
        anyhow::Ok(arrived == content)
    });
    ensure!(same.await??, "a file arrived as another");
    Ok(())
}
