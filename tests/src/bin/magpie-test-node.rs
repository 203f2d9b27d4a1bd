//! The node as the suites start it: `magpie`, and a disk that can be told to fail.
//!
//! `MAGPIE_TEST_FAIL_SYNC_AFTER` and `MAGPIE_TEST_FAIL_APPEND_AFTER` arm the disk.

use clap::Parser;
use magpie_node::cli::Cli;

fn main() -> anyhow::Result<()> {
    let left = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(-1);
    let (syncs, appends) = (left("MAGPIE_TEST_FAIL_SYNC_AFTER"), left("MAGPIE_TEST_FAIL_APPEND_AFTER"));
    let disk = std::sync::Arc::new(magpie_tests::faulty::FaultyDisk::new(syncs, appends));
    std::process::exit(Cli::parse().run_on(disk)?)
}
