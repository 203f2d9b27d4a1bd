//! What is volatile about accounts: the small pool of threads that hashes passwords.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Instant,
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version, password_hash::SaltString,
};
use magpie_protocol::{ErrorCode, WireError};
use rand::RngCore;
use tokio::sync::oneshot;

use crate::{config::Accounts, overload::Mailboxes};

/// What is to be hashed, and since when it waits.
type Waiting = (Instant, Job);

enum Job {
    Hash(String, oneshot::Sender<Option<String>>),
    Verify { password: String, hash: Option<String>, done: oneshot::Sender<bool> },
}

/// The pool. Clones share it; the threads end with the last of them.
#[derive(Clone)]
pub struct Passwords(Hands);

#[derive(Clone)]
enum Hands {
    Threads(SyncSender<Waiting>, Arc<Mutex<Vec<JoinHandle<()>>>>),
    /// Whoever asks, for a simulation that has no threads.
    Inline(Arc<Hasher>),
}

impl Passwords {
    /// Starts the threads; or none, and then whoever asks waits.
    pub fn start(config: &Accounts, threads: bool, mailboxes: &Arc<Mailboxes>) -> std::io::Result<Self> {
        let params = Params::new(config.argon2_memory_kib, config.argon2_passes, 1, None)
            .map_err(|e| std::io::Error::other(format!("argon2 parameters: {e}")))?;
        if !threads {
            return Ok(Self(Hands::Inline(Arc::new(Hasher::new(params)))));
        }
        let (jobs, queue) = sync_channel(config.password_queue);
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for _ in 0..config.password_threads {
            let (queue, params, mailboxes) = (queue.clone(), params.clone(), mailboxes.clone());
            let work = move || work(&queue, &Hasher::new(params), &mailboxes);
            threads.push(std::thread::Builder::new().name("magpie-password".into()).spawn(work)?);
        }
        Ok(Self(Hands::Threads(jobs, Arc::new(Mutex::new(threads)))))
    }

    fn submit(&self, job: Job) -> Result<(), WireError> {
        let jobs = match &self.0 {
            Hands::Threads(jobs, _) => jobs,
            Hands::Inline(hasher) => {
                hasher.work(job);
                return Ok(());
            }
        };
        jobs.try_send((Instant::now(), job)).map_err(|error| match error {
            TrySendError::Full(_) => WireError::after(ErrorCode::Overloaded, 1_000),
            TrySendError::Disconnected(_) => WireError::new(ErrorCode::ShuttingDown),
        })
    }

    /// The hash of a password, with a salt of its own.
    pub async fn hash(&self, password: String) -> Result<String, WireError> {
        let (done, hashed) = oneshot::channel();
        self.submit(Job::Hash(password, done))?;
        hashed.await.ok().flatten().ok_or_else(|| WireError::new(ErrorCode::Internal))
    }

    /// Whether the password has this hash. Without one it takes as long and says no.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, WireError> {
        let (done, verified) = oneshot::channel();
        self.submit(Job::Verify { password, hash, done })?;
        verified.await.map_err(|_| WireError::new(ErrorCode::ShuttingDown))
    }

    /// How many threads are left; for tests that nothing still runs.
    pub fn threads(&self) -> usize {
        let Hands::Threads(_, threads) = &self.0 else { return 0 };
        let threads = threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().filter(|thread| !thread.is_finished()).count()
    }
}

fn work(queue: &Mutex<Receiver<Waiting>>, hasher: &Hasher, mailboxes: &Mailboxes) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((since, job)) = job else { return };
        mailboxes.passwords.note(since.elapsed());
        hasher.work(job);
    }
}

struct Hasher {
    argon2: Argon2<'static>,
    /// The hash of a password that nobody has.
    dummy: Option<String>,
}

impl Hasher {
    fn new(params: Params) -> Self {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy = hash(&argon2, "no such account");
        Self { argon2, dummy }
    }

    fn work(&self, job: Job) {
        metrics::counter!(crate::metrics::PASSWORDS_HASHED).increment(1);
        match job {
            Job::Hash(password, done) => _ = done.send(hash(&self.argon2, &password)),
            Job::Verify { password, hash: stored, done } => {
                let known = stored.is_some();
                let text = stored.or_else(|| self.dummy.clone()).unwrap_or_default();
                let right = PasswordHash::new(&text)
                    .is_ok_and(|parsed| self.argon2.verify_password(password.as_bytes(), &parsed).is_ok());
                _ = done.send(right && known);
            }
        }
    }
}

fn hash(argon2: &Argon2<'_>, password: &str) -> Option<String> {
    let mut salt = [0u8; 16];
    rand::rng().fill_bytes(&mut salt);
    let salt = SaltString::encode_b64(&salt).ok()?;
    argon2.hash_password(password.as_bytes(), &salt).ok().map(|hash| hash.to_string())
}
