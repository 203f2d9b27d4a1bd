//! Signed HTTP to a receiver: the one file that knows the HTTP client.
//!
//! The form is that of Standard Webhooks: `webhook-id` stays the same over retries, `webhook-timestamp` is the
//! second of the try, `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. Requests
//! block, so they are made on threads of their own, of which there are few.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use tokio::sync::{Semaphore, oneshot};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Where systems keep the certificates that they trust.
const SYSTEM_TRUST: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What a receiver answered.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answered {
    /// Whether the receiver has taken it.
    pub fn is_taken(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// How requests are made.
#[derive(Debug, Clone)]
pub struct PostConfig {
    /// Requests at a time.
    pub connections: usize,
    /// Longest that one may take.
    pub timeout: Duration,
    /// Keys that sign, each as it is written in the configuration.
    pub secrets: Vec<String>,
}

struct Job {
    url: String,
    id: String,
    time_s: u64,
    body: Vec<u8>,
    done: oneshot::Sender<Result<Answered, String>>,
}

/// The way to receivers. Clones share it; its threads end with the last.
#[derive(Clone)]
pub struct Poster {
    jobs: SyncSender<Job>,
    free: Arc<Semaphore>,
}

/// The key behind a secret: what follows `whsec_` in base64, or the text itself.
fn key_of(secret: &str) -> hmac::Key {
    let decoded = secret.strip_prefix("whsec_").and_then(|rest| STANDARD.decode(rest).ok());
    hmac::Key::new(hmac::HMAC_SHA256, decoded.as_deref().unwrap_or(secret.as_bytes()))
}

/// The value of `webhook-signature`.
pub fn signature(secrets: &[String], id: &str, time_s: u64, body: &[u8]) -> String {
    let signed = |secret: &String| {
        let mut context = hmac::Context::with_key(&key_of(secret));
        context.update(format!("{id}.{time_s}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    };
    secrets.iter().map(signed).collect::<Vec<_>>().join(" ")
}

/// The certificates in this file, or where it is empty in the system's; none where the system has none.
pub fn trust(path: &Path) -> std::io::Result<RootCerts> {
    let pem = if path.as_os_str().is_empty() {
        SYSTEM_TRUST.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default()
    } else {
        let named = |error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("hooks.trust: {}: {error}", path.display()))
        };
        std::fs::read(path).map_err(named)?
    };
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    Ok(RootCerts::Specific(Arc::new(certificates.collect())))
}

impl Poster {
    /// Starts the threads.
    pub fn start(config: &PostConfig, trust: &RootCerts) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(config.connections);
        let queue = Arc::new(Mutex::new(queue));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder().root_certs(trust.clone()).unversioned_rustls_crypto_provider(provider).build();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(config.timeout))
            .max_idle_connections_per_host(config.connections)
            .user_agent(crate::AGENT)
            .tls_config(tls)
            .build()
            .into();
        for _ in 0..config.connections {
            let (queue, agent, secrets) = (queue.clone(), agent.clone(), config.secrets.clone());
            let work = move || work(&queue, &agent, &secrets);
            std::thread::Builder::new().name("magpie-hooks".into()).spawn(work)?;
        }
        Ok(Self { jobs, free: Arc::new(Semaphore::new(config.connections)) })
    }

    /// Sends a body and returns what came back, or why nothing did. Waits until a connection is free.
    pub async fn post(&self, url: &str, id: &str, time_s: u64, body: Vec<u8>) -> Result<Answered, String> {
        let ended = || "the node stops".to_owned();
        // As many jobs as threads: the queue is never full.
        let _free = self.free.acquire().await.map_err(|_| ended())?;
        let (done, answered) = oneshot::channel();
        let job = Job { url: url.to_owned(), id: id.to_owned(), time_s, body, done };
        self.jobs.try_send(job).map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }

    /// The same where a connection is free now; `None` where none is.
    pub async fn try_post(&self, url: &str, id: &str, time_s: u64, body: Vec<u8>) -> Option<Result<Answered, String>> {
        if self.free.available_permits() == 0 {
            return None;
        }
        Some(self.post(url, id, time_s, body).await)
    }
}

fn work(queue: &Mutex<Receiver<Job>>, agent: &ureq::Agent, secrets: &[String]) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Whoever asked may wait no longer.
        if !job.done.is_closed() {
            let answered = send(agent, secrets, &job);
            _ = job.done.send(answered);
        }
    }
}

