//! Somebody who is told of what happens: an HTTP server with moods.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use magpie_node::{Config, Options};
use serde_json::Value;

use crate::{InProcess, Place, node::test_config};

/// With which nodes of tests sign.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A node that signs what it tells, and waits half a second for an answer.
pub fn start_node(dir: &Path, change: impl FnOnce(&mut Config)) -> (InProcess, Place) {
    let mut config = test_config(dir);
    config.hooks.secret = SECRET.to_owned();
    config.hooks.timeout_ms = 500;
    change(&mut config);
    let node = InProcess::start(config, Options::default());
    let place = Place::new(node.address, node.ca.clone());
    (node, place)
}

/// How it takes what it is sent.
#[derive(Debug, Clone)]
pub enum Mood {
    /// Gladly.
    Takes,
    /// With this status and body.
    Says(u16, String),
    /// Gladly, after this long.
    Slow(Duration),
    /// With bytes that are no HTTP.
    Garbage,
    /// It hangs up.
    HangsUp,
}

/// A request that it was sent.
#[derive(Debug, Clone)]
pub struct Heard {
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub json: Value,
    /// It was answered with 200.
    pub taken: bool,
}

impl Heard {
    /// Its id, the same over tries.
    pub fn id(&self) -> &str {
        self.headers.get("webhook-id").map_or("", String::as_str)
    }

    /// Its type.
    pub fn kind(&self) -> &str {
        self.json["type"].as_str().unwrap_or_default()
    }

    /// Whether the signature is right, as Python sees it.
    pub fn is_signed(&self) -> bool {
        const CHECK: &str = "
import base64, hashlib, hmac, sys
secret, id, time, signature = sys.argv[1:5]
body = sys.stdin.buffer.read()
key = base64.b64decode(secret.removeprefix('whsec_'))
digest = hmac.new(key, f'{id}.{time}.'.encode() + body, hashlib.sha256).digest()
expected = 'v1,' + base64.b64encode(digest).decode()
sys.exit(0 if any(hmac.compare_digest(expected, one) for one in signature.split()) else 3)
";
        let (time, signature) = (&self.headers["webhook-timestamp"], &self.headers["webhook-signature"]);
        let mut python = Command::new("python3")
            .args(["-c", CHECK, SECRET, self.id(), time, signature])
            .stdin(Stdio::piped())
            .spawn()
            .expect("python3");
        python.stdin.take().expect("python3").write_all(&self.body).expect("python3");
        python.wait().expect("python3").code() == Some(0)
    }
}

struct Inner {
    heard: Mutex<Vec<Heard>>,
    mood: Mutex<Mood>,
    stopped: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub struct Receiver {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

impl Receiver {
    /// Listens on the loopback.
    pub fn start(mood: Mood) -> Self {
        Self::start_at("127.0.0.1:0", mood)
    }

    /// Listens there.
    pub fn start_at(address: &str, mood: Mood) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let inner =
            Arc::new(Inner { heard: Mutex::default(), mood: Mutex::new(mood), stopped: AtomicBool::new(false) });
        let serving = inner.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let inner = serving.clone();
                std::thread::spawn(move || while serve(&inner, &stream).is_some() {});
            }
        });
        Self { address, inner }
    }

    /// Where it is to be told.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// From now on it takes things like this.
    pub fn set(&self, mood: Mood) {
        *lock(&self.inner.mood) = mood;
    }

    /// What it was sent.
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.inner.heard).clone()
    }

    /// What it took, of this type.
    pub fn taken(&self, kind: &str) -> Vec<Heard> {
        lock(&self.inner.heard).iter().filter(|heard| heard.taken && heard.kind() == kind).cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.inner.stopped.store(true, Ordering::Relaxed);
        _ = TcpStream::connect(self.address);
    }
}

/// One request; `None` at the end of the connection.
fn serve(inner: &Inner, mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut headers, mut first) = (BTreeMap::new(), true);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ").filter(|_| !first) {
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        first = false;
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let mood = lock(&inner.mood).clone();
    if let Mood::Slow(wait) = mood {
        std::thread::sleep(wait);
    }
    let json = serde_json::from_slice(&body).unwrap_or_default();
    let taken = matches!(mood, Mood::Takes | Mood::Slow(_) | Mood::Says(200, _));
    lock(&inner.heard).push(Heard { headers, body, json, taken });
    let (status, text) = match mood {
        Mood::Takes | Mood::Slow(_) => (200, String::new()),
        Mood::Says(status, text) => (status, text),
        Mood::Garbage => {
            stream.write_all(b"\x00\xff I am a teapot\r\n\r\n").ok()?;
            return None;
        }
        Mood::HangsUp => return None,
    };
    write!(stream, "HTTP/1.1 {status} So\r\ncontent-length: {}\r\n\r\n{text}", text.len()).ok()
}
