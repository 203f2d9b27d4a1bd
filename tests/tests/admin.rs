//! The admin HTTP: who may do what, what it does, and whether it is as its document says.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use magpie_client::{Body, TimelineId};
use magpie_node::admin::{Needs, ROUTES};
use magpie_tests::{Person, Place, Process, http, people::befriend, until};
use serde_json::{Value, json};

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
const SOON: Duration = Duration::from_secs(20);
const TOKEN: &str = "the operator";

fn start(dir: &Path) -> (Process, Place) {
    let node = Process::try_start(Path::new(TEST_NODE), dir, &[("MAGPIE_ADMIN_TOKEN", TOKEN)]).unwrap();
    let place = Place::new(node.address, node.ca());
    (node, place)
}

fn ask(admin: SocketAddr, method: &str, path: &str, token: &str, body: Value) -> (u16, Value) {
    let headers = [("idempotency-key", "once")];
    let (status, text) = http::ask(admin, method, path, Some(token), &headers, &body).unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn operator(admin: SocketAddr, method: &str, path: &str, body: Value) -> (u16, Value) {
    ask(admin, method, path, TOKEN, body)
}

/// Makes a key; returns its id and itself.
fn key(admin: SocketAddr, name: &str, scopes: &[&str], handle: Option<&str>) -> (String, String) {
    let body = json!({ "name": name, "scopes": scopes, "handle": handle });
    let (status, made) = operator(admin, "POST", "/api/v1/keys", body);
    assert_eq!(status, 201, "{made}");
    (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
}

/// A path and a body that would be right.
fn example(method: &str, path: &str) -> (String, Value) {
    let path = path
        .replace("{user}", "u0000000000000001")
        .replace("{conversation}", &format!("c{:032x}", 1))
        .replace("{key}", "0000000000000001")
        .replace("{code}", "welcome")
        .replace("{receiver}", "push");
    let body = match path.rsplit('/').next().unwrap() {
        "expect" => json!({ "node": "n9.1", "address": "127.0.0.1:1" }),
        "stand" => json!({ "node": "n9.1", "standing": "active" }),
        "move" => json!({ "shard": "s0", "to": ["n1.1"] }),
        "lead" => json!({ "shard": "s0", "to": "n1.1" }),
        "balance" => json!({ "go": false }),
        "replicas" => json!({ "replicas": 1 }),
        "end" => json!({ "cut": 1, "cluster": "0", "epoch": 1, "parts": [] }),
        "sign-out" => json!({}),
        "notice" | "notices" => json!({ "text": "hello" }),
        "keys" => json!({ "name": "k", "scopes": [] }),
        "invitations" => json!({ "code": "welcome" }),
        "log" => json!({ "level": "info" }),
        "messages" => json!({ "user": "u0000000000000001", "text": "hello" }),
        _ => json!({}),
    };
    let path = match path.as_str() {
        "/api/v1/users" => path + "?handle=somebody",
        "/api/v1/backup/part" => path + "?shard=s0&node=n1.1&cut=1&offset=0&len=1",
        _ => path,
    };
    (path, if method == "get" { Value::Null } else { body })
}

#[tokio::test]
async fn nobody_does_what_they_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _place) = start(&dir.path().join("data"));
    let document: Value = serde_json::from_str(&http::get(node.admin, "/openapi.json").unwrap().1).unwrap();
    let scopes = ["send", "users:read", "users:write", "conversations:read", "conversations:write", "hooks:read"];
    let keys: Vec<(&str, String)> = scopes
        .iter()
        .map(|scope| (*scope, key(node.admin, scope, &[scope], (*scope == "send").then_some("bot")).1))
        .collect();
    let audit = || std::fs::read_to_string(node.dir.join("audit.jsonl")).unwrap_or_default().lines().count();
    let before = audit();
    let mut tried = 0;
    for (method, path, open) in ROUTES {
        if *open == Needs::Nothing {
            assert!(["/healthz", "/readyz", "/openapi.json"].contains(path));
            continue;
        }
        let needs = document["paths"][path][method]["description"].as_str().unwrap_or_default();
        let bare = *path;
        let (path, body) = example(method, path);
        let method = method.to_uppercase();
        // Who may not is told so before anything else is looked at.
        let malformed = |token| http::ask(node.admin, &method, bare, token, &[], &json!(["what is this?"])).unwrap().0;
        let ask = |token: Option<&str>| {
            http::ask(node.admin, &method, &path, token, &[("idempotency-key", "x")], &body).unwrap()
        };
        for token in [None, Some("wrong"), Some(""), Some("mk_0000000000000001_00000000000000000000000000000002")] {
            assert_eq!(ask(token).0, 401, "{method} {path} with {token:?}");
            assert_eq!(malformed(token), 401, "{method} {bare}, malformed, with {token:?}");
        }
        for (scope, key) in &keys {
            let may = needs.contains(&format!("`{scope}`"));
            let (status, said) = ask(Some(key));
            if may {
                assert!(![401, 403].contains(&status), "{method} {path} with {scope}: {status} {said}");
            } else {
                assert!([401, 403].contains(&status), "{method} {path} with {scope}: {status} {said}");
                assert!([401, 403].contains(&malformed(Some(key))), "{method} {bare}, malformed, with {scope}");
            }
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
    // Keys did eight things that they may: what was refused is in no trail, for it did not happen.
    let done = audit() - before;
    assert!((1..=12).contains(&done), "{done} changes are in the trail");
    node.terminate();
}

#[tokio::test]
async fn invitations_are_given_out_listed_and_made_void() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _place) = start(&dir.path().join("data"));
    let path = "/api/v1/invitations";
    let make = |body: Value| operator(node.admin, "POST", path, body);
    let (status, made) = make(json!({ "uses": 3, "days": 7, "note": "for the choir" }));
    assert_eq!((status, &made["uses"], &made["used"]), (201, &json!(3), &json!(0)), "{made}");
    let code = made["code"].as_str().unwrap().to_owned();
    assert_eq!(code.len(), 12, "{code}");
    assert_eq!(make(json!({ "code": code })).0, 409, "there is one");
    for wrong in [
        json!({ "uses": 0 }),
        json!({ "uses": 1001 }),
        json!({ "days": 0 }),
        json!({ "code": "a b" }),
        json!({ "code": "" }),
    ] {
        assert_eq!(make(wrong.clone()).0, 400, "{wrong}");
    }
    let all = || operator(node.admin, "GET", path, Value::Null).1["invitations"].clone();
    assert_eq!(all(), json!([made]));
    let void = || operator(node.admin, "DELETE", &format!("{path}/{code}"), Value::Null).0;
    assert_eq!((void(), void(), all()), (200, 404, json!([])));
    node.terminate();
}

