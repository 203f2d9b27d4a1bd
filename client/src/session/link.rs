//! One QUIC connection with its session stream, until it is signed in.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use magpie_protocol::{
    Answer, PROOF_LABEL, Request, VERSION_MAX, VERSION_MIN, WireError,
    frame::{Direction, FrameReader, hello},
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::time::timeout;

use super::online::silence::Traffic;
use crate::{Config, Network, network::RECEIVE_WINDOW};

/// Bytes taken from the stream in one go.
const CHUNK_LEN_MAX: usize = 64 * 1024;

/// Why a connection could not be used any further.
#[derive(Clone, Debug)]
pub(crate) enum LinkError {
    /// It is gone, or silent.
    Lost(String),
    /// The last request was refused.
    Refused(WireError),
    /// The node closes the session.
    Closing(hello::Closing),
}

impl LinkError {
    fn lost(reason: impl std::fmt::Display) -> Self {
        Self::Lost(reason.to_string())
    }
}

/// See the module. Dropping it closes the connection.
pub(crate) struct Link {
    connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) reader: FrameReader,
    /// The id that the next request gets.
    next_request: u32,
    /// How often the node was asked for a sign.
    signs: u32,
}

impl Link {
    /// Connects to the node whose turn it is and says hello.
    pub(crate) async fn open(
        network: &Network,
        config: &Config,
        server: SocketAddr,
    ) -> Result<(Self, hello::Welcome), LinkError> {
        let patience = config.connect_patience();
        let connecting = timeout(patience, network.connect(server)).await;
        let connection = connecting
            .map_err(|_| LinkError::Lost(format!("no answer from {server} in {patience:?}")))?
            .map_err(|e| LinkError::Lost(format!("{server}: {e}")))?;
        let (send, recv) = timeout(patience, connection.open_bi())
            .await
            .map_err(|_| LinkError::lost("the node opens no stream"))?
            .map_err(LinkError::lost)?;
        let mut link = Self { connection, send, recv, reader: FrameReader::default(), next_request: 1, signs: 0 };
        let hello = hello::Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, agent: config.agent.clone() };
        match link.ask(Request::Hello(hello), patience).await? {
            Answer::Welcome(welcome) => Ok((link, welcome)),
            _ => Err(LinkError::lost("the node answered hello with something else")),
        }
    }

    /// The id of the next request: never 0, which marks pushes.
    pub(crate) fn next_id(&mut self) -> u32 {
        let id = self.next_request;
        self.next_request = id.checked_add(1).unwrap_or(1);
        id
    }

    /// Sends one request and waits for its answer, when there is no other traffic yet.
    pub(crate) async fn ask(&mut self, request: Request, patience: Duration) -> Result<Answer, LinkError> {
        let id = self.next_id();
        let mut out = Vec::with_capacity(256);
        write_frame(&mut out, id, &request);
        let exchange = async {
            self.send.write_chunk(Bytes::from(out)).await.map_err(LinkError::lost)?;
            loop {
                while let Some(frame) = self.reader.next_frame::<Answer>().map_err(LinkError::lost)? {
                    match frame.body {
                        Answer::Closing(closing) => return Err(LinkError::Closing(closing)),
                        Answer::Refused(error) if frame.request.get() == id => return Err(LinkError::Refused(error)),
                        answer if frame.request.get() == id => return Ok(answer),
                        _ => {}
                    }
                }
                let Some(chunk) = read_chunk(&mut self.recv).await? else {
                    return Err(LinkError::lost("the node ended the stream"));
                };
                self.reader.push(chunk);
            }
        };
        timeout(patience, exchange).await.unwrap_or_else(|_| Err(LinkError::lost("no answer in time")))
    }

    /// The device's public key and its proof for this connection.
    pub(crate) fn prove(&self, key_seed: &[u8; 32]) -> Result<([u8; 32], [u8; 64]), LinkError> {
        let mut material = [0; 32];
        self.connection
            .export_keying_material(&mut material, PROOF_LABEL, b"")
            .map_err(|_| LinkError::lost("no keying material"))?;
        let key = Ed25519KeyPair::from_seed_unchecked(key_seed).map_err(LinkError::lost)?;
        let public = key.public_key().as_ref().try_into().map_err(LinkError::lost)?;
        let proof = key.sign(&material).as_ref().try_into().map_err(LinkError::lost)?;
        Ok((public, proof))
    }

    /// The connection, for further streams.
    pub(crate) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// The node at the other end.
    pub(crate) fn server(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// What it has carried so far.
    pub(crate) fn traffic(&self) -> Traffic {
        let stats = self.connection.stats();
        Traffic { received: stats.udp_rx.datagrams, sent: stats.udp_tx.datagrams, round_trip: stats.path.rtt }
    }

    /// Sends something that the node's QUIC must acknowledge, and that its session does not see: a receive window that
    /// is larger by a byte.
    pub(crate) fn ask_for_a_sign(&mut self) {
        self.signs = self.signs.saturating_add(1);
        self.connection.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW.saturating_add(self.signs)));
    }

    /// Ends the connection at once; what was not read yet is not read.
    pub(crate) fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }

    /// Why the connection ended, if it has.
    pub(crate) fn close_reason(&self) -> Option<String> {
        self.connection.close_reason().map(|reason| reason.to_string())
    }
}

/// The next bytes of the stream, `None` at its end. Safe to cancel.
pub(crate) async fn read_chunk(recv: &mut RecvStream) -> Result<Option<Bytes>, LinkError> {
    match recv.read_chunk(CHUNK_LEN_MAX, true).await {
        Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
        Err(e) => Err(LinkError::lost(e)),
    }
}

/// Appends a request's frame. As `Frame::to_bytes`, but from a borrowed body and into a buffer that gathers.
pub(crate) fn write_frame(out: &mut Vec<u8>, id: u32, request: &Request) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(VERSION_MAX);
    out.extend_from_slice(&request.tag().to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    request.encode_payload(out);
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// A frame as the protocol crate writes it, to hold [`write_frame`] to it.
#[cfg(test)]
fn reference(id: u32, request: Request) -> Bytes {
    magpie_protocol::Frame::new(magpie_protocol::RequestId::new(id), request).to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_frames_are_the_protocols() {
        let hello = Request::Hello(hello::Hello { version_min: 1, version_max: 1, agent: "test".into() });
        let mut out = Vec::new();
        write_frame(&mut out, 1, &hello);
        write_frame(&mut out, 70_000, &Request::Sync(magpie_protocol::frame::sync::Sync));
        let mut expected = reference(1, hello).to_vec();
        expected.extend(reference(70_000, Request::Sync(magpie_protocol::frame::sync::Sync)));
        assert_eq!(out, expected);
    }
}
