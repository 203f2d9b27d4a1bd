//! What the whole-system suites share: nodes to test, people to talk, and patience.

pub mod cluster;
pub mod company;
pub mod crowd;
pub mod faulty;
pub mod honest;
pub mod http;
pub mod identity;
pub mod lan;
pub mod later;
pub mod ledger;
pub mod media;
pub mod node;
pub mod people;
pub mod picture;
pub mod raw;
pub mod receiver;
pub mod relay;
pub mod s3;
pub mod scene;
pub mod search;
pub mod simulation;
pub mod small_disk;
pub mod story;
pub mod tmux;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

pub use company::Company;
pub use node::{InProcess, Process};
pub use people::{Person, Place};

/// Polls until it holds; panics with `what` when it does not within this long.
pub async fn until(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every file below a folder, also in the folders within it.
pub fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

/// A number from the environment, for the long forms of tests.
pub fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// The seed of a test that draws lots: printed, so that MAGPIE_SEED replays it.
pub fn seed(test: &str) -> u64 {
    let seed = from_env("MAGPIE_SEED", rand::random::<u32>().into());
    #[expect(clippy::print_stdout, reason = "the harness shows it when the test fails")]
    {
        println!("{test}: MAGPIE_SEED={seed}");
    }
    seed
}

/// Stops a node while this runtime's devices still run: they must hear of it and say goodbye.
pub async fn stop(node: InProcess) {
    if let Err(error) = tokio::task::spawn_blocking(move || node.stop()).await {
        std::panic::resume_unwind(error.into_panic());
    }
}
