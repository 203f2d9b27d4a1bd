//! What the cluster knows of itself, and what nodes ask, answer and tell.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use magpie_protocol::{DeviceId, NodeId, ShardId, Slot, TimelineId, UserId, frame::sync::EntryBytes};

use super::{
    ALICE, BOB,
    file::{Golden, every},
};
use crate::{
    AskError, Hint, Origin, RightsChange,
    consensus::Reshaping,
    machine::EntityId,
    remote::{Message, Request, Response},
    shard::audit::Audited,
    system::{
        Change, DiskId, Member, Place, Refusal, Registration, Standing, System,
        placement::Step,
        pulse::{Facts, Held},
    },
};

const SHARD: ShardId = ShardId::new(5);

fn address() -> std::net::SocketAddr {
    ([10, 0, 0, 1], 4434).into()
}

fn registration() -> Registration {
    Registration { address: address(), zone: "a".into(), level: 1, devices: Some(([10, 0, 0, 1], 4433).into()) }
}

fn system() -> System {
    let mut system = System::found(7, BTreeMap::from([(ALICE, address())]), 2);
    let member = Member {
        address: "[fd00::1]:4434".parse().unwrap(),
        zone: "b".into(),
        standing: Standing::Draining,
        disk: Some(DiskId(0x0102_0304)),
        token: Some([7; 32]),
        level: 1,
        devices: None,
    };
    system.nodes.insert(BOB, member);
    system.shards.push(Place { replicas: [ALICE].into(), becoming: Some([ALICE, BOB].into()) });
    system
}

fn changes() -> Vec<Change> {
    let both: BTreeSet<NodeId> = [ALICE, BOB].into();
    vec![
        Change::Found(system()),
        Change::Expect { node: BOB, address: address(), token: [9; 32] },
        Change::Register { node: BOB, disk: DiskId(5), token: Some([9; 32]), facts: registration() },
        Change::Move { shard: SHARD, to: both.clone() },
        Change::Moved { shard: SHARD, replicas: both },
        Change::Stand { node: BOB, standing: Standing::Removed },
        Change::Raise { level: 2 },
        Change::Want { replicas: 3 },
    ]
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::NotFounded,
        Refusal::Unknown(BOB),
        Refusal::Taken(BOB),
        Refusal::OtherDisk(BOB),
        Refusal::WrongToken(BOB),
        Refusal::Removed(BOB),
        Refusal::StillHolds(BOB, 3),
        Refusal::Last(BOB),
        Refusal::NoShard(SHARD),
        Refusal::Moving(SHARD),
        Refusal::NotActive { node: BOB, shard: SHARD },
        Refusal::TooOld { can: 1, at: 2 },
        Refusal::NotYet(BOB, 1),
        Refusal::Even(2),
        Refusal::TooFew(3, 2),
        Refusal::NoNode(BOB),
        Refusal::AddressTaken(address(), BOB),
        Refusal::NoAddress(address()),
    ]
}

fn facts() -> Facts {
    let held = Held { shard: SHARD, leads: true, applied: 9, audited: Some(Audited { index: 8, sum: 7 }) };
    let shards = vec![held, Held { audited: None, ..held }];
    Facts { clock_ms: 1_700_000_000_000, level: 1, astray: false, full: true, sessions: 3, free_bytes: 4, shards }
}

fn hint() -> Hint {
    let user = UserId::in_slot(Slot::new(3), 4);
    Hint {
        timeline: TimelineId::Inbox(user),
        number: 5,
        rights_before: 2,
        change: Some(RightsChange { user, granted: true }),
        origin: Some(Origin { device: DeviceId::from_bits(6), epoch: 7 }),
        entry: EntryBytes(Bytes::from_static(b"entry")),
    }
}

fn requests() -> Vec<Request<String, String>> {
    let entity = EntityId::new(2, 0x0123_4567_89ab_cdef);
    let timelines = vec![TimelineId::Inbox(UserId::in_slot(Slot::new(3), 4))];
    vec![
        Request::Submit(SHARD, entity, "command".into()),
        Request::Query(SHARD, "query".into()),
        Request::Watch(SHARD, timelines.clone(), "query".into()),
        Request::Rewatch(SHARD, timelines),
        Request::Deliver { to: SHARD, from: ShardId::new(6), first: 7, messages: vec![(entity, b"command".to_vec())] },
        Request::Greet,
        Request::Facts,
        Request::Change(SHARD, Change::Want { replicas: 3 }),
        Request::Reshape(SHARD, [ALICE, BOB].into()),
        Request::HandOver(SHARD, BOB),
        Request::Stand(SHARD),
        Request::Lead(SHARD, BOB),
        Request::Balance(true),
    ]
}

fn steps() -> Vec<Step> {
    vec![Step::Move { shard: SHARD, to: [ALICE, BOB].into() }, Step::Lead { shard: SHARD, from: ALICE, to: BOB }]
}

fn responses() -> Vec<Response<String, String>> {
    vec![
        Response::Reply("reply".into()),
        Response::View("view".into()),
        Response::Done,
        Response::Applied(7),
        Response::Greeting(DiskId(5)),
        Response::Facts(facts()),
        Response::Changed(Err(Refusal::Unknown(BOB))),
        Response::Reshaped(Reshaping::Learning { behind: 3 }),
        Response::Plan(steps()),
    ]
}

fn messages() -> Vec<Message> {
    vec![
        Message::Unwatch(SHARD, vec![hint().timeline]),
        Message::Hints(SHARD, 9, vec![hint()]),
        Message::Beat(SHARD, 9),
        Message::System(system()),
    ]
}

fn errors() -> Vec<AskError> {
    vec![
        AskError::Overloaded { retry_after_ms: 200 },
        AskError::StorageFull,
        AskError::Stopping,
        AskError::NotLeader { leader: Some(BOB) },
        AskError::Unavailable,
        AskError::Unknown,
        AskError::NotYet { needs: 2 },
    ]
}

pub(super) fn goldens() -> Vec<Golden> {
    let mut goldens = vec![Golden::coded("system", &system()), Golden::coded("facts", &facts())];
    goldens.extend(every("system.standing", vec![Standing::Active, Standing::Draining, Standing::Removed]));
    goldens.extend(every("system.change", changes()));
    goldens.extend(every("system.refusal", refusals()));
    goldens.extend(every("node.request", requests()));
    goldens.extend(every("node.response", responses()));
    goldens.extend(every("node.message", messages()));
    goldens.extend(every("node.error", errors()));
    goldens.extend(every("node.step", steps()));
    goldens.extend(every("node.reshaping", vec![Reshaping::Learning { behind: 3 }, Reshaping::Done]));
    let asked = |name, with| crate::remote::asked(name, with, Request::<String, String>::Greet);
    goldens.push(asked("node.asked", (None, 0, 7)));
    goldens.push(asked("node.asked.named", (None, 8, 7)));
    goldens.push(asked("node.asked.ranked", (Some(300), 8, 7)));
    goldens.push(crate::remote::answered(Some(system()), 511, Ok(Response::<String, String>::Done)));
    goldens.push(crate::remote::answered(None, 511, Err::<Response<String, String>, AskError>(AskError::Unknown)));
    for (at, golden) in goldens.iter_mut().filter(|golden| golden.name == "node.answered").enumerate() {
        golden.name = format!("node.answered.{at}");
    }
    goldens.extend(crate::transport::quic::goldens());
    goldens
}
