//! `magpie chat`: on the whole terminal ([`screen`]), or lines in, lines out ([`run`](self::run::run)): then standard output
//! is the conversation, standard error how things stand.

mod jobs;
mod local_time;
mod parse;
mod people;
mod place;
mod run;
mod screen;
mod show;
mod sign_in;
mod talk;
mod terminal;

use std::{io::IsTerminal, path::PathBuf};

/// What `--help` says besides the arguments.
const MORE_HELP: &str = "\
The password is MAGPIE_PASSWORD, or asked for on the terminal, or with --password-stdin the first line of an input that
is none. It is needed until this device is signed in, and not again; what a device keeps is named by the first --server.
An account is made if the name is free; where the server asks new people for an invitation, MAGPIE_INVITATION is its
code, or it is asked for on the screen.
In the conversation, /help lists the commands.";

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE_HELP)]
pub struct Args {
    /// Node to talk through; of a cluster several, with commas between: when one is gone, the next is tried
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4433")]
    server: String,
    /// Your name there; asked for when it is not given
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Certificate of the node's authority (PEM); `magpie serve` prints where its own is
    #[arg(long, value_name = "FILE", default_value = "./magpie-data/dev-ca.pem")]
    ca: PathBuf,
    /// Folder for what this device keeps [default: $XDG_STATE_HOME/magpie or ~/.local/state/magpie]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Lines in, lines out, instead of the whole screen; also without a terminal, or with TERM=dumb
    #[arg(long)]
    plain: bool,
    /// The first line of the input is the password, whether it is needed or not: for scripts
    #[arg(long)]
    password_stdin: bool,
}

/// Runs the command. Exit code 0 at the end of the input, 130 after Ctrl-C.
pub fn run(args: Args) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.plain || !has_screen() {
        return runtime.block_on(run::run(&args));
    }
    runtime.block_on(screen::run(&args))
}

/// Whether there is a terminal that can be drawn on.
fn has_screen() -> bool {
    let able = std::env::var("TERM").is_ok_and(|term| !term.is_empty() && term != "dumb");
    able && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
