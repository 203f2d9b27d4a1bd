//! Files on their way, as inputs for the screen.

use std::path::{Path, PathBuf};

use magpie_client::{
    Client, ConversationId, Error, Kind, MessageId, Progress,
    message::{BlobRef, File, Picture},
};
use tokio::sync::mpsc;

use super::{super::show, message::Input};

/// A path as people write it: `~/` is the person's own folder.
fn path(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(text),
    }
}

/// What a file is, by the end of its name.
fn media_type(path: &Path) -> &'static str {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    match ending.as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "mp4" => "video/mp4",
        "ogg" | "opus" => "audio/ogg",
        "mp3" => "audio/mpeg",
        "pdf" => "application/pdf",
        "txt" | "md" => "text/plain",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

/// A picture where the ending says that it is one, else a file with its name.
fn kind(path: &Path, blob: BlobRef) -> Kind {
    if blob.media_type.starts_with("image/") {
        return Kind::Picture(Picture { blob, width: 0, height: 0, preview: Vec::new() });
    }
    Kind::File(File { blob, name: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default() })
}

/// Why it failed, without the file's name: what is told begins with that.
fn why(error: &Error, path: &Path) -> String {
    let why = show::error(error);
    why.strip_prefix(&format!("{}: ", path.display())).map(str::to_owned).unwrap_or(why)
}

fn progress(key: u64, progress: Progress) -> Input {
    Input::Progress { key, done: progress.done, total: progress.total }
}

/// Sends a file; `far` hears how far it is.
pub(super) async fn send(
    client: Client,
    key: u64,
    conversation: ConversationId,
    text: String,
    far: mpsc::Sender<Input>,
) -> Option<Input> {
    let path = path(&text);
    let sent = async {
        let named = path.clone();
        let mut sending = client.send_file(conversation, &path, media_type(&path), |blob| kind(&named, blob)).await?;
        let mut told = progress(key, sending.progress());
        // What is not heard is followed by what is newer.
        let _ = far.try_send(told);
        while sending.further().await {
            told = progress(key, sending.progress());
            let _ = far.try_send(told);
        }
        sending.posted().await
    };
    match sent.await {
        // The next start goes on with it.
        Err(Error::Closed) => None,
        Ok(_) => Some(Input::Transferred { key, result: Ok(String::new()) }),
        Err(error) => Some(Input::Transferred { key, result: Err(why(&error, &path)) }),
    }
}

/// Saves what a message names; never over something that is there.
pub(super) async fn save(
    client: Client,
    key: u64,
    message: MessageId,
    blob: BlobRef,
    text: String,
    far: mpsc::Sender<Input>,
) -> Option<Input> {
    let path = path(&text);
    if path.exists() {
        let why = format!("{} is there already", path.display());
        return Some(Input::Transferred { key, result: Err(why) });
    }
    let heard = |so_far| drop(far.try_send(progress(key, so_far)));
    let result = match client.download_with(message, &blob, &path, heard).await {
        Err(Error::Closed) => return None,
        Ok(()) => Ok(format!("saved {}", path.display())),
        Err(error) => Err(why(&error, &path)),
    };
    Some(Input::Transferred { key, result })
}
