//! A connection that this node dialled: requests and messages out, answers back.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use foldhash::fast::FixedState;
use magpie_protocol::NodeId;
use tokio::{sync::oneshot, task::JoinSet, time::Instant};

use super::{
    frames::{self, FrameError},
    outlet::{NotTaken, Outlet, waiting_len_max},
    stream::{Ended, FrameSource, gone, set_priority, write},
};
use crate::transport::{
    Lane, LinkError,
    tls::{name_of, node_of},
};

/// Calls of one lane that may wait for their answers. A node that has this many open is not helped by more of them.
pub(super) const CALLS_MAX: usize = 65_536;

struct Waiting {
    calls: HashMap<u64, oneshot::Sender<Bytes>, FixedState>,
    last_id: u64,
    ended: bool,
}

/// One lane of a link.
struct LaneEnd {
    outlet: Arc<Outlet>,
    waiting: Mutex<Waiting>,
}

/// The connection, once the peer has greeted on every lane.
pub(super) struct Link {
    to: NodeId,
    connection: quinn::Connection,
    lanes: [LaneEnd; 3],
}

/// What the tasks of a link work on.
pub(super) struct Streams([(quinn::SendStream, FrameSource); 3]);

/// A call that waits; forgotten when its caller no longer does.
pub(super) struct Call {
    link: Arc<Link>,
    lane: Lane,
    id: u64,
    answer: oneshot::Receiver<Bytes>,
}

