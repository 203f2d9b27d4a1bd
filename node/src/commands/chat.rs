//! chat
/// a
#[derive(Debug, clap::Args)]
pub struct Args {}
/// r
pub fn run(_: Args) -> anyhow::Result<i32> { Ok(0) }
