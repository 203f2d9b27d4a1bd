//! The node as the suites start it: `magpie`, a disk that can be told to fail, and a build that can be a newer one.
//!
//! `MAGPIE_TEST_FAIL_SYNC_AFTER` and `MAGPIE_TEST_FAIL_APPEND_AFTER` arm the disk. `MAGPIE_TEST_LEVEL` is what the build
//! says that it can do. Into `MAGPIE_TEST_LATER`, a file, goes what comes of asking, again and again, for what only the
//! build after this one can do.

use clap::Parser;
use magpie_node::{
    cli::{Cli, Hooks},
    machine::MagpieRouter,
};

fn main() -> anyhow::Result<()> {
    let left = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(-1);
    let (syncs, appends) = (left("MAGPIE_TEST_FAIL_SYNC_AFTER"), left("MAGPIE_TEST_FAIL_APPEND_AFTER"));
    let disk = std::sync::Arc::new(magpie_tests::faulty::FaultyDisk::new(syncs, appends));
    let mut hooks = Hooks { disk, ..Hooks::default() };
    hooks.level = u32::try_from(left("MAGPIE_TEST_LEVEL")).unwrap_or(hooks.level);
    if let Some(file) = std::env::var_os("MAGPIE_TEST_LATER") {
        let ask =
            move |router: &MagpieRouter| drop(tokio::spawn(magpie_tests::later::ask(router.clone(), file.into())));
        hooks.started = Box::new(ask);
    }
    std::process::exit(Cli::parse().run_with(hooks)?)
}
