//! Asking for what only a newer build can do.

use std::{io::Write, path::PathBuf, time::Duration};

use magpie_cluster::{AskError, EntityId};
use magpie_node::{
    Command, Outcome,
    machine::{MagpieRouter, TestCommand},
};
use magpie_protocol::UserId;

/// Between two times.
const EVERY: Duration = Duration::from_millis(50);

/// Asks as long as the node runs, and writes down what came of it, a line a time: `not yet`, how often it was done
/// already, or `unknown`.
pub async fn ask(router: MagpieRouter, file: PathBuf) {
    let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(file) else { return };
    loop {
        let entity = EntityId::user(UserId::from_bits(1));
        let line = match router.ask(entity, Command::Test(TestCommand::Later)).await {
            Ok(Ok(Outcome::Posted { number, .. })) => number.to_string(),
            Ok(other) => format!("{other:?}"),
            Err(AskError::NotYet { .. }) => "not yet".to_owned(),
            Err(_) => "unknown".to_owned(),
        };
        if writeln!(file, "{line}").is_err() {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}