fn send(agent: &ureq::Agent, secrets: &[String], job: &Job) -> Result<Answered, String> {
    let mut request = agent
        .post(&job.url)
        .header("content-type", "application/json")
        .header("webhook-id", &job.id)
        .header("webhook-timestamp", job.time_s.to_string());
    if !secrets.is_empty() {
        request = request.header("webhook-signature", signature(secrets, &job.id, job.time_s, &job.body));
    }
    let mut answer = request.send(&job.body[..]).map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    // What was taken was taken, whatever stands in the answer.
    match body {
        Err(error) if !(200..300).contains(&status) => Err(format!("status {status}, and {error}")),
        body => Ok(Answered { status, body: body.unwrap_or_default() }),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::{SocketAddr, TcpListener},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;

    use super::*;
    use crate::authority::Authority;

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // The example of the Standard Webhooks specification's own test suite.
        let secret = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()];
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let both = [secret[0].clone(), "plain".to_owned()];
        assert!(signature(&both, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).starts_with(&(signed + " v1,")));
    }

    /// A receiver on the loopback that speaks TLS: takes what it is sent, and counts it.
    fn secure_receiver(names: &[&str], authority: &Authority) -> (SocketAddr, Arc<AtomicUsize>) {
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let (certificate, key) = authority.issue(&params).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.unwrap().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
        let (config, taken) = (Arc::new(config.unwrap()), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, count) = (listener.local_addr().unwrap(), taken.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream));
                let (mut head, mut len) = (String::new(), 0);
                while stream.read_line(&mut head).is_ok_and(|read| read > 2) {}
                for line in
                    head.lines().filter_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
                {
                    len = line;
                }
                let mut body = vec![0; len];
                if stream.read_exact(&mut body).is_ok() && body == b"{}" {
                    count.fetch_add(1, Ordering::SeqCst);
                    _ = stream
                        .get_mut()
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
                }
            }
        });
        (address, taken)
    }

    #[tokio::test]
    async fn a_receiver_is_trusted_by_the_authority_that_is_configured_and_by_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let authority = |name: &str| Authority::new(name, KeyPair::generate().unwrap()).unwrap();
        let (ours, other) = (authority("ours"), authority("another"));
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, ours.pem()).unwrap();
        let config = PostConfig { connections: 2, timeout: Duration::from_secs(5), secrets: Vec::new() };
        let poster = Poster::start(&config, &trust(&file).unwrap()).unwrap();
        let ask =
            async |address: SocketAddr| poster.post(&format!("https://{address}/hook"), "id", 1, b"{}".to_vec()).await;
        let (address, taken) = secure_receiver(&["127.0.0.1"], &ours);
        let answered = ask(address).await.unwrap();
        assert_eq!((answered.status, &answered.body[..], taken.load(Ordering::SeqCst)), (200, &b"hi"[..], 1));
        for (names, authority) in [(["127.0.0.1"], &other), (["receiver.example"], &ours)] {
            let (address, taken) = secure_receiver(&names, authority);
            let refused = ask(address).await.unwrap_err();
            assert!(refused.to_lowercase().contains("certificate"), "{refused}");
            assert_eq!(taken.load(Ordering::SeqCst), 0, "nothing is said to whom is not trusted");
        }
        // What the system trusts is not this authority.
        let poster = Poster::start(&config, &trust(Path::new("")).unwrap()).unwrap();
        assert!(poster.post(&format!("https://{address}/hook"), "id", 1, b"{}".to_vec()).await.is_err());
        assert_eq!(taken.load(Ordering::SeqCst), 1);
        assert!(trust(&dir.path().join("absent")).unwrap_err().to_string().contains("hooks.trust"));
    }
}
