//! The cluster over HTTP: what it is, and what operators change of it. Every change is in the audit trail.

use std::collections::BTreeSet;

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Json},
};
use magpie_cluster::{
    AskError, System,
    system::{
        Change, Refusal, Standing,
        founding::token_hash,
        placement::Step,
        pulse::{Beat, Facts},
    },
};
use magpie_protocol::{NodeId, ShardId, ids::ParseIdError};
use serde::{Deserialize, Serialize};

use super::{Served, audit, done, refusal};
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
    /// How long an answer of it takes to the node that was asked, about; for replicas it must stay under 50.
    #[serde(default)]
    pub round_trip_ms: f64,
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
    let known = |node: &NodeId| -> Option<(Facts, (i64, f64), bool)> {
        if *node == router.me() {
            return Some((mine.clone(), (0, 0.0), true));
        }
        let far = |beat: &Beat| (beat.ahead_ms, (beat.round_trip.as_secs_f64() * 1e4).round() / 10.0);
        others.get(node).map(|beat| (beat.facts.clone(), far(beat), beat.is_up()))
    };
    let node_status = |(node, member): (&NodeId, &magpie_cluster::system::Member)| {
        let known = known(node);
        let (facts, (clock_ahead_ms, round_trip_ms), up) =
            known.map_or((None, (0, 0.0), false), |(facts, far, up)| (Some(facts), far, up));
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
            round_trip_ms,
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
        build_level: mine.level,
        replicas: system.replicas,
        nodes: {
            let gone = |(_, member): &(&NodeId, &magpie_cluster::system::Member)| member.standing == Standing::Removed;
            // Those that are gone come last.
            let (gone, here): (Vec<_>, Vec<_>) = system.nodes.iter().partition(gone);
            here.into_iter().chain(gone).map(node_status).collect()
        },
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

/// Replicas and leads are to be evened out: now, or it is only to be said what would move.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Balance {
    pub go: bool,
}

/// What is going to move, one step after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Planned {
    pub steps: Vec<String>,
}

/// How many replicas a shard should have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Want {
    pub replicas: u8,
}

