//! The cluster over HTTP: what it is, and what operators change of it. Every change is in the audit trail.

use std::collections::BTreeSet;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Json},
};
use magpie_cluster::{
    AskError, System,
    system::{Change, Standing, founding::token_hash, pulse::Facts},
};
use magpie_protocol::{NodeId, ShardId};
use serde::{Deserialize, Serialize};

use super::{Served, audit, refusal};
use crate::machine::MagpieRouter;

/// The cluster, as one of its nodes knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Grows with every change.
    pub version: u64,
    /// What every node can do, and what the build of the node that was asked can.
    pub level: u32,
    pub build_level: u32,
    /// How many replicas a shard should have.
    pub replicas: u8,
    pub nodes: Vec<NodeStatus>,
    pub shards: Vec<ShardPlace>,
}

/// A node of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    pub node: String,
    pub address: String,
    pub devices: Option<String>,
    pub zone: String,
    /// `expected`, `active`, `draining` or `removed`.
    pub standing: String,
    pub up: bool,
    /// How far its clock is before that of the node that was asked.
    pub clock_ahead_ms: i64,
    /// Its clock is so far off that it leads nothing.
    pub astray: bool,
    pub level: u32,
    pub sessions: u64,
    pub free_bytes: u64,
    /// Shards that it holds or is about to, and those of them that it leads.
    pub replicas: usize,
    pub leaders: usize,
}

/// Where a shard is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardPlace {
    pub shard: String,
    pub leader: Option<String>,
    pub replicas: Vec<String>,
    /// What the replicas are to become.
    pub becoming: Option<Vec<String>>,
    /// How far each replica that is up has applied the log.
    pub applied: Vec<(String, u64)>,
}

fn names(nodes: &BTreeSet<NodeId>) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}

fn status_of(router: &MagpieRouter, system: &System) -> ClusterStatus {
    let others = router.pulse().others();
    let mine = router.facts();
    let known = |node: &NodeId| -> Option<(Facts, i64, bool)> {
        if *node == router.me() {
            return Some((mine.clone(), 0, true));
        }
        others.get(node).map(|beat| (beat.facts.clone(), beat.ahead_ms, beat.is_up()))
    };
    let node_status = |(node, member): (&NodeId, &magpie_cluster::system::Member)| {
        let known = known(node);
        let (facts, clock_ahead_ms, up) = known.map_or((None, 0, false), |(facts, ahead, up)| (Some(facts), ahead, up));
        let standing = match member.standing {
            Standing::Active if member.disk.is_none() => "expected",
            Standing::Active => "active",
            Standing::Draining => "draining",
            Standing::Removed => "removed",
        };
        let live = facts.as_ref().filter(|_| up);
        NodeStatus {
            node: node.to_string(),
            address: member.address.to_string(),
            devices: member.devices.map(|at| at.to_string()),
            zone: member.zone.clone(),
            standing: standing.to_owned(),
            up,
            clock_ahead_ms,
            astray: live.is_some_and(|facts| facts.astray),
            level: member.level,
            sessions: live.map_or(0, |facts| facts.sessions),
            free_bytes: live.map_or(0, |facts| facts.free_bytes),
            replicas: system.held_by(*node),
            leaders: live.map_or(0, |facts| facts.shards.iter().filter(|held| held.leads).count()),
        }
    };
    let place_of = |(i, place): (usize, &magpie_cluster::system::Place)| {
        let shard = ShardId::new(i as u16);
        let holders = place.holders().into_iter();
        let held: Vec<_> = holders
            .filter_map(|node| Some((node, known(&node).filter(|(_, _, up)| *up)?.0)))
            .filter_map(|(node, facts)| Some((node, *facts.shards.iter().find(|held| held.shard == shard)?)))
            .collect();
        ShardPlace {
            shard: shard.to_string(),
            leader: held.iter().find(|(_, held)| held.leads).map(|(node, _)| node.to_string()),
            replicas: names(&place.replicas),
            becoming: place.becoming.as_ref().map(names),
            applied: held.iter().map(|(node, held)| (node.to_string(), held.applied)).collect(),
        }
    };
    ClusterStatus {
        version: system.version,
        level: system.level,
        build_level: magpie_cluster::system::LEVEL,
        replicas: system.replicas,
        nodes: system.nodes.iter().map(node_status).collect(),
        shards: system.shards.iter().enumerate().map(place_of).collect(),
    }
}

/// A node that may come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Expect {
    pub node: String,
    pub address: String,
}

/// What that node must know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Expected {
    pub token: String,
    /// Nodes to join, as `serve --join` takes them.
    pub join: String,
}

/// A node that is to take part, to give away what it has, or to be gone: `active`, `draining` or `removed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stand {
    pub node: String,
    pub standing: String,
}

/// A shard whose replicas are to be on these nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Move {
    pub shard: String,
    pub to: Vec<String>,
}

/// A shard that another node is to lead.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lead {
    pub shard: String,
    pub to: String,
}

/// How many replicas a shard should have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Want {
    pub replicas: u8,
}

