//! Files to bring and fetch: made from a seed, named in messages, compared by hash. And a device that brings them in
//! its own way.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use std::{path::Path, time::Duration};

use bytes::Bytes;
use magpie_client::{
    BlobId, Content, ConversationId, Error, MessageId,
    message::{BlobRef, File, Kind, Message},
};
use magpie_protocol::{
    Frame, WireError,
    frame::{FrameReader, MediaAnswer, MediaRequest, media::Upload},
};
use rand::{RngCore, SeedableRng, rngs::StdRng};

use crate::Person;

/// How long a stream may take to say something.
const PATIENCE: Duration = Duration::from_secs(20);
/// The type of what the tests bring.
pub const TYPE: &str = "application/octet-stream";

/// So many bytes that nobody brought before, if the seed is new.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// The name of bytes.
pub fn blob(bytes: &[u8]) -> BlobId {
    BlobId::from_hash(*blake3::hash(bytes).as_bytes())
}

/// The name of what lies in a file.
pub fn blob_of(path: &Path) -> BlobId {
    blob(&std::fs::read(path).expect("a file"))
}

/// A message that names the blob.
pub fn file(named: &BlobRef) -> Content {
    Content::Say(Message::new(Kind::File(File { blob: named.clone(), name: "file".into() })))
}

/// Names the blob in a message.
///
/// # Errors
/// What the node says against it.
pub async fn share(from: &Person, to: ConversationId, named: &BlobRef) -> Result<MessageId, Error> {
    let posted = from.client.post(to, file(named))?.posted().await?;
    Ok(MessageId { conversation: to, number: posted.number })
}

/// What the node says against it.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> WireError {
    match result {
        Err(Error::Refused(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

/// A media stream of a device that says what it is told to.
pub struct RawMedia {
    pub send: quinn::SendStream,
    pub recv: quinn::RecvStream,
    reader: FrameReader,
}

impl RawMedia {
    /// Opens a stream and asks.
    pub async fn ask(connection: &quinn::Connection, request: MediaRequest) -> Self {
        let mut stream = Self::open(connection).await;
        stream.send.write_all(&Frame::push(request).to_bytes()).await.expect("the node reads");
        stream
    }

    /// Opens a stream and says nothing.
    pub async fn open(connection: &quinn::Connection) -> Self {
        let (send, recv) = connection.open_bi().await.expect("a stream");
        Self { send, recv, reader: FrameReader::default() }
    }

    /// The next answer; `None` when the stream ends without one.
    pub async fn answer(&mut self) -> Option<MediaAnswer> {
        tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(frame) = self.reader.next_frame().expect("a frame") {
                    return Some(frame.body);
                }
                match self.recv.read_chunk(4096, true).await {
                    Ok(Some(chunk)) => self.reader.push(chunk.bytes),
                    _ => return None,
                }
            }
        })
        .await
        .expect("an answer in time")
    }

    /// A refusal.
    pub async fn refused(&mut self) -> WireError {
        match self.answer().await {
            Some(MediaAnswer::Refused(error)) => error,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// All that follows, to the end of the stream; `None` when it is reset.
    pub async fn rest(&mut self) -> Option<Bytes> {
        let mut all = self.reader.take_rest().to_vec();
        all.extend(self.recv.read_to_end(1 << 30).await.ok()?);
        Some(all.into())
    }
}

/// What asks to bring these bytes.
pub fn upload(bytes: &[u8]) -> MediaRequest {
    let (blob, len) = (blob(bytes), bytes.len() as u64);
    MediaRequest::Upload(Upload { blob, len, media_type: TYPE.into(), from: None })
}
