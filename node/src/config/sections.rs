//! The sections. Field documentation is what the reference file says.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A field for the reference: its name, the lines of its documentation, its default as TOML.
pub(super) type Field = (String, Vec<&'static str>, String);

macro_rules! section {
    ($(#[doc = $doc:literal])+ pub struct $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty = $default:expr,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct $name { $($(#[doc = $field_doc])+ pub $field: $type,)+ }

        impl Default for $name {
            fn default() -> Self { Self { $($field: $default,)+ } }
        }

        impl $name {
            fn doc() -> String { [$($doc),+].concat() }
            fn fields() -> Vec<Field> {
                let default = toml::Table::try_from(Self::default()).unwrap_or_default();
                let value = |name: &str| default.get(name).map(ToString::to_string).unwrap_or_default();
                vec![$({
                    let name = stringify!($field).replace('_', "-");
                    let text = value(&name);
                    (name, vec![$($field_doc),+], text)
                },)+]
            }
        }
    };
}

section! {
    /// The node itself.
    pub struct Node {
        /// Folder of everything that this node keeps: log, snapshots, state, keys.
        data_dir: PathBuf = PathBuf::from("./magpie-data"),
        /// Event loops: threads that each drive a socket for devices, their sessions, and a share of the shards. 0 for
        /// one for every two cores, up to 16; the other cores are for what writes, searches and hashes passwords.
        loops: usize = 0,
    }
}

section! {
    /// Where devices connect.
    pub struct Gateway {
        /// UDP address for QUIC.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4433)),
        /// Where devices reach this node, as IP and port, if that is not where it listens (all addresses, or behind another):
        /// the other nodes send devices there. Empty for where it listens.
        advertise: String = String::new(),
        /// Names and addresses that the development certificate is good for, besides localhost.
        names: Vec<String> = Vec::new(),
        /// Connections at a time; more are refused. Each takes about 30 KB.
        connections_max: usize = 50_000,
        /// Connections being made from which on addresses must prove themselves by a retry.
        retry_above: usize = 500,
        /// A connection that has not signed in after this is closed, in milliseconds.
        sign_in_timeout_ms: u64 = 10_000,
        /// A connection from which nothing comes for this long is closed, in milliseconds. Devices send every 15 s.
        idle_timeout_ms: u64 = 45_000,
        /// A device that takes nothing for this long is disconnected, in milliseconds.
        stall_timeout_ms: u64 = 20_000,
        /// Bytes of hints queued for a slow device before it is told to pull instead.
        hints_bytes_max: usize = 262_144,
        /// Kernel buffers of the UDP socket, in bytes. At the usual 212 KB a thousand busy devices lose packets.
        socket_buffer_bytes: usize = 4_194_304,
        /// Messages that a session actor's mailbox holds.
        session_mailbox: usize = 256,
        /// When what was accepted waits longer than this on average, in milliseconds, less important requests are
        /// turned away. 0 for never.
        overload_wait_ms: u64 = 100,
        /// How often it is looked at how long that was, and then more or less is let in, in milliseconds; after 2,000
        /// requests at the latest. Shorter follows the load sooner, and is misled sooner by a moment.
        overload_window_ms: u64 = 250,
        /// Sessions that a node which is drained lets go a second.
        drain_rate: u32 = 500,
    }
}

section! {
    /// The cluster that this node is part of. Without nodes it is alone.
    pub struct Cluster {
        /// This node: its place and generation. A node that lost its disk comes back with a higher generation.
        node: String = "n1.1".into(),
        /// UDP address where the other nodes connect.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4434)),
        /// The nodes that a new cluster begins with, this one among them: 1, 3 or 5, each as id@address. None for a
        /// node that is alone, or that joins a cluster (`magpie serve --join`).
        nodes: Vec<String> = Vec::new(),
        /// Folder of what `magpie cert node` made for this node.
        keys: PathBuf = PathBuf::from("./magpie-keys"),
        /// What fails together with this node, such as a rack or a site: replicas of a shard are kept in different
        /// zones where there are enough. Empty for a zone of its own.
        zone: String = String::new(),
        /// A node that is silent for this long is given up and its replicas are made anew on others, in seconds.
        replace_after_s: u64 = 300,
        /// How often the replicas of a shard are compared, in seconds. Each reads its whole state for it.
        audit_every_s: u64 = 3_600,
        /// What this node sends at most to replicas that were away or are new, in MB/s. It sends less while people's
        /// messages take longer for it.
        catch_up_mb_per_s: u64 = 64,
    }
}

section! {
    /// Where operators connect.
    pub struct Admin {
        /// Address of the admin HTTP. Outside of loopback a token is required.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)),
        /// Bearer token that admin requests must carry; empty for none.
        token: String = String::new(),
    }
}

section! {
    /// Log, snapshots and state.
    pub struct Storage {
        /// Shards, 1 to 16; fixed when the data folder is made. Each makes batches smaller.
        shards: u16 = 8,
        /// A log file is closed when it has grown past this, in bytes.
        log_segment_bytes: u64 = 33_554_432,
        /// Free space below which writes are refused, in bytes: what runs must still be written down.
        log_reserve_bytes: u64 = 67_108_864,
        /// A checkpoint begins when this many bytes changed in a shard, ...
        checkpoint_bytes: usize = 8_388_608,
        /// ... or this long after the last, in milliseconds.
        checkpoint_ms: u64 = 10_000,
        /// No new snapshot of a shard before its log has grown by this many bytes.
        snapshot_bytes_min: u64 = 33_554_432,
        /// A shard that was written to has a new snapshot after this long at the latest, in seconds: what was recalled
        /// or edited leaves the log and older snapshots with it.
        snapshot_age_s: u64 = 259_200,
        /// Memory for records and timelines in use, over all shards, in bytes.
        cache_bytes: usize = 134_217_728,
        /// Cache of the state store below it, in bytes.
        state_cache_bytes: u64 = 8_388_608,
    }
}

/// What proves who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// A password of this server.
    Password,
    /// A token of the operator's own identity service.
    Jwt,
}

section! {
    /// Accounts and passwords.
    pub struct Accounts {
        /// Shortest password, in bytes.
        password_len_min: usize = 8,
        /// Memory of one argon2id hash, in KiB (RFC 9106 and OWASP: 19 MiB with two passes).
        argon2_memory_kib: u32 = 19_456,
        /// Passes of argon2id.
        argon2_passes: u32 = 2,
        /// Threads that hash passwords; so many hashes are computed at a time.
        password_threads: usize = 1,
        /// Hashes that may wait; more sign-ins are refused as overload.
        password_queue: usize = 256,
        /// Life of a token, in seconds. It is renewed at every sign-in.
        token_seconds: u64 = 2_592_000,
        /// What proves who somebody is: "password", or "jwt" for tokens of the operator's own identity service (see below).
        auth: Auth = Auth::Password,
        /// Who makes an account with a password needs an invitation (`magpie admin invitations`).
        invitations: bool = false,
    }
}

section! {
    /// The operator's own identity service, where `accounts.auth` is "jwt": who signs in shows a token of it.
    pub struct Jwt {
        /// File with its public keys, a JSON Web Key Set (RFC 7517): Ed25519, ES256, RS256 or PS256. It is read again when
        /// it changes, so a new key is added beside the old one before tokens are signed with it.
        keys: PathBuf = PathBuf::new(),
        /// What the claim `iss` of every token must be.
        issuer: String = String::new(),
        /// What the claim `aud` must be, or hold.
        audience: String = String::new(),
        /// The claim that is the person's handle. It must never be another person's later.
        handle_claim: String = "sub".into(),
        /// By how much the clocks of the service and the node may differ, in seconds.
        leeway_s: u64 = 30,
    }
}

section! {
    /// Limits. A rate of 0 is no limit.
    pub struct Limits {
        /// Sign-ups and sign-ins by password from one address, a second in the long run, ...
        password_per_address_rate: f64 = 2.0,
        /// ... and at once.
        password_per_address_burst: f64 = 60.0,
        /// Requests of one device, a second in the long run, ...
        requests_per_device_rate: f64 = 500.0,
        /// ... and at once.
        requests_per_device_burst: f64 = 2_000.0,
        /// Acts of one person on all their devices (messages, groups made and joined, requests to people), a second in
        /// the long run, ...
        acts_per_user_rate: f64 = 200.0,
        /// ... and at once.
        acts_per_user_burst: f64 = 1_000.0,
        /// Questions of one person for people (by handle, phone number or code, by shaking), a second in the long run, ...
        lookups_per_user_rate: f64 = 2.0,
        /// ... and at once.
        lookups_per_user_burst: f64 = 60.0,
        /// Searches of one person, a second in the long run, ...
        searches_per_user_rate: f64 = 2.0,
        /// ... and at once.
        searches_per_user_burst: f64 = 30.0,
        /// Acts in one conversation, a second in the long run, ...
        conversation_rate: f64 = 2_000.0,
        /// ... and at once.
        conversation_burst: f64 = 4_000.0,
        /// Read cursors of one person are written together, at most once in so many milliseconds.
        read_every_ms: u64 = 2_000,
        /// A group's actor stops when nothing was said for this long, in milliseconds.
        conversation_idle_ms: u64 = 60_000,
        /// Messages that the mailbox of a group's actor holds.
        conversation_mailbox: usize = 1_024,
    }
}

section! {
    /// What people may do. It holds in the whole cluster: of the nodes' policies the one with the highest version is taken.
    pub struct Policy {
        /// Raise it with each change. 0 for what is usual, whatever else stands here.
        version: u64 = 0,
        /// For how long a sender may take a message back, in seconds; 0 for never. Administrators of groups always may.
        recall_s: u64 = 120,
        /// For how long a sender may edit a message, in seconds; 0 for never.
        edit_s: u64 = 900,
        /// People need not be contacts: those whose contact was deleted can still write, and anybody takes anybody into
        /// groups who has not blocked them.
        strangers_write: bool = false,
        /// Members of a conversation are told how far the others have read, when they ask. Every node looks at its own
        /// file, whatever the version.
        show_read: bool = false,
    }
}

section! {
    /// Hooks: who is told of what happens, and who is asked before. Every node of a cluster needs the same.
    pub struct Hooks {
        /// Where a notice goes when a message waits for somebody who has no device connected. Empty for nowhere.
        push_url: String = String::new(),
        /// Characters of a message that the notice holds; 0 for none.
        preview_chars: usize = 100,
        /// Where events go. Empty for nowhere.
        webhook_url: String = String::new(),
        /// Families of events that go there.
        webhook_events: Vec<String> = ["user", "contact", "group", "message"].map(str::to_owned).to_vec(),
        /// What requests are signed with: text, or `whsec_` and base64. Several, with spaces between, while it is changed.
        secret: String = String::new(),
        /// PEM file of the certificates that receivers are trusted by. Empty for the system's.
        trust: PathBuf = PathBuf::new(),
        /// Longest that one request may take, in milliseconds.
        timeout_ms: u64 = 10_000,
        /// Requests at a time, of each receiver.
        connections: usize = 8,
        /// What a receiver does not take is tried again for this long, in seconds.
        retry_for_s: u64 = 86_400,
        /// Entries that may wait for a receiver in one shard; from there on events are folded into one for each person.
        backlog_items: u64 = 100_000,
        /// Who is asked before a message is taken. Empty for nobody.
        before_send_url: String = String::new(),
        /// Longest that this may take, in milliseconds.
        before_send_timeout_ms: u64 = 1_000,
        /// What holds when there is no answer in time: allow or refuse.
        before_send_default: String = "allow".into(),
        /// Questions at a time.
        before_send_connections: usize = 16,
        /// File of words that messages may not hold, one a line; it is read again when it changes. Empty for none.
        words: PathBuf = PathBuf::new(),
        /// What happens to a message that holds one: refuse or mask.
        words_action: String = "refuse".into(),
    }
}

impl Hooks {
    /// The keys that sign.
    pub fn secrets(&self) -> Vec<String> {
        self.secret.split_whitespace().map(str::to_owned).collect()
    }

    /// What cannot work, if anything.
    pub(super) fn wrong(&self) -> Option<String> {
        let urls = [
            ("push-url", &self.push_url),
            ("webhook-url", &self.webhook_url),
            ("before-send-url", &self.before_send_url),
        ];
        let odd = |url: &str| !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://");
        if let Some((name, url)) = urls.into_iter().find(|(_, url)| odd(url)) {
            return Some(format!("hooks.{name} is {url:?}; it must begin with http:// or https://"));
        }
        if let Some(family) =
            self.webhook_events.iter().find(|f| !["user", "contact", "group", "message"].contains(&f.as_str()))
        {
            return Some(format!("hooks.webhook-events names {family:?}; there are user, contact, group and message"));
        }
        if !["allow", "refuse"].contains(&self.before_send_default.as_str()) {
            return Some(format!(
                "hooks.before-send-default is {:?}; it must be allow or refuse",
                self.before_send_default
            ));
        }
        if !["refuse", "mask"].contains(&self.words_action.as_str()) {
            return Some(format!("hooks.words-action is {:?}; it must be refuse or mask", self.words_action));
        }
        if self.connections == 0 || self.before_send_connections == 0 {
            return Some("hooks.connections and hooks.before-send-connections must be at least 1".to_owned());
        }
        None
    }
}

section! {
    /// Pictures, voice, video and files.
    pub struct Media {
        /// Where they are kept: a folder, or `s3://bucket` or `s3://bucket/prefix`. Empty for the folder `media` in the
        /// data folder. The nodes of a cluster must share one; without it a cluster has no media.
        store: String = String::new(),
        /// Address of the S3 service, such as `https://s3.example.org`; empty for the one of AWS. Credentials come from
        /// the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
        s3_endpoint: String = String::new(),
        /// Region of the bucket.
        s3_region: String = "us-east-1".to_owned(),
        /// Media types that are taken: `image/png`, `image/*`, `*/*`.
        types: Vec<String> = vec!["*/*".to_owned()],
        /// Longest picture, in bytes, ...
        image_len_max: u64 = 20 << 20,
        /// ... sound, ...
        audio_len_max: u64 = 20 << 20,
        /// ... film, ...
        video_len_max: u64 = 200 << 20,
        /// ... and anything else.
        file_len_max: u64 = 200 << 20,
        /// What one person may have brought and not let go of, in bytes: what their messages name, and what was brought
        /// lately.
        quota_bytes: u64 = 10 << 30,
        /// Media streams that a session may have open.
        streams_per_session: u32 = 4,
        /// Transfers of the node at a time; each takes up to 2 MB of memory. More are told to come back.
        transfers_max: usize = 64,
        /// Transfers of one person at a time, over all their devices on a node.
        transfers_per_user: usize = 8,
        /// What no message names is deleted after this, in seconds.
        unused_keep_s: u64 = 86_400,
        /// How often that is looked for, in seconds.
        collect_every_s: u64 = 600,
    }
}

section! {
    /// Searching one's own messages, contacts and groups. What is searched is indexed then; the index is a cache, in the
    /// folder `search` of the data folder.
    pub struct Search {
        /// Whether people may search on the server.
        enabled: bool = true,
        /// How long one shard works on one question, in milliseconds. What it does not reach, the next question goes on
        /// with. Below a second: a node that waits longer for another asks anew.
        budget_ms: u64 = 400,
        /// Entries that one question adds to the index of one shard at most.
        entries_max: u64 = 20_000,
        /// Searches of the node at a time, in the shards that it leads.
        searches_max: usize = 16,
        /// Memory of an index while it is written to, in bytes; at least 15000000. A minute later it is given back.
        memory_bytes: usize = 15_000_000,
        /// What nobody searched for this long leaves the index, in seconds.
        keep_s: u64 = 2_592_000,
        /// What the indexes of the node may take on disk, in bytes, but for what a second adds. Beyond that, what was
        /// searched longest ago leaves the largest.
        bytes_max: u64 = 10_737_418_240,
        /// How often what was recalled or edited is taken out of the files of the index, in seconds.
        sweep_every_s: u64 = 86_400,
    }
}

impl Search {
    /// What cannot work, if anything.
    pub(super) fn wrong(&self) -> Option<String> {
        if self.memory_bytes < 15_000_000 {
            return Some(format!("search.memory-bytes is {}; it must be at least 15000000", self.memory_bytes));
        }
        if self.searches_max == 0 || self.entries_max == 0 || self.sweep_every_s == 0 {
            return Some("search.searches-max, entries-max and sweep-every-s must be at least 1".to_owned());
        }
        None
    }
}

section! {
    /// What is written to standard error.
    pub struct Log {
        /// The least severe level that is shown: error, warn, info, debug or trace.
        level: String = "info".to_owned(),
    }
}

/// Every section: name, documentation, fields.
pub(super) fn all() -> Vec<(&'static str, String, Vec<Field>)> {
    vec![
        ("node", Node::doc(), Node::fields()),
        ("gateway", Gateway::doc(), Gateway::fields()),
        ("cluster", Cluster::doc(), Cluster::fields()),
        ("admin", Admin::doc(), Admin::fields()),
        ("storage", Storage::doc(), Storage::fields()),
        ("accounts", Accounts::doc(), Accounts::fields()),
        ("jwt", Jwt::doc(), Jwt::fields()),
        ("limits", Limits::doc(), Limits::fields()),
        ("policy", Policy::doc(), Policy::fields()),
        ("hooks", Hooks::doc(), Hooks::fields()),
        ("media", Media::doc(), Media::fields()),
        ("search", Search::doc(), Search::fields()),
        ("log", Log::doc(), Log::fields()),
    ]
}
