//! One media stream: a frame each way, and bytes.

use std::time::Duration;

use bytes::Bytes;
use magpie_protocol::{
    Frame,
    frame::{FrameReader, MediaAnswer, MediaRequest},
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use super::{CHUNK_LEN, Failure};

/// Media give way to all else.
const PRIORITY: i32 = -1;
/// A stream over which nothing goes for this long is given up. Its bytes may wait behind all else on a slow path.
const STALL: Duration = Duration::from_secs(30);

/// The connection of the session, for media.
#[derive(Clone)]
pub(super) struct MediaLink {
    connection: Connection,
    patience: Duration,
}

/// See the module. Dropping it ends the stream on both sides.
pub(super) struct MediaStream {
    send: SendStream,
    recv: RecvStream,
    reader: FrameReader,
    /// What came behind the answer.
    rest: Bytes,
}

impl MediaLink {
    pub(super) fn new(connection: Connection, patience: Duration) -> Self {
        Self { connection, patience }
    }

    /// Opens a stream and asks for something. Where the node allows no more streams at a time, waits for one to end.
    pub(super) async fn ask(&self, request: MediaRequest) -> Result<MediaStream, Failure> {
        let (mut send, recv) = self.connection.open_bi().await.map_err(Failure::lost)?;
        send.set_priority(PRIORITY).map_err(Failure::lost)?;
        send.write_chunk(Frame::push(request).to_bytes()).await.map_err(Failure::lost)?;
        Ok(MediaStream { send, recv, reader: FrameReader::default(), rest: Bytes::new() })
    }

    /// How long an answer may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }
}

impl MediaStream {
    /// The node's next answer. A refusal is a failure.
    pub(super) async fn answer(&mut self, patience: Duration) -> Result<MediaAnswer, Failure> {
        match timeout(patience, self.next_answer()).await {
            Ok(Ok(MediaAnswer::Refused(error))) => Err(Failure::Refused(error)),
            Ok(answer) => answer,
            Err(_) => Err(Failure::Lost("the node does not answer".into())),
        }
    }

    async fn next_answer(&mut self) -> Result<MediaAnswer, Failure> {
        loop {
            if let Some(frame) = self.reader.next_frame().map_err(Failure::lost)? {
                self.rest = self.reader.take_rest();
                return Ok(frame.body);
            }
            match self.recv.read_chunk(CHUNK_LEN, true).await.map_err(Failure::lost)? {
                Some(chunk) => self.reader.push(chunk.bytes),
                None => return Err(Failure::Lost("the node ended the stream".into())),
            }
        }
    }

    /// Sends bytes. When the node takes no more, its answer says why.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let written = timeout(STALL, self.send.write_chunk(bytes)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(quinn::WriteError::Stopped(_))) => match self.answer(STALL).await {
                Ok(_) => Err(Failure::Lost("the node takes no more".into())),
                Err(why) => Err(why),
            },
            Ok(Err(error)) => Err(Failure::lost(error)),
            Err(_) => Err(Failure::Lost("the node takes nothing".into())),
        }
    }

    /// Says that nothing follows.
    pub(super) fn finish(&mut self) {
        _ = self.send.finish();
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        match timeout(STALL, self.recv.read_chunk(CHUNK_LEN, true)).await {
            Ok(chunk) => Ok(chunk.map_err(Failure::lost)?.map(|chunk| chunk.bytes)),
            Err(_) => Err(Failure::Lost("nothing comes from the node".into())),
        }
    }
}

impl Drop for MediaStream {
    fn drop(&mut self) {
        // A stream that was finished is not changed by this; one that was not must not look as if it was.
        _ = self.send.reset(VarInt::from_u32(1));
        _ = self.recv.stop(VarInt::from_u32(1));
    }
}