#[tokio::test]
async fn people_are_looked_up_locked_signed_out_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let (node, place) = start(&dir.path().join("data"));
    let admin = node.admin;
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let direct = befriend(&ann, &ben).await;
    let (status, found) = operator(admin, "GET", "/api/v1/users?handle=BEN", Value::Null);
    assert_eq!((status, &found["user"], &found["handle"]), (200, &json!(ben.id.to_string()), &json!("ben")));
    assert_eq!(found["conversations"], json!([direct.to_string()]));
    assert_eq!(found["disabled_since_ms"], Value::Null);
    let device = found["devices"][0]["device"].as_str().unwrap().to_owned();
    assert_eq!(operator(admin, "GET", "/api/v1/users?handle=nobody", Value::Null).0, 404);
    let path = |act: &str| format!("/api/v1/users/{}{act}", ben.id);
    // A notice, once for its id.
    for _ in 0..2 {
        let said = operator(admin, "POST", &path("/notice"), json!({ "text": "we move on Sunday", "id": "move" }));
        assert_eq!(said.0, 200, "{said:?}");
    }
    assert_eq!(operator(admin, "POST", &path("/notice"), json!({ "text": "another", "id": "move" })).0, 409);
    let notices = || {
        let seen = ben.seen();
        let inbox = seen.entries.get(&TimelineId::Inbox(ben.id)).cloned().unwrap_or_default();
        inbox
            .into_iter()
            .filter(|entry| matches!(&entry.body, Body::Notice(text) if text == "we move on Sunday"))
            .count()
    };
    until("the notice is there", SOON, async || notices() > 0).await;
    assert_eq!(notices(), 1);
    // One device, and then all.
    assert_eq!(operator(admin, "POST", &path("/sign-out"), json!({ "device": "d0000000000000001" })).0, 404);
    assert_eq!(operator(admin, "POST", &path("/sign-out"), json!({ "device": device })).0, 200);
    let sessions = || operator(admin, "GET", "/api/v1/status", Value::Null).1["sessions"].as_u64().unwrap();
    until("ben's device is out", SOON, async || sessions() == 1).await;
    let ben = Person::another(&place, "ben").await;
    assert_eq!(operator(admin, "POST", &path("/disable"), json!({})).0, 200);
    until("a locked account has no session", SOON, async || sessions() == 1).await;
    let (client, _events) = magpie_client::Client::open(
        &place.network,
        magpie_client::Config::new(place.server),
        magpie_client::StorePlace::Memory,
    )
    .unwrap();
    let refused = client.sign_in("ben", magpie_tests::people::PASSWORD).await.unwrap_err().to_string();
    assert!(refused.contains("locked"), "{refused}");
    assert!(operator(admin, "GET", &path(""), Value::Null).1["disabled_since_ms"].is_u64());
    assert_eq!(operator(admin, "POST", &path("/enable"), json!({})).0, 200);
    let back = Person::another(&place, "ben").await;
    let number = ann.say(direct, "there you are").await;
    back.has(direct, number, SOON).await;
    drop(ben);
    // A group ends.
    let group = ann.client.create_group("team", vec![back.id]).await.unwrap();
    let of = format!("/api/v1/conversations/{group}");
    until("both are in it", SOON, async || {
        operator(admin, "GET", &of, Value::Null).1["members"].as_array().is_some_and(|members| members.len() == 2)
    })
    .await;
    assert_eq!(operator(admin, "POST", &format!("{of}/dissolve"), json!({})).0, 200);
    assert_eq!(operator(admin, "GET", &of, Value::Null).1["dissolved"], true);
    assert!(ann.client.say(group, "anybody?").unwrap().posted().await.is_err(), "nobody writes in what was dissolved");
    assert_eq!(operator(admin, "POST", &format!("/api/v1/conversations/{direct}/dissolve"), json!({})).0, 400);
    let trail = std::fs::read_to_string(node.dir.join("audit.jsonl")).unwrap();
    for action in ["notice", "sign-out", "disable", "enable", "dissolve"] {
        assert!(trail.contains(&format!("\"action\":\"{action}\"")), "{action} is not in the trail:\n{trail}");
    }
    assert!(!trail.contains("we move on Sunday"), "the trail is no place for what was said");
    node.terminate();
}