/// Why a request is turned away.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    #[error("a bearer token is required: admin.token")]
    Unauthorized,
    #[error("{0}")]
    Bad(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    NotNow(#[from] AskError),
    #[error("this node knows of no cluster yet")]
    NoCluster,
    #[error("the audit trail cannot be written: {0}")]
    Audit(#[from] std::io::Error),
}

impl actix_web::ResponseError for Turned {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Refused(_) => StatusCode::CONFLICT,
            Self::NotNow(_) | Self::NoCluster => StatusCode::SERVICE_UNAVAILABLE,
            Self::Audit(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        super::plain(self.status_code(), &self.to_string())
    }
}

impl From<ParseIdError> for Turned {
    fn from(error: ParseIdError) -> Self {
        Self::Bad(error.to_string())
    }
}

/// Writes down what is asked, by who may ask.
fn admit(served: &Served, request: &HttpRequest, action: &str, what: &impl Serialize) -> Result<(), Turned> {
    if refusal(served, request).is_some() {
        return Err(Turned::Unauthorized);
    }
    Ok(audit::note(served.observer.data_dir(), request.peer_addr(), action, what)?)
}

pub(super) async fn cluster(served: Data<Served>, request: HttpRequest) -> Result<HttpResponse, Turned> {
    if refusal(&served, &request).is_some() {
        return Err(Turned::Unauthorized);
    }
    let router = served.observer.router();
    let system = router.system().now().ok_or(Turned::NoCluster)?;
    Ok(HttpResponse::Ok().json(status_of(router, &system)))
}

pub(super) async fn expect(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<Expect>,
) -> Result<HttpResponse, Turned> {
    admit(&served, &request, "expect", &*body)?;
    if served.observer.router().is_alone() {
        let how = "this node is alone, and others cannot reach it: its configuration needs [cluster], with an address \
                   to listen on and nodes = [\"n1.1@ADDRESS\"]";
        return Err(Turned::Bad(how.to_owned()));
    }
    let node: NodeId = body.node.parse()?;
    if node.bits() >> 32 == 0 || node.bits() as u32 == 0 {
        return Err(Turned::Bad(format!("{node}: the number and the generation of a node are counted from 1")));
    }
    let bad = |_| Turned::Bad(format!("{:?} is not an address, such as 10.0.0.1:4434", body.address));
    let address = body.address.parse().map_err(bad)?;
    let token = format!("{:032x}", rand::random::<u128>());
    let router = served.observer.router();
    router.change(Change::Expect { node, address, token: token_hash(&token) }).await??;
    let system = router.system().now().ok_or(Turned::NoCluster)?;
    let others = system.active().map(|(node, member)| format!("{node}@{}", member.address));
    let join = others.collect::<Vec<_>>().join(",");
    Ok(HttpResponse::Ok().json(Expected { token, join }))
}

pub(super) async fn stand(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<Stand>,
) -> Result<HttpResponse, Turned> {
    admit(&served, &request, "stand", &*body)?;
    let standing = match body.standing.as_str() {
        "active" => Standing::Active,
        "draining" => Standing::Draining,
        "removed" => Standing::Removed,
        other => return Err(Turned::Bad(format!("standing is {other:?}; it must be active, draining or removed"))),
    };
    let (node, router) = (body.node.parse()?, served.observer.router());
    if standing == Standing::Removed && node == router.me() {
        let detail = format!("{node} answers this, and ends when it is removed: ask another node (--admin)");
        return Err(Turned::Bad(detail));
    }
    router.change(Change::Stand { node, standing }).await??;
    Ok(done())
}

pub(super) async fn move_shard(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<Move>,
) -> Result<HttpResponse, Turned> {
    admit(&served, &request, "move", &*body)?;
    let to = body.to.iter().map(|node| node.parse()).collect::<Result<BTreeSet<NodeId>, _>>()?;
    let router = served.observer.router();
    let wanted = router.system().now().ok_or(Turned::NoCluster)?.replicas;
    if to.len() != body.to.len() || to.len() != usize::from(wanted) {
        return Err(Turned::Bad(format!(
            "{} names {} different nodes; a shard here has {wanted} replicas (`magpie admin replicas` changes that)",
            body.to.join(" "),
            to.len()
        )));
    }
    router.change(Change::Move { shard: body.shard.parse()?, to }).await??;
    Ok(done())
}

pub(super) async fn lead(served: Data<Served>, request: HttpRequest, body: Json<Lead>) -> Result<HttpResponse, Turned> {
    admit(&served, &request, "lead", &*body)?;
    let (shard, to): (ShardId, NodeId) = (body.shard.parse()?, body.to.parse()?);
    let router = served.observer.router();
    let system = router.system().now().ok_or(Turned::NoCluster)?;
    let place = system.place(shard).ok_or(Refusal::NoShard(shard))?;
    if !place.replicas.contains(&to) {
        return Err(Turned::Bad(format!(
            "{to} holds no replica of {shard}: it is on {}",
            names(&place.replicas).join(" ")
        )));
    }
    router.lead_by_hand(shard, to).await?;
    Ok(done())
}

pub(super) async fn balance(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<Balance>,
) -> Result<HttpResponse, Turned> {
    admit(&served, &request, "balance", &*body)?;
    let router = served.observer.router();
    if router.is_alone() {
        return Err(Turned::Bad("this node is alone: there is nowhere to move anything".to_owned()));
    }
    let before = router.system().now().ok_or(Turned::NoCluster)?;
    let mut places: Vec<BTreeSet<NodeId>> = before.shards.iter().map(|place| place.replicas.clone()).collect();
    let mut steps = Vec::new();
    for step in router.balance(body.go).await? {
        steps.push(match step {
            Step::Lead { shard, from, to } => format!("{shard}: the lead goes from {from} to {to}"),
            Step::Move { shard, to } => {
                let place = places.get_mut(usize::from(shard.get())).ok_or(Refusal::NoShard(shard))?;
                let text =
                    format!("{shard}: its replicas go from {} to {}", names(place).join(" "), names(&to).join(" "));
                *place = to;
                text
            }
        });
    }
    Ok(HttpResponse::Ok().json(Planned { steps }))
}

pub(super) async fn want(served: Data<Served>, request: HttpRequest, body: Json<Want>) -> Result<HttpResponse, Turned> {
    admit(&served, &request, "replicas", &*body)?;
    served.observer.router().change(Change::Want { replicas: body.replicas }).await??;
    Ok(done())
}
