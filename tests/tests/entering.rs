//! Who may come in: by tokens of the operator's identity service, and by invitation.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{path::PathBuf, time::Duration};

use magpie_client::{Client, Error, ErrorCode, Event, SetPrivacy, UserId, WireError};
use magpie_cluster::EntityId;
use magpie_node::{
    Command, Config, Options,
    account::{self, jwt::IdentityService},
    config::{Auth, Jwt},
    service::{self, invitations::Invitation, state::keys_entity},
};
use magpie_tests::{
    Company, InProcess, Person, Place,
    identity::{Signer, key_set},
    node::test_config,
    people::{PASSWORD, befriend},
    until,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const NOW_S: u64 = 1_800_000_000;

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> WireError {
    match result {
        Err(Error::Refused(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> (ErrorCode, String) {
    let error = refusal(result);
    (error.code, error.field)
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn claims(who: &str, now_s: u64) -> Value {
    json!({ "iss": "https://id.example", "aud": ["shop", "magpie"], "sub": who, "exp": now_s + 300, "iat": now_s })
}

/// The claims with one of them changed; null for none.
fn but(name: &str, value: Value) -> Value {
    let mut claims = claims("ann", NOW_S);
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn jwt(keys: PathBuf) -> Jwt {
    Jwt { keys, issuer: "https://id.example".into(), audience: "magpie".into(), ..Jwt::default() }
}

fn service(dir: &tempfile::TempDir, keys: &[Value]) -> Result<IdentityService, String> {
    let path = dir.path().join("keys.json");
    std::fs::write(&path, key_set(keys)).unwrap();
    IdentityService::open(&jwt(path))
}

#[test]
fn a_token_is_taken_only_as_the_service_made_it() {
    let dir = tempfile::tempdir().unwrap();
    let (signer, other, forger) = (Signer::ed25519("a"), Signer::p256("b"), Signer::ed25519("a"));
    let service = service(&dir, &[signer.public(), other.public()]).unwrap();
    let check = |token: &str| service.check(token, NOW_S * 1000).map_err(|error| (error.code, error.field));
    let wrong = |field: &str| Err((ErrorCode::BadCredentials, field.to_owned()));
    let good = claims("ann", NOW_S);
    for signer in [&signer, &other] {
        assert_eq!(check(&signer.token(&good)), Ok("ann".to_owned()));
    }
    assert_eq!(check(&forger.token(&good)), wrong("token"), "signed by somebody else under the same id");
    assert_eq!(check(&signer.token(&but("iss", json!("https://else.example")))), wrong("token.iss"));
    assert_eq!(check(&signer.token(&but("aud", json!("shop")))), wrong("token.aud"));
    assert_eq!(check(&signer.token(&but("sub", Value::Null))), wrong("token"));
    assert_eq!(check(&signer.token(&but("sub", json!(7)))), wrong("token"));
    for claim in ["exp", "iss", "aud"] {
        assert!(check(&signer.token(&but(claim, Value::Null))).is_err(), "without {claim}");
        assert!(check(&signer.token(&but(claim, json!({ "a": 1 })))).is_err(), "{claim} of a form of its own");
    }
    assert_eq!(check(&signer.token(&but("exp", json!(NOW_S - 31)))), wrong("token.exp"));
    assert_eq!(check(&signer.token(&but("exp", json!(NOW_S - 29)))), Ok("ann".to_owned()), "clocks differ a little");
    assert_eq!(check(&signer.token(&but("nbf", json!(NOW_S + 31)))), wrong("token.nbf"));
    // The token does not choose how it is checked.
    for head in [
        json!({ "alg": "none" }),
        json!({ "alg": "none", "kid": "a" }),
        json!({ "alg": "HS256", "kid": "a" }),
        json!({ "alg": "ES256", "kid": "a" }),
        json!({ "alg": "EdDSA", "kid": "c" }),
        json!({ "alg": "EdDSA", "kid": "b" }),
    ] {
        let said = check(&signer.token_as(&head, &good));
        assert!(matches!(&said, Err((ErrorCode::BadCredentials, _))), "{head}: {said:?}");
    }
    assert_eq!(check(&signer.token_as(&json!({ "alg": "EdDSA" }), &good)), Ok("ann".to_owned()), "which key is found");
    let token = signer.token(&good);
    for at in 0..token.len() {
        let mut broken = token.clone().into_bytes();
        broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
        let said = check(&String::from_utf8(broken).unwrap());
        // The last letter of base64 has bits that say nothing.
        assert!(said.is_err() || at == token.len() - 1, "byte {at} changed: {said:?}");
    }
    for text in ["", ".", "..", "a.b.c", "\u{0}", "eyJhbGciOiJFZERTQSJ9..", &"x".repeat(8192)] {
        assert!(check(text).is_err(), "{text:?}");
    }
}

#[test]
fn rsa_keys_verify_what_they_are_for() {
    let dir = tempfile::tempdir().unwrap();
    let made: Value = serde_json::from_str(include_str!("../golden/rsa-tokens.json")).unwrap();
    let service = service(&dir, made["keys"].as_array().unwrap()).unwrap();
    for algorithm in ["RS256", "PS256"] {
        let token = made["tokens"][algorithm].as_str().unwrap();
        assert_eq!(service.check(token, NOW_S * 1000).unwrap(), "rsa-person", "{algorithm}");
    }
}

#[test]
fn a_set_of_keys_that_would_let_strangers_in_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = Signer::ed25519("a").public();
    let refused = |keys: &[Value], says: &str| {
        let why = service(&dir, keys).err().unwrap();
        assert!(why.contains(says) && why.contains("keys.json"), "{why}");
    };
    refused(&[], "0 keys");
    refused(&[json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0" })], "key s: only EdDSA");
    refused(&[good.clone(), good.clone()], "same kid");
    refused(&[json!({ "kty": "EC", "crv": "P-384", "kid": "p", "x": "AA", "y": "AA" })], "key p");
    refused(&vec![good.clone(); 17], "17 keys");
    assert!(service(&dir, std::slice::from_ref(&good)).is_ok());
    std::fs::write(dir.path().join("keys.json"), "{").unwrap();
    let config = jwt(dir.path().join("keys.json"));
    assert!(IdentityService::open(&config).err().unwrap().contains("no JSON Web Key Set"));
    let nowhere = Jwt { keys: dir.path().join("none"), ..config.clone() };
    assert!(IdentityService::open(&nowhere).err().unwrap().contains("none"));
    let whoever = Jwt { audience: String::new(), ..config };
    assert!(IdentityService::open(&whoever).err().unwrap().contains("jwt.audience is empty"));
}

#[test]
fn keys_are_exchanged_while_the_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let service = service(&dir, &[old.public()]).unwrap();
    let mut now_ms = NOW_S * 1000;
    let mut takes = |signer: &Signer, file: Option<String>| {
        if let Some(text) = file {
            // Times of files are coarse.
            std::thread::sleep(Duration::from_millis(20));
            std::fs::write(dir.path().join("keys.json"), text).unwrap();
        }
        now_ms += 1_000;
        service.check(&signer.token(&claims("ann", NOW_S)), now_ms).is_ok()
    };
    assert!(takes(&old, None) && !takes(&new, None));
    assert!(takes(&new, Some(key_set(&[old.public(), new.public()]))) && takes(&old, None), "both hold for a while");
    assert!(takes(&new, Some("{ half a fi".into())), "what cannot be read replaces nothing");
    assert!(!takes(&old, Some(key_set(&[new.public()]))) && takes(&new, None), "the old one is void");
}

async fn by_token(company: &Company, token: &str) -> Result<Person, Error> {
    Person::by(&company.place, async |client: &Client| client.sign_in_by_token(token).await).await
}

#[tokio::test]
async fn people_come_in_by_the_identity_service_and_no_other_way() {
    let keys = tempfile::tempdir().unwrap();
    let (signer, path) = (Signer::ed25519("a"), keys.path().join("keys.json"));
    std::fs::write(&path, key_set(&[signer.public()])).unwrap();
    let company = Company::new(&[], |config| (config.accounts.auth, config.jwt) = (Auth::Jwt, jwt(path))).await;
    let token = |who: &str| signer.token(&claims(who, now_s()));
    let ann = by_token(&company, &token("Ann")).await.unwrap();
    let ben = by_token(&company, &token("ben")).await.unwrap();
    let tablet = by_token(&company, &token("ann")).await.unwrap();
    assert_eq!((ann.name.as_str(), tablet.id), ("Ann", ann.id), "the second device is the same person's");
    let talk = befriend(&ann, &ben).await;
    let number = ben.say(talk, "hello").await;
    tablet.has(talk, number, SOON).await;
    // Nobody else comes in, and no account is made.
    let forged = Signer::ed25519("a").token(&claims("eve", now_s()));
    assert_eq!(code(by_token(&company, &forged).await.map(drop)), (ErrorCode::BadCredentials, "token".into()));
    assert_eq!(code(by_token(&company, &"x".repeat(9_000)).await.map(drop)).0, ErrorCode::TooLarge);
    assert_eq!(
        code(by_token(&company, &token("no handle at all")).await.map(drop)),
        (ErrorCode::Invalid, "handle".into())
    );
    let by_password = Person::by(&company.place, async |client: &Client| client.sign_up("eve", PASSWORD).await).await;
    assert_eq!(code(by_password.map(drop)), (ErrorCode::NotAllowed, "password".into()));
    let by_password = Person::by(&company.place, async |client: &Client| client.sign_in("ann", "").await).await;
    assert_eq!(code(by_password.map(drop)), (ErrorCode::NotAllowed, "password".into()));
    assert_eq!(code(ann.client.find("eve").await).0, ErrorCode::NotFound);
    assert_eq!(code(ann.client.change_password("", PASSWORD).await), (ErrorCode::NotAllowed, "password".into()));
    // An account ends by a fresh token of its own, and by nobody else's.
    assert_eq!(code(ann.client.close_account(&token("ben")).await).0, ErrorCode::BadCredentials);
    assert_eq!(code(ann.client.close_account(PASSWORD).await).0, ErrorCode::BadCredentials);
    ann.client.close_account(&token("ann")).await.unwrap();
    until("all devices are out", SOON, async || {
        tablet.seen().events.iter().any(|event| *event == format!("{:?}", Event::SignedOut))
    })
    .await;
    let back = by_token(&company, &token("ann")).await.unwrap();
    assert_eq!((back.id, back.client.account().await.unwrap().closing_ms), (ann.id, 0), "a sign-in keeps it");
    company.node.stop();
}

#[tokio::test]
async fn who_had_a_password_and_is_not_found_by_handle_comes_in_by_token() {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(test_config(dir.path()), Options::default());
    let ann = Person::new(&Place::new(node.address, node.ca.clone()), "ann").await;
    let hide = SetPrivacy { by_phone: None, by_handle: Some(false), show_typing: None, show_online: None };
    ann.client.set_privacy(hide).await.unwrap();
    node.stop();
    let (signer, path) = (Signer::ed25519("a"), dir.path().join("keys.json"));
    std::fs::write(&path, key_set(&[signer.public()])).unwrap();
    let mut config = test_config(dir.path());
    (config.accounts.auth, config.jwt) = (Auth::Jwt, jwt(path));
    let node = InProcess::start(config, Options::default());
    let place = Place::new(node.address, node.ca.clone());
    let token = signer.token(&claims("ann", now_s()));
    let back = Person::by(&place, async |client: &Client| client.sign_in_by_token(&token).await).await.unwrap();
    assert_eq!(back.id, ann.id);
    node.stop();
}

#[tokio::test]
async fn where_passwords_count_tokens_do_not() {
    let company = Company::new(&["ann"], |_| {}).await;
    let token = Signer::ed25519("a").token(&claims("ann", now_s()));
    assert_eq!(code(by_token(&company, &token).await.map(drop)), (ErrorCode::NotAllowed, "token".into()));
    company.node.stop();
}

#[test]
fn a_node_without_its_keys_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = test_config(dir.path());
    config.accounts.auth = Auth::Jwt;
    let why = InProcess::try_start(config, Options::default()).err().unwrap();
    assert!(why.contains("jwt.issuer is empty"), "{why}");
}

async fn invite(company: &Company, code: &str, uses: u32, for_ms: u64) {
    let created_ms = now_s() * 1000;
    let expires_ms = if for_ms == 0 { 0 } else { created_ms + for_ms };
    let invitation = Invitation { code: code.into(), note: String::new(), uses, expires_ms, created_ms };
    ask(company, service::Command::AddInvitation(invitation)).await.unwrap();
}

async fn ask(company: &Company, command: service::Command) -> magpie_node::machine::Replied {
    company.node.router.ask(keys_entity(), Command::Service(command)).await.unwrap()
}

async fn comes(company: &Company, handle: &str, invitation: &str) -> Result<Person, Error> {
    Person::by(&company.place, async |client: &Client| client.sign_up_invited(handle, PASSWORD, invitation).await).await
}

fn by_invitation(config: &mut Config) {
    config.accounts.invitations = true;
}

#[tokio::test]
async fn new_people_come_by_invitation_and_use_it_up() {
    let company = Company::new(&[], by_invitation).await;
    let bare = Person::by(&company.place, async |client: &Client| client.sign_up("eve", PASSWORD).await).await;
    assert_eq!(code(bare.map(drop)), (ErrorCode::NotAllowed, "invitation".into()));
    let refused = |result: Result<Person, Error>| {
        let (code, field) = code(result.map(drop));
        assert_eq!(field, "invitation");
        code
    };
    assert_eq!(refused(comes(&company, "eve", "guess").await), ErrorCode::NotFound);
    assert_eq!(refused(comes(&company, "eve", &"x".repeat(65)).await), ErrorCode::NotFound);
    invite(&company, "for-two", 2, 0).await;
    let ann = comes(&company, "ann", "for-two").await.unwrap();
    // A handle that is taken uses nothing up.
    assert_eq!(code(comes(&company, "ANN", "for-two").await.map(drop)).0, ErrorCode::HandleTaken);
    let ben = comes(&company, "ben", "for-two").await.unwrap();
    assert_eq!(refused(comes(&company, "eve", "for-two").await), ErrorCode::LimitReached);
    assert_eq!(code(ann.client.find("eve").await).0, ErrorCode::NotFound, "and no account was made");
    // Who is here comes in without one.
    Person::another(&company.place, "ben").await;
    befriend(&ann, &ben).await;
    invite(&company, "short", 5, 1_500).await;
    comes(&company, "cat", "short").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_600)).await;
    assert_eq!(refused(comes(&company, "dan", "short").await), ErrorCode::TooLate);
    invite(&company, "void", 5, 0).await;
    ask(&company, service::Command::RevokeInvitation { code: "void".into() }).await.unwrap();
    assert_eq!(refused(comes(&company, "dan", "void").await), ErrorCode::NotFound);
    company.node.stop();
}

#[tokio::test]
async fn a_retry_of_a_sign_up_uses_an_invitation_once() {
    let company = Company::new(&[], by_invitation).await;
    invite(&company, "two", 2, 0).await;
    let take = |handle: &str| {
        let (code, handle) = ("two".into(), handle.into());
        service::Command::UseInvitation { code, handle, user: UserId::from_bits(rand::random()) }
    };
    for _ in 0..3 {
        ask(&company, take("ann")).await.unwrap();
    }
    ask(&company, take("ben")).await.unwrap();
    assert_eq!(ask(&company, take("cat")).await.unwrap_err().code, ErrorCode::LimitReached);
    let many = (0..1_000).map(|n| {
        let invitation =
            Invitation { code: format!("c{n}"), note: String::new(), uses: 1, expires_ms: 0, created_ms: 0 };
        ask(&company, service::Command::AddInvitation(invitation))
    });
    let mut last = Ok(magpie_node::Outcome::Done);
    for one in many {
        last = one.await;
    }
    assert_eq!(last.unwrap_err().code, ErrorCode::LimitReached, "they are bounded");
    company.node.stop();
}

#[tokio::test]
async fn where_nobody_must_be_invited_nothing_is_used_up() {
    let company = Company::new(&[], |_| {}).await;
    comes(&company, "ann", "anything").await.unwrap();
    let there = EntityId::handle(account::state::slot_of("ann"));
    let tried = company.node.router.ask(there, Command::Account(account::Command::CountTry { handle: "ann".into() }));
    assert!(matches!(tried.await.unwrap(), Ok(magpie_node::Outcome::Try(Some(_)))));
    company.node.stop();
}