#[tokio::test]
async fn a_notice_to_everybody_comes_once_to_each_also_when_the_node_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (node, place) = start(&data);
    let mut people = Vec::new();
    for name in ["ann", "ben", "cat"] {
        people.push(Person::new(&place, name).await.id);
    }
    let path = "/api/v1/notices";
    let say = |admin, text: &str| operator(admin, "POST", path, json!({ "text": text, "id": "move" }));
    let (status, begun) = say(node.admin, "we move on Sunday");
    assert_eq!(status, 202, "{begun}");
    let node = node.kill_and_restart().unwrap();
    let (admin, place) = (node.admin, Place::new(node.address, node.ca()));
    until("all have it", SOON, async || operator(admin, "GET", path, Value::Null).1["notices"][0]["done_ms"].is_u64())
        .await;
    // Asked again it is the same, and nothing else.
    assert_eq!((say(admin, "we move on Sunday").0, say(admin, "we do not").0), (202, 409));
    assert_eq!((say(admin, "").0, say(admin, &"x".repeat(5_000)).0), (400, 400));
    let listed = operator(admin, "GET", path, Value::Null).1;
    assert_eq!((&listed["notices"][0]["id"], &listed["notices"][0]["told"]), (&begun["id"], &json!(3)), "{listed}");
    for (name, id) in ["ann", "ben", "cat"].iter().zip(people) {
        let person = Person::another(&place, name).await;
        let told = || {
            let seen = person.seen();
            let inbox = seen.entries.get(&TimelineId::Inbox(id)).cloned().unwrap_or_default();
            inbox
                .iter()
                .filter(|entry| matches!(&entry.body, Body::Notice(text) if text == "we move on Sunday"))
                .count()
        };
        until("the notice is there", SOON, async || told() > 0).await;
        assert_eq!(told(), 1, "{name}");
    }
    let trail = std::fs::read_to_string(node.dir.join("audit.jsonl")).unwrap();
    assert!(trail.contains("notice-all") && !trail.contains("Sunday"), "{trail}");
    node.terminate();
}

