//! A backup under load, the loss of everything, and a restore while devices come back that know more than the backup.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use magpie_client::{ConversationId, Entry, Status, StorePlace, TimelineId, entry::Body};
use magpie_tests::{Person, Place, Process, cluster::Cluster, http, people::befriend, seed, until};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
const PEOPLE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `magpie admin` with these arguments.
fn admin(arguments: &[&str]) -> Output {
    Command::new(TEST_NODE).arg("admin").args(arguments).env("MAGPIE_ADMIN_TOKEN", http::TOKEN).output().unwrap()
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = admin(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text_of(&output));
    text_of(&output)
}

/// The same, as soon as the cluster is at the level that it needs: a new one takes a moment.
fn succeeds_at_last(arguments: &[&str]) -> String {
    let begun = std::time::Instant::now();
    loop {
        let output = admin(arguments);
        let waits = text_of(&output).contains("need level") && begun.elapsed() < PATIENCE;
        if !waits {
            assert!(output.status.success(), "{arguments:?}: {}", text_of(&output));
            return text_of(&output);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn fails(arguments: &[&str], why: &str) {
    let output = admin(arguments);
    let text = text_of(&output);
    assert!(!output.status.success() && text.contains(why), "{arguments:?} says {text:?}, not {why:?}");
}

/// One node or several, that are all lost and begin anew from a backup.
enum Nodes {
    One(Option<Process>, Option<magpie_tests::node::Parts>),
    Several(Cluster),
}

impl Nodes {
    fn place(&self) -> Place {
        match self {
            Self::One(Some(node), _) => {
                let mut place = Place::new(node.address, node.ca());
                place.request_timeout = Duration::from_secs(1);
                place
            }
            Self::One(..) => panic!("it does not run"),
            Self::Several(cluster) => cluster.place(),
        }
    }

    fn admin(&self) -> String {
        match self {
            Self::One(Some(node), _) => node.admin.to_string(),
            Self::One(..) => panic!("it does not run"),
            Self::Several(cluster) => cluster.node(1).admin.to_string(),
        }
    }

    /// Kills all of them, moves what they had away, restores, and starts them again where they were.
    fn lose_and_restore(&mut self, backup: &Path, dir: &Path) {
        match self {
            Self::One(node, parts) => {
                *parts = node.take().map(Process::kill);
                let parts = parts.take().unwrap();
                let old = dir.join("old");
                std::fs::rename(&parts.1, &old).unwrap();
                let config = dir.join("one.toml");
                std::fs::write(&config, format!("[node]\ndata-dir = {:?}\n", parts.1)).unwrap();
                let (backup, config, old) = (backup.to_str().unwrap(), config.to_str().unwrap(), old.to_str().unwrap());
                println!("{}", succeeds(&["restore", backup, "--config", config, "--keys", old]));
                fails(&["restore", backup, "--config", config], "is not empty");
                *node = Some(Process::restart(parts).unwrap());
                fails(&["restore", backup, "--config", config], "is in use by another process");
            }
            Self::Several(cluster) => {
                let mut arguments = vec!["restore".to_owned(), backup.display().to_string()];
                for at in 0..cluster.len() {
                    cluster.kill(at);
                    let (data, environment) = cluster.parts(at);
                    std::fs::rename(data, dir.join(format!("old{at}"))).unwrap();
                    let value = |name: &str| environment.iter().find(|(n, _)| n == name).unwrap().1.clone();
                    let config = format!(
                        "[node]\ndata-dir = {data:?}\n[cluster]\nnode = {:?}\nlisten = {:?}\nkeys = {:?}\nnodes = {}\n",
                        value("MAGPIE_CLUSTER_NODE"),
                        value("MAGPIE_CLUSTER_LISTEN"),
                        value("MAGPIE_CLUSTER_KEYS"),
                        value("MAGPIE_CLUSTER_NODES"),
                    );
                    let file = dir.join(format!("n{at}.toml"));
                    std::fs::write(&file, config).unwrap();
                    arguments.extend(["--config".to_owned(), file.display().to_string()]);
                }
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                fails(&arguments[..4], "they must be the same");
                println!("{}", succeeds(&arguments));
                for at in 0..cluster.len() {
                    cluster.restart(at, &[]);
                }
            }
        }
    }

    async fn ready(&self) {
        if let Self::Several(cluster) = self {
            cluster.ready().await;
        }
    }

    fn terminate(self) {
        match self {
            Self::One(node, _) => assert_eq!(node.unwrap().terminate(), 0),
            Self::Several(cluster) => cluster.terminate(),
        }
    }
}

/// What was acknowledged: text, where and at which number.
type Acked = Arc<Mutex<Vec<(String, ConversationId, u64)>>>;

/// Everybody and what they said.
struct Town {
    people: Vec<Arc<Person>>,
    /// Which conversations each may write in, as far as is known.
    rooms: Vec<Vec<ConversationId>>,
    groups: Arc<Mutex<BTreeSet<ConversationId>>>,
    acked: Acked,
    said: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Town {
    async fn gather(place: &Place, dir: &Path) -> Self {
        let mut people = Vec::new();
        for n in 0..PEOPLE {
            // Half of them keep what they have in files.
            let store = match n % 2 {
                0 => StorePlace::Memory,
                _ => StorePlace::File(dir.join(format!("person{n}.db"))),
            };
            people.push(Arc::new(Person::new_at(place, &format!("person{n}"), store).await));
        }
        let mut rooms = vec![Vec::new(); PEOPLE];
        for pair in (0..PEOPLE).step_by(2) {
            let direct = befriend(&people[pair], &people[pair + 1]).await;
            rooms[pair].push(direct);
            rooms[pair + 1].push(direct);
        }
        let groups: Arc<Mutex<BTreeSet<ConversationId>>> = Arc::default();
        for owner in 0..3 {
            let members = people.iter().skip(owner * 2).take(6).map(|person| person.id).collect();
            let group = people[owner * 2].client.create_group(&format!("group {owner}"), members).await.unwrap();
            groups.lock().unwrap().insert(group);
            (owner * 2..(owner * 2 + 6).min(PEOPLE)).for_each(|member| rooms[member].push(group));
        }
        Self { people, rooms, groups, acked: Acked::default(), said: Arc::default(), tasks: Vec::new() }
    }

    /// Everybody talks, and makes groups of anybody now and then: shards have much to tell each other.
    fn talk(&mut self, seed: u64) {
        for (n, person) in self.people.iter().enumerate() {
            let (person, rooms, groups) = (person.clone(), self.rooms[n].clone(), self.groups.clone());
            let ids: Vec<_> = self.people.iter().map(|other| other.id).collect();
            let (acked, said) = (self.acked.clone(), self.said.clone());
            self.tasks.push(tokio::spawn(async move {
                let mut lots = StdRng::seed_from_u64(seed + n as u64);
                loop {
                    tokio::time::sleep(Duration::from_millis(lots.random_range(0..30))).await;
                    if lots.random_ratio(1, 6) {
                        let some: Vec<_> = ids.choose_multiple(&mut lots, 4).copied().collect();
                        let title = format!("{n}'s");
                        if let Ok(group) = person.client.create_group(&title, some).await {
                            groups.lock().unwrap().insert(group);
                            if lots.random_bool(0.5) {
                                let leaver = *ids.choose(&mut lots).unwrap();
                                _ = person.client.remove(group, leaver).unwrap().posted().await;
                            }
                        }
                        continue;
                    }
                    let room = *rooms.choose(&mut lots).unwrap();
                    let text = format!("{} of {n}", said.fetch_add(1, Ordering::Relaxed));
                    if let Ok(posted) = person.client.say(room, text.clone()).unwrap().posted().await {
                        acked.lock().unwrap().push((text, room, posted.number));
                    }
                }
            }));
        }
    }

    fn acked(&self) -> Vec<(String, ConversationId, u64)> {
        self.acked.lock().unwrap().clone()
    }

    async fn acked_more(&self, count: usize) {
        let before = self.acked().len();
        until("more is acknowledged", PATIENCE, async || self.acked().len() >= before + count).await;
    }

    /// Nobody begins anything new. What is under way is in the devices' stores.
    fn hush(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }

    async fn come_back(&self) {
        for person in &self.people {
            let what = format!("{} reads everything anew", person.name);
            until(&what, PATIENCE, async || {
                let events = person.seen().events.clone();
                let reset = events.iter().rposition(|event| event == "HistoryReset");
                let synced = events.iter().rposition(|event| event == "Synced");
                reset.is_some() && reset < synced && person.client.unresolved() == 0
            })
            .await;
        }
    }

    fn texts(&self, n: usize, room: ConversationId) -> Vec<(u64, String)> {
        let entries = self.history(n, room).into_iter();
        let texts = entries.filter_map(|entry| match entry.body {
            Body::Text(text) => Some((entry.number, text)),
            _ => None,
        });
        texts.collect()
    }

    fn history(&self, n: usize, room: ConversationId) -> Vec<Entry> {
        self.people[n].client.history(room, 0, u32::MAX).unwrap()
    }

    /// Who is in a conversation, by its own word; none when nobody who may ask is known.
    async fn members(&self, room: ConversationId) -> Option<BTreeSet<usize>> {
        for person in &self.people {
            if let Ok(group) = person.client.members(room).await {
                let at = |id| self.people.iter().position(|person| person.id == id);
                return Some(group.members.into_iter().filter_map(at).collect());
            }
        }
        None
    }

    /// The lists of people say what the conversations say.
    async fn lists_agree(&self) {
        let listed = |n: usize| -> BTreeSet<ConversationId> {
            let all = self.people[n].client.conversations().into_iter();
            all.filter(|known| !known.ended).map(|known| known.id).collect()
        };
        let mut rooms: BTreeSet<ConversationId> = self.groups.lock().unwrap().clone();
        rooms.extend((0..PEOPLE).flat_map(listed));
        let mut known = 0;
        for room in rooms {
            let members = self.members(room).await;
            known += usize::from(members.is_some());
            let members = members.unwrap_or_default();
            let what = format!("{room} has {members:?}, and these list it");
            until(&what, Duration::from_secs(20), async || {
                (0..PEOPLE).filter(|n| listed(*n).contains(&room)).eq(members.iter().copied())
            })
            .await;
        }
        assert!(known > PEOPLE / 2, "only {known} conversations are there");
    }

    /// Entries of everybody's inbox: each addition to a conversation once.
    fn inboxes_repeat_nothing(&self) {
        for person in &self.people {
            let mut seen = BTreeSet::new();
            let inbox = person.client.timeline_history(TimelineId::Inbox(person.id), 0, u32::MAX).unwrap();
            for (expected, entry) in (1..).zip(inbox) {
                assert_eq!(entry.number, expected, "{}'s inbox has a gap", person.name);
                if let Body::ConversationAdded(added) = &entry.body {
                    let new = seen.insert((added.conversation, added.first));
                    assert!(new, "{} was added twice to {}", person.name, added.conversation);
                }
            }
        }
    }
}

/// The whole of it, with one node or several.
async fn one_history_ends_and_another_begins(mut nodes: Nodes, dir: &Path) {
    let seed = seed("backup");
    let place = nodes.place();
    let mut town = Town::gather(&place, dir).await;
    town.talk(seed);
    town.acked_more(150).await;
    let before = town.acked();
    let (backup, at) = (dir.join("backup"), nodes.admin());
    let making = {
        let (backup, at) = (backup.display().to_string(), at.clone());
        tokio::task::spawn_blocking(move || succeeds_at_last(&["backup", &backup, "--admin", &at]))
    };
    println!("{}", making.await.unwrap());
    // In the lost history: more is said, and somebody comes.
    town.acked_more(100).await;
    let late = Person::new(&place, "late").await;
    let acked = town.acked();
    let dir_of = dir.to_owned();
    let losing = tokio::task::spawn_blocking(move || {
        nodes.lose_and_restore(&backup, &dir_of);
        nodes
    });
    // While nodes are gone people still try to talk: that waits in their devices.
    tokio::time::sleep(Duration::from_millis(200)).await;
    town.hush();
    let nodes = losing.await.unwrap();
    nodes.ready().await;
    town.come_back().await;
    until("nobody knows who came late", PATIENCE, async || late.client.status() == Status::SignedOut).await;
    check(&town, &before, &acked);
    // It goes on: everybody says something everywhere, and everybody has it.
    for (n, rooms) in town.rooms.iter().enumerate() {
        for &room in rooms {
            town.people[n].say(room, &format!("again {n}")).await;
        }
    }
    town.lists_agree().await;
    town.inboxes_repeat_nothing();
    let rooms: BTreeSet<ConversationId> = town.rooms.iter().flatten().copied().collect();
    for room in rooms {
        let members: Vec<usize> = (0..PEOPLE).filter(|n| town.rooms[*n].contains(&room)).collect();
        let head = members.iter().map(|n| town.history(*n, room).len()).max().unwrap() as u64;
        for &n in &members {
            town.people[n].has(room, head, PATIENCE).await;
        }
        let all: Vec<_> = members.iter().map(|n| town.history(*n, room)).collect();
        assert!(all.iter().all(|one| *one == all[0]), "devices differ in {room}");
        assert!(all[0].iter().zip(1..).all(|(entry, number)| entry.number == number), "{room} has gaps");
    }
    // A device that was never there sees the same.
    let new = Person::another(&place, "person3").await;
    for &room in &town.rooms[3] {
        new.has(room, town.history(3, room).len() as u64, PATIENCE).await;
        assert_eq!(new.client.history(room, 0, u32::MAX).unwrap(), town.history(3, room));
    }
    nodes.terminate();
}

/// What was acknowledged before the backup is there; of the rest each text is there once, or its sender is told that it
/// is lost.
fn check(town: &Town, before: &[(String, ConversationId, u64)], acked: &[(String, ConversationId, u64)]) {
    let mut places: BTreeMap<(ConversationId, String), u64> = BTreeMap::new();
    for (n, rooms) in town.rooms.iter().enumerate() {
        for &room in rooms {
            let mut own = BTreeSet::new();
            for (number, text) in town.texts(n, room) {
                assert!(own.insert(text.clone()), "person{n} has {text:?} twice in {room}");
                let place = *places.entry((room, text.clone())).or_insert(number);
                assert_eq!(place, number, "{text:?} stands at two places of {room}");
            }
        }
    }
    for (text, room, number) in before {
        assert_eq!(places.get(&(*room, text.clone())), Some(number), "{text:?} was acknowledged before the backup");
    }
    let mut lost = BTreeSet::new();
    for person in &town.people {
        for (timeline, entry) in person.client.lost().unwrap() {
            let (TimelineId::Conversation(room), Body::Text(text)) = (timeline, entry.body) else {
                panic!("{timeline}")
            };
            assert_eq!(entry.sender, person.id, "{} is told of what others have lost", person.name);
            lost.insert((room, text));
        }
    }
    let mut gone = 0;
    for (text, room, _) in acked {
        let key = (*room, text.clone());
        let (there, told) = (places.contains_key(&key), lost.contains(&key));
        assert!(there != told, "{text:?}: there: {there}, and its sender was told that it is lost: {told}");
        gone += usize::from(told);
    }
    assert!(gone > 20, "only {gone} were ahead of the backup");
    println!("{} acknowledged, {} before the backup, {gone} lost and told", acked.len(), before.len());
}

#[tokio::test]
async fn a_node_is_restored_and_devices_that_were_ahead_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::try_start(Path::new(TEST_NODE), &dir.path().join("data"), &[]).unwrap();
    one_history_ends_and_another_begins(Nodes::One(Some(node), None), dir.path()).await;
}

#[tokio::test]
async fn a_cluster_is_restored_and_devices_that_were_ahead_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(Path::new(TEST_NODE), dir.path(), 3, seed("backup cluster"), |_| None);
    cluster.ready().await;
    one_history_ends_and_another_begins(Nodes::Several(cluster), dir.path()).await;
}

#[tokio::test]
async fn what_is_wrong_is_said_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::try_start(Path::new(TEST_NODE), &dir.path().join("data"), &[]).unwrap();
    let (at, path) = (node.admin.to_string(), |name: &str| dir.path().join(name).display().to_string());
    let backup = path("backup");
    fails(&["backup", &backup, "--admin", "127.0.0.1:1"], "no node answers at 127.0.0.1:1");
    // It was made and is empty: the next one may have it.
    succeeds(&["backup", &backup, "--admin", &at]);
    fails(&["backup", &backup, "--admin", &at], "is not empty");
    fails(&["restore", &path("nothing")], "there is no manifest in it");
    let config = |text: &str| {
        let file = dir.path().join("c.toml");
        std::fs::write(&file, format!("[node]\ndata-dir = {:?}\n{text}", path("new"))).unwrap();
        file.display().to_string()
    };
    fails(&["restore", &backup, "--config", &config("[storage]\nshards = 4\n")], "storage.shards of n1.1 is 4");
    fails(&["restore", &backup, "--config", &config("[cluster]\nnode = \"n2.1\"\n")], "a node that is alone is n1.1");
    fails(&["restore", &backup, "--config", &config(""), "--config", &config("")], "they must be the same");
    fails(&["restore", &backup, "--config", &config(""), "--keys", &path("nowhere")], "is not there");
    let damaged = |name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, why: &str| {
        let file = dir.path().join("backup").join(name);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, change(whole.clone())).unwrap();
        fails(&["restore", &backup, "--config", &config("")], why);
        assert!(!Path::new(&path("new")).exists() && !Path::new(&path("new.restoring")).exists());
        std::fs::write(&file, whole).unwrap();
    };
    let newer = |text: Vec<u8>| String::from_utf8(text).unwrap().replace("backup 1", "backup 2").into_bytes();
    damaged("manifest", &newer, "has format 2");
    damaged("manifest", &|text| text[..text.len() / 2].to_vec(), "manifest is damaged");
    let flipped = |mut bytes: Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    };
    damaged("shard3.snap", &flipped, "shard3.snap");
    damaged("system", &flipped, "system is damaged");
    // And as it was, it is restored.
    succeeds(&["restore", &backup, "--config", &config(""), "--json"]);
    let restored = Process::try_start(Path::new(TEST_NODE), Path::new(&path("new")), &[]).unwrap();
    assert_eq!(restored.terminate(), 0);
    // Nothing is left in the node that runs.
    until("the parts are forgotten", PATIENCE, async || {
        let files = std::fs::read_dir(dir.path().join("data/snapshots")).unwrap();
        files.flatten().all(|file| !file.file_name().to_string_lossy().contains(".cut"))
    })
    .await;
    assert_eq!(node.terminate(), 0);
}