/// Adds the routes.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/api/v1/cluster", web::get().to(cluster))
        .route("/api/v1/cluster/expect", web::post().to(expect))
        .route("/api/v1/cluster/stand", web::post().to(stand))
        .route("/api/v1/cluster/move", web::post().to(move_shard))
        .route("/api/v1/cluster/lead", web::post().to(lead))
        .route("/api/v1/cluster/replicas", web::post().to(want));
}

fn bad(what: impl ToString) -> HttpResponse {
    HttpResponse::BadRequest().body(what.to_string() + "\n")
}

fn not_now(error: &AskError) -> HttpResponse {
    HttpResponse::ServiceUnavailable().body(format!("{error}\n"))
}

fn node_id(text: &str) -> Result<NodeId, HttpResponse> {
    text.parse().map_err(|e: magpie_protocol::ids::ParseIdError| bad(e))
}

fn shard_id(text: &str) -> Result<ShardId, HttpResponse> {
    text.parse().map_err(|e: magpie_protocol::ids::ParseIdError| bad(e))
}

/// Writes down what is asked, checks who asks.
fn admitted(served: &Served, request: &HttpRequest, action: &str, what: &impl Serialize) -> Result<(), HttpResponse> {
    if let Some(refusal) = refusal(served, request) {
        return Err(refusal);
    }
    audit::note(served.observer.data_dir(), request.peer_addr(), action, what)
        .map_err(|e| HttpResponse::InternalServerError().body(format!("the audit trail cannot be written: {e}\n")))
}

async fn change(served: &Served, change: Change) -> HttpResponse {
    match served.observer.router().change(change).await {
        Ok(Ok(())) => HttpResponse::Ok().json(serde_json::json!({})),
        Ok(Err(refusal)) => HttpResponse::Conflict().body(format!("{refusal}\n")),
        Err(error) => not_now(&error),
    }
}

async fn cluster(served: Data<Served>, request: HttpRequest) -> HttpResponse {
    if let Some(refusal) = refusal(&served, &request) {
        return refusal;
    }
    match served.observer.router().system().now() {
        Some(system) => HttpResponse::Ok().json(status_of(served.observer.router(), &system)),
        None => HttpResponse::ServiceUnavailable().body("this node knows of no cluster yet\n"),
    }
}

async fn expect(served: Data<Served>, request: HttpRequest, body: Json<Expect>) -> HttpResponse {
    let asked = || -> Result<_, HttpResponse> {
        admitted(&served, &request, "expect", &*body)?;
        let address = body.address.parse().map_err(|_| bad(format!("{:?} is not an address", body.address)))?;
        Ok((node_id(&body.node)?, address))
    };
    let (node, address) = match asked() {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    let token = format!("{:032x}", rand::random::<u128>());
    let expected = Change::Expect { node, address, token: token_hash(&token) };
    let answer = change(&served, expected).await;
    if !answer.status().is_success() {
        return answer;
    }
    let system = served.observer.router().system().now();
    let peers = system.map(|system| system.active().map(|(n, member)| format!("{n}@{}", member.address)).collect());
    let peers: Vec<String> = peers.unwrap_or_default();
    HttpResponse::Ok().json(Expected { token, join: peers.join(",") })
}

async fn stand(served: Data<Served>, request: HttpRequest, body: Json<Stand>) -> HttpResponse {
    let asked = || -> Result<_, HttpResponse> {
        admitted(&served, &request, "stand", &*body)?;
        let standing = match body.standing.as_str() {
            "active" => Standing::Active,
            "draining" => Standing::Draining,
            "removed" => Standing::Removed,
            other => return Err(bad(format!("standing is {other:?}; it must be active, draining or removed"))),
        };
        Ok(Change::Stand { node: node_id(&body.node)?, standing })
    };
    match asked() {
        Ok(asked) => change(&served, asked).await,
        Err(refused) => refused,
    }
}

async fn move_shard(served: Data<Served>, request: HttpRequest, body: Json<Move>) -> HttpResponse {
    let asked = || -> Result<_, HttpResponse> {
        admitted(&served, &request, "move", &*body)?;
        let to = body.to.iter().map(|node| node_id(node)).collect::<Result<BTreeSet<_>, _>>()?;
        if !matches!(to.len(), 1 | 3 | 5) {
            return Err(bad(format!("a shard can be on 1, 3 or 5 nodes, not on {}", to.len())));
        }
        Ok(Change::Move { shard: shard_id(&body.shard)?, to })
    };
    match asked() {
        Ok(asked) => change(&served, asked).await,
        Err(refused) => refused,
    }
}

async fn lead(served: Data<Served>, request: HttpRequest, body: Json<Lead>) -> HttpResponse {
    let asked = || -> Result<_, HttpResponse> {
        admitted(&served, &request, "lead", &*body)?;
        Ok((shard_id(&body.shard)?, node_id(&body.to)?))
    };
    let (shard, to) = match asked() {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    match served.observer.router().hand_over(shard, to).await {
        Ok(()) => HttpResponse::Ok().json(serde_json::json!({})),
        Err(error) => not_now(&error),
    }
}

async fn want(served: Data<Served>, request: HttpRequest, body: Json<Want>) -> HttpResponse {
    match admitted(&served, &request, "replicas", &*body) {
        Ok(()) => change(&served, Change::Want { replicas: body.replicas }).await,
        Err(refused) => refused,
    }
}