#[tokio::test]
async fn a_service_says_each_thing_once_and_no_longer_than_its_key_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (node, place) = start(&dir.path().join("data"));
    let admin = node.admin;
    let ben = Person::new(&place, "ben").await;
    let (id, key) = key(admin, "orders", &["send"], Some("shop"));
    let say = |text: &str, once: &str| {
        let body = json!({ "user": ben.id.to_string(), "text": text });
        let (status, text) =
            http::ask(admin, "POST", "/v1/messages", Some(&key), &[("idempotency-key", once)], &body).unwrap();
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    let (status, first) = say("your parcel is on its way", "parcel-1");
    assert_eq!(status, 201, "{first}");
    assert_eq!(say("your parcel is on its way", "parcel-1"), (201, first.clone()), "the same one is the same message");
    assert_eq!(say("something else", "parcel-1").0, 409);
    let second = say("it is there", "parcel-2");
    let conversation = first["conversation"].as_str().unwrap().parse().unwrap();
    ben.has(conversation, second.1["number"].as_u64().unwrap(), SOON).await;
    assert_eq!(ben.texts(conversation), ["your parcel is on its way", "it is there"]);
    assert_eq!(operator(admin, "POST", "/v1/messages", json!({ "user": ben.id.to_string(), "text": "x" })).0, 400);
    let nobody = ask(admin, "POST", "/v1/messages", &key, json!({ "user": "u0000000000000001", "text": "x" }));
    assert_eq!(nobody.0, 404, "{nobody:?}");
    let strangers = json!({ "conversation": format!("c{:032x}", 7), "text": "x" });
    assert_eq!(ask(admin, "POST", "/v1/messages", &key, strangers).0, 404);
    let list = operator(admin, "GET", "/api/v1/keys", Value::Null).1;
    assert_eq!(list["keys"][0]["name"], "orders");
    assert!(!list.to_string().contains(&key), "a secret is shown once");
    assert_eq!(operator(admin, "DELETE", &format!("/api/v1/keys/{id}"), Value::Null).0, 200);
    assert_eq!(say("too late", "parcel-3").0, 401);
    // The same account has another key: nothing is lost with the first.
    let (_, again) = crate::key(admin, "orders again", &["send"], Some("shop"));
    let body = json!({ "conversation": first["conversation"], "text": "hello again" });
    let (status, said) = ask(admin, "POST", "/v1/messages", &again, body);
    assert_eq!((status, &said["conversation"]), (201, &first["conversation"]));
    // Somebody else's account is nobody's service.
    let taken = json!({ "name": "thief", "scopes": ["send"], "handle": "ben" });
    assert_eq!(operator(admin, "POST", "/api/v1/keys", taken).0, 409);
    node.terminate();
}

