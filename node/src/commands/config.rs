//! `magpie config`: what can be set, and what is.

use std::io::Write;

use clap::Subcommand;

use crate::{Config, cli::ServeArgs};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every setting with its documentation and default, as a file that runs as it is
    Reference,
    /// What a node started with these arguments and this environment would use
    Show(ServeArgs),
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let text = match &args.what {
        What::Reference => Config::reference(),
        What::Show(serve) => {
            let mut config = serve.load()?;
            if !config.admin.token.is_empty() {
                config.admin.token = "(set)".to_owned();
            }
            if !config.hooks.secret.is_empty() {
                config.hooks.secret = "(set)".to_owned();
            }
            toml::to_string(&config)?
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}
