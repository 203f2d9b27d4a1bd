//! A device that asks again what was answered already, and others of the same person that read through every node.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use std::{cell::Cell, collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use magpie_client::{ConversationId, Entry, Incarnation, TimelineId, WireError, entry::Body};
use magpie_protocol::{
    ALPN, Answer, ErrorCode, Frame, Request, RequestId,
    error::Retry,
    frame::{
        FrameReader,
        account::{Resume, SignIn, SignUp},
        conversation::{Content, CreateGroup, Post},
        hello::Hello,
        sync::{Page, Pull},
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    nature::Nature,
    network::Socket,
    nodes::{FOUNDERS, endpoint_seed},
    people::{HOST, Phase, Stage},
    run::Setup,
};
use crate::{
    crowd::Crowd,
    people::PASSWORD,
    raw::{Key, Net},
};

const HANDLE: &str = "repeater";
const INCARNATION: Incarnation = Incarnation::from_bits(7 << 32);
/// An answer that takes longer will not come.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Numbers this far back are still known.
const KEPT: usize = 32;

/// A session that may break at any moment.
struct Line {
    connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    reader: FrameReader,
    last: u32,
}

impl Line {
    async fn open(net: &Net) -> anyhow::Result<Self> {
        let connection = tokio::time::timeout(ANSWER_WITHIN, net.connect()).await??;
        let (send, recv) = connection.open_bi().await?;
        let mut line = Self { connection, send, recv, reader: FrameReader::default(), last: 0 };
        let hello = Hello { version_min: 1, version_max: 1, agent: HANDLE.into() };
        match line.ask(Request::Hello(hello)).await? {
            Answer::Welcome(_) => Ok(line),
            other => bail!("hello was answered with {other:?}"),
        }
    }

    /// Asks; what else comes meanwhile is dropped.
    async fn ask(&mut self, request: Request) -> anyhow::Result<Answer> {
        tokio::time::timeout(ANSWER_WITHIN, self.ask_patiently(request)).await?
    }

    async fn ask_patiently(&mut self, request: Request) -> anyhow::Result<Answer> {
        self.last += 1;
        self.send.write_all(&Frame::new(RequestId::new(self.last), request).to_bytes()).await?;
        loop {
            while let Some(frame) = self.reader.next_frame::<Answer>()? {
                if frame.request.get() == self.last {
                    return Ok(frame.body);
                }
            }
            let chunk = self.recv.read_chunk(64 * 1024, true).await?.context("the session has ended")?;
            self.reader.push(chunk.bytes);
        }
    }
}

/// A device of the repeater's: it connects again, here or there, as often as it must.
struct Device {
    nets: Vec<Net>,
    turn: usize,
    key: Key,
    token: Vec<u8>,
    line: Option<Line>,
}

impl Device {
    fn new(nets: Vec<Net>, key: u8) -> Self {
        Self { nets, turn: 0, key: Key::new(key), token: Vec::new(), line: None }
    }

    async fn line(&mut self, new: bool) -> anyhow::Result<&mut Line> {
        if self.line.is_none() {
            let mut line = Line::open(&self.nets[self.turn % self.nets.len()]).await?;
            let (proof, device) = (self.key.prove(&line.connection), self.key.device(&line.connection));
            let request = if !self.token.is_empty() {
                Request::Resume(Resume { token: self.token.clone(), proof })
            } else if new {
                Request::SignUp(SignUp { handle: HANDLE.into(), password: PASSWORD.into(), device })
            } else {
                Request::SignIn(SignIn { handle: HANDLE.into(), password: PASSWORD.into(), device })
            };
            match line.ask(request).await? {
                Answer::SignedIn(me) => self.token = me.token,
                other => bail!("a sign-in was answered with {other:?}"),
            }
            self.line = Some(line);
        }
        self.line.as_mut().context("no line")
    }

    /// One try; after a failure the next one goes elsewhere.
    async fn try_ask(&mut self, request: Request) -> anyhow::Result<Answer> {
        let asked = match self.line(false).await {
            Ok(line) => line.ask(request).await,
            Err(error) => Err(error),
        };
        if asked.is_err() {
            self.line = None;
            self.turn += 1;
        }
        asked
    }

    /// Asks until the answer is final.
    async fn insist(&mut self, request: Request) -> Answer {
        loop {
            match self.try_ask(request.clone()).await {
                // A gap is never ours: one number is asked at a time.
                Ok(Answer::Refused(error)) if error.code.retry() != Retry::Never => {
                    if error.code == ErrorCode::OutOfOrder {
                        return Answer::Refused(error);
                    }
                    if error.code.retry() == Retry::SignIn {
                        self.line = None;
                    }
                }
                Ok(answer) => return answer,
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn pull(&mut self, conversation: ConversationId, after: u64) -> Result<Page, WireError> {
        let timeline = TimelineId::Conversation(conversation);
        match self.insist(Request::Pull(Pull { timeline, after, limit: 500 })).await {
            Answer::Page(page) => Ok(page),
            Answer::Refused(error) => Err(error),
            other => panic!("a pull was answered with {other:?}"),
        }
    }
}

/// See the module's documentation.
pub struct Repeater {
    writer: Device,
    readers: Vec<Device>,
    nature: Nature,
    group: ConversationId,
    /// Place and time of each number, from 1.
    answers: Vec<(u64, u64)>,
    /// The newest place that was acknowledged.
    acknowledged: Rc<Cell<u64>>,
    repeated: usize,
    stale_reads: u64,
    rng: StdRng,
}

fn post(conversation: ConversationId, number: u64) -> Request {
    let content = Content::Text(format!("number {number}"));
    Request::Post(Post { conversation, incarnation: INCARNATION, number, content })
}

impl Repeater {
    /// Signs up, makes a group, and signs one more device in at each node.
    pub async fn begin(setup: &Setup, nature: &Nature, servers: &[SocketAddr], ca: &[u8]) -> anyhow::Result<Self> {
        let mut config = quinn::EndpointConfig::default();
        config.rng_seed(Some(endpoint_seed(setup.seed, HANDLE.as_bytes())));
        let socket = Socket::bind(nature, HOST, 0).await?;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(quinn::TokioRuntime))?;
        let mut transport = quinn::TransportConfig::default();
        transport.max_idle_timeout(Some(Duration::from_secs(5).try_into()?));
        let net = Net::over(endpoint, servers[0], ca, ALPN, transport);
        let nets: Vec<Net> = servers.iter().map(|server| net.towards(*server)).collect();
        let mut writer = Device::new(nets.clone(), 101);
        writer.line(true).await?;
        let create = CreateGroup { nonce: 1, title: HANDLE.into(), members: Vec::new() };
        let Answer::GroupCreated(created) = writer.insist(Request::CreateGroup(create)).await else {
            bail!("no group was made");
        };
        let mut readers = Vec::new();
        for at in 0..FOUNDERS {
            // Each begins at another node, and goes elsewhere when that is gone.
            let mut nets = nets.clone();
            nets.rotate_left(at);
            let mut reader = Device::new(nets, 102 + at as u8);
            reader.line(false).await?;
            readers.push(reader);
        }
        Ok(Self {
            writer,
            readers,
            nature: nature.clone(),
            group: created.conversation,
            answers: Vec::new(),
            acknowledged: Rc::default(),
            repeated: 0,
            stale_reads: 0,
            rng: StdRng::seed_from_u64(setup.seed ^ 0x7265_7065_6174),
        })
    }

    /// Numbers that were asked about again, and reads that did not show what was acknowledged before.
    pub fn counts(&self) -> (usize, u64) {
        (self.repeated, self.stale_reads)
    }

    /// Writes, repeats and reads as long as things go wrong.
    pub async fn go_on(&mut self, stage: &Stage) {
        let mut readers = std::mem::take(&mut self.readers);
        let (group, acknowledged, nature) = (self.group, self.acknowledged.clone(), self.nature.clone());
        let [a, b, c] = readers.as_mut_slice() else { panic!("one reader a node") };
        let read = |reader| read(reader, group, &acknowledged, stage, &nature);
        let ((), a, b, c) = tokio::join!(self.write(stage), read(a), read(b), read(c));
        self.stale_reads = a + b + c;
        self.readers = readers;
        let all = || self.nature.events().join("\n");
        assert_eq!(self.stale_reads, 0, "reads did not show what was acknowledged before they began:\n{}", all());
    }

    async fn write(&mut self, stage: &Stage) {
        while stage.phase() == Phase::Talking {
            let number = self.answers.len() as u64 + 1;
            let answer = self.place(number).await;
            self.acknowledged.set(answer.0);
            self.answers.push(answer);
            let back = self.rng.random_range(0..KEPT.min(self.answers.len()));
            self.repeat(self.answers.len() - 1 - back).await;
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(50..300))).await;
        }
    }

    async fn place(&mut self, number: u64) -> (u64, u64) {
        match self.writer.insist(post(self.group, number)).await {
            Answer::Posted(posted) => (posted.number, posted.time_ms),
            other => panic!("number {number} of {} was answered with {other:?}", self.group),
        }
    }

    async fn repeat(&mut self, at: usize) {
        let again = self.place(at as u64 + 1).await;
        assert_eq!(again, self.answers[at], "number {} was answered otherwise before", at + 1);
        self.repeated += 1;
    }

    /// Panics unless everything acknowledged is there once, in its place, whoever is asked, with the same answer once
    /// more; and unless the conversations of others are as if there were none.
    pub async fn check(&mut self, crowd: &Crowd) {
        for at in self.answers.len().saturating_sub(KEPT)..self.answers.len() {
            self.repeat(at).await;
        }
        for reader in &mut self.readers {
            let mut places: BTreeMap<String, u64> = BTreeMap::new();
            let mut after = 0;
            loop {
                let page = reader.pull(self.group, after).await.expect("a member may read");
                for entry in page.entries.iter().map(|bytes| Entry::from_bytes(&bytes.0).expect("an entry")) {
                    after += 1;
                    assert_eq!(entry.number, after, "a gap or a repetition");
                    if let Body::Text(text) = entry.body {
                        let before = places.insert(text.clone(), entry.number);
                        assert_eq!(before, None, "{text:?} is there twice");
                    }
                }
                if after >= page.head {
                    break;
                }
            }
            assert_eq!(places.len(), self.answers.len(), "as many as were acknowledged");
            for (number, (place, _)) in (1..).zip(&self.answers) {
                assert_eq!(places.get(&format!("number {number}")), Some(place), "number {number} is not in its place");
            }
            for conversation in crowd.conversations() {
                let refused = reader.pull(*conversation, 0).await.map_err(|error| error.code);
                assert_eq!(refused, Err(ErrorCode::NotFound), "a stranger read {conversation}");
            }
        }
    }
}

/// Reads through one node; how many reads did not show what had been acknowledged before they began.
async fn read(
    reader: &mut Device,
    group: ConversationId,
    acknowledged: &Cell<u64>,
    stage: &Stage,
    nature: &Nature,
) -> u64 {
    let mut stale = 0;
    while stage.phase() == Phase::Talking {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let known = acknowledged.get();
        let timeline = TimelineId::Conversation(group);
        let pull = Request::Pull(Pull { timeline, after: known.saturating_sub(1), limit: 1 });
        if let Ok(Answer::Page(page)) = reader.try_ask(pull).await
            && page.head < known
        {
            nature.log(format_args!("a stale read: head {} after {known} was acknowledged", page.head));
            stale += 1;
        }
    }
    stale
}