#[tokio::test]
async fn the_command_line_shows_tables_and_json_and_the_log_changes_its_level() {
    let dir = tempfile::tempdir().unwrap();
    let (node, place) = start(&dir.path().join("data"));
    let ann = Person::new(&place, "ann").await;
    let run = |arguments: &[&str]| {
        let admin = node.admin.to_string();
        let out = Command::new(TEST_NODE)
            .args(["admin", "--admin", &admin, "--admin-token", TOKEN])
            .args(arguments)
            .output()
            .unwrap();
        (out.status.success(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (ok, table, _) = run(&["users", "show", "ann"]);
    assert!(ok && table.contains(&format!("user           {}", ann.id)), "{table}");
    let (ok, text, _) = run(&["users", "show", &ann.id.to_string(), "--json"]);
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert!(ok && shown["handle"] == "ann", "{text}");
    let (ok, _, why) = run(&["users", "show", "nobody"]);
    assert!(!ok && why.contains("there is no such person"), "{why}");
    assert!(run(&["users", "notice", "ann", "hello"]).0);
    let (ok, begun, why) = run(&["notices", "send", "hello to all of you", "--id", "all"]);
    assert!(ok && begun.contains("is on its way"), "{begun} {why}");
    until("it is everywhere", SOON, async || run(&["notices", "list"]).1.contains(" UTC  1")).await;
    let (ok, made, why) = run(&["keys", "create", "k", "--scopes", "users:read,hooks:read"]);
    assert!(ok && made.contains("mk_"), "{made} {why}");
    assert!(run(&["keys", "list"]).1.contains("hooks:read,users:read"));
    assert!(run(&["hooks", "list"]).1.starts_with("RECEIVER"));
    assert!(!run(&["hooks", "retry", "push"]).0, "none is configured");
    let lines = || node.errors().lines().filter(|line| line.contains("DEBUG")).count();
    assert_eq!(lines(), 0);
    assert!(!run(&["log", "set", "loud"]).0);
    assert!(run(&["log", "set", "debug"]).0);
    assert_eq!(run(&["log", "level"]).1.trim(), "debug");
    until("more is shown", SOON, async || {
        ann.client.drop_connection();
        tokio::time::sleep(Duration::from_millis(50)).await;
        lines() > 0
    })
    .await;
    assert!(run(&["log", "set", "info"]).0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = lines();
    ann.client.drop_connection();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(lines(), before, "and then less");
    node.terminate();
}

/// Schemathesis in a folder of its own; why it cannot be had, where it cannot.
fn schemathesis(dir: &Path) -> Result<std::path::PathBuf, String> {
    if let Ok(path) = std::env::var("MAGPIE_SCHEMATHESIS") {
        return Ok(path.into());
    }
    let run = |command: &mut Command| match command.output() {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or("it failed").to_owned()),
        Err(error) => Err(error.to_string()),
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    run(Command::new(dir.join("bin/pip")).args(["install", "--quiet", "schemathesis==4.32.5"]))?;
    Ok(dir.join("bin/schemathesis"))
}

#[tokio::test]
async fn what_the_document_says_holds() {
    let dir = tempfile::tempdir().unwrap();
    let program = match schemathesis(&dir.path().join("venv")) {
        Ok(program) => program,
        Err(why) => {
            println!("SKIPPED: schemathesis cannot be installed: {why}");
            assert!(std::env::var_os("CI").is_none(), "in CI it must run: {why}");
            return;
        }
    };
    let (node, place) = start(&dir.path().join("data"));
    let _ann = Person::new(&place, "ann").await;
    // What it found before is not kept: a run says what holds now.
    let tried = Command::new(program)
        .current_dir(dir.path())
        .args(["run", &format!("http://{}/openapi.json", node.admin)])
        .args(["--url", &format!("http://{}", node.admin)])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        // Those would take the node itself away from under the test.
        .args(["--exclude-path-regex", "/api/v1/cluster/(stand|move|lead|replicas)"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "30", "--seed", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tried.stdout);
    println!("{said}");
    assert!(tried.status.success(), "{said}\n{}", String::from_utf8_lossy(&tried.stderr));
    assert_eq!(http::get(node.admin, "/healthz").unwrap().0, 200, "the node has survived it");
    node.terminate();
}