impl LaneEnd {
    fn new() -> Self {
        let waiting = Waiting { calls: HashMap::default(), last_id: 0, ended: false };
        Self { outlet: Arc::default(), waiting: Mutex::new(waiting) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node at the other end of a connection, by the certificate that TLS has accepted.
pub(super) fn node_at(connection: &quinn::Connection) -> Result<NodeId, Ended> {
    let chain = connection.peer_identity();
    let chain = chain.and_then(|chain| chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| Ended::Refused("it shows no certificate".to_owned()))?;
    node_of(leaf).map_err(|why| Ended::Refused(format!("its certificate is not a node's: {why}")))
}

/// Ends a connection, and tells the peer why.
pub(super) fn close(connection: &quinn::Connection, why: &str) {
    connection.close(quinn::VarInt::from_u32(0), why.as_bytes());
}

impl Link {
    /// Connects to this node and no other. It stands when the peer has greeted on every lane, which is also when it
    /// has accepted our certificate.
    pub(super) async fn dial(
        endpoint: &quinn::Endpoint,
        config: quinn::ClientConfig,
        to: NodeId,
        address: SocketAddr,
    ) -> Result<(Arc<Self>, Streams), Ended> {
        let connecting = endpoint.connect_with(config, address, &name_of(to)).map_err(gone)?;
        let connection = connecting.await.map_err(gone)?;
        // TLS has found the name among those of the certificate; it must be the only one.
        let there = node_at(&connection)?;
        if there != to {
            close(&connection, "you are somebody else");
            return Err(Ended::Refused(format!("it is {there}")));
        }
        let greet = async |lane| {
            let (mut send, receive) = connection.open_bi().await.map_err(gone)?;
            set_priority(&send, lane)?;
            let mut hello = frames::Gathered::default();
            hello.push(0, frames::hello(lane));
            send.write_all_chunks(&mut hello.take()).await.map_err(gone)?;
            Ok::<_, Ended>((send, FrameSource::new(receive)))
        };
        let mut streams = [greet(Lane::Consensus).await?, greet(Lane::Requests).await?, greet(Lane::Bulk).await?];
        for (lane, (_, source)) in Lane::ALL.into_iter().zip(&mut streams) {
            let (id, payload) = source.next().await?;
            if frames::lane_of_hello(id, &payload)? != lane {
                return Err(FrameError::Unexpected("a hello for another lane").into());
            }
        }
        let lanes = [LaneEnd::new(), LaneEnd::new(), LaneEnd::new()];
        Ok((Arc::new(Self { to, connection, lanes }), Streams(streams)))
    }

    /// Writes what is queued and hands out answers, until the connection ends; why it did. Ends the link.
    pub(super) async fn run(self: Arc<Self>, streams: Streams) -> Ended {
        // Whoever is waiting learns of the end also when this is dropped.
        let _ending = Ending(self.clone());
        let mut tasks = JoinSet::new();
        for (lane, (send, source)) in Lane::ALL.into_iter().zip(streams.0) {
            tasks.spawn(write(self.lanes[lane as usize].outlet.clone(), send));
            tasks.spawn(self.clone().read(lane, source));
        }
        let ended = first_end(&mut tasks).await;
        close(&self.connection, &ended.to_string());
        tasks.shutdown().await;
        ended
    }

    async fn read(self: Arc<Self>, lane: Lane, mut source: FrameSource) -> Result<(), Ended> {
        loop {
            let (id, answer) = source.next().await?;
            if id == 0 {
                return Err(FrameError::Unexpected("a message where answers belong").into());
            }
            let call = self.lanes[lane as usize].lock().calls.remove(&id);
            // Without a call it came too late.
            if let Some(call) = call {
                _ = call.send(answer);
            }
        }
    }

    /// Queues a request. An answer will end the call, or the end of the link.
    pub(super) fn call(self: &Arc<Self>, lane: Lane, request: Bytes) -> Result<Call, LinkError> {
        let end = &self.lanes[lane as usize];
        let mut waiting = end.lock();
        if waiting.calls.len() >= CALLS_MAX {
            return Err(self.refused(format!("{CALLS_MAX} calls wait for answers already")));
        }
        if waiting.ended {
            return Err(self.refused("the connection has ended".to_owned()));
        }
        let id = waiting.last_id + 1;
        self.queue(lane, id, request)?;
        waiting.last_id = id;
        let (sender, answer) = oneshot::channel();
        waiting.calls.insert(id, sender);
        drop(waiting);
        Ok(Call { link: self.clone(), lane, id, answer })
    }

    /// Queues a message.
    pub(super) fn tell(&self, lane: Lane, message: Bytes) -> Result<(), LinkError> {
        self.queue(lane, 0, message)
    }

    fn queue(&self, lane: Lane, id: u64, payload: Bytes) -> Result<(), LinkError> {
        let len_max = waiting_len_max(lane);
        self.lanes[lane as usize].outlet.push(id, payload, len_max).map_err(|why| match why {
            NotTaken::Full => self.refused(format!("{len_max} bytes wait on its {lane:?} lane already")),
            NotTaken::Closed => self.refused("the connection has ended".to_owned()),
        })
    }

    /// How many calls wait for answers.
    #[cfg(test)]
    pub(super) fn waiting(&self, lane: Lane) -> usize {
        self.lanes[lane as usize].lock().calls.len()
    }

    fn refused(&self, why: String) -> LinkError {
        LinkError::Refused { to: self.to, why }
    }
}

/// Ends a link when it goes out of scope.
struct Ending(Arc<Link>);

impl Drop for Ending {
    fn drop(&mut self) {
        close(&self.0.connection, "no longer needed");
        for lane in &self.0.lanes {
            lane.outlet.close();
            let mut waiting = lane.lock();
            waiting.ended = true;
            // Their callers see that no answer can come.
            waiting.calls.clear();
        }
    }
}

impl Call {
    /// The answer, if it comes before this.
    pub(super) async fn answer(mut self, deadline: Instant, within: Duration) -> Result<Bytes, LinkError> {
        let why = match tokio::time::timeout_at(deadline, &mut self.answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(_)) => "the connection ended".to_owned(),
            Err(_) => format!("none within {} ms", within.as_millis()),
        };
        Err(LinkError::Lost { to: self.link.to, why })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.link.lanes[self.lane as usize].lock().calls.remove(&self.id);
    }
}

/// How the first of these tasks ends.
pub(super) async fn first_end(tasks: &mut JoinSet<Result<(), Ended>>) -> Ended {
    match tasks.join_next().await {
        Some(Ok(Err(ended))) => ended,
        Some(Err(error)) => Ended::Gone(format!("its task failed: {error}")),
        Some(Ok(Ok(()))) | None => Ended::Gone("its task is over".to_owned()),
    }
}
