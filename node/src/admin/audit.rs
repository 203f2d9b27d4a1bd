//! What operators did: one line of JSON each, appended to `audit.jsonl` in the data folder before it is done.

use std::{fs::OpenOptions, io::Write, net::SocketAddr, path::Path};

/// Writes down who asks for what.
pub(super) fn note(
    dir: &Path,
    from: Option<SocketAddr>,
    action: &str,
    what: &impl serde::Serialize,
) -> std::io::Result<()> {
    let time_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let from = from.map(|from| from.to_string());
    let line = serde_json::json!({ "time_ms": time_ms, "from": from, "action": action, "what": what });
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join("audit.jsonl"))?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}
