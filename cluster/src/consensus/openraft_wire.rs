//! What replicas of a group say to each other, as bytes.
//!
//! `kind u8 | fields`, in the codec's form; entries keep theirs of the log and follow the head raw, each behind its
//! position and length, so that a batch is copied once on its way.

use bincode::{Decode, Encode};
use bytes::{Buf, Bytes};
use magpie_protocol::codec;
use openraft::{
    Vote,
    raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse},
};

use super::{
    openraft::Types,
    openraft_log::{decode_entry, encode_entry, from_position, to_position},
};
use crate::log::{LogEntry, Position};

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const OFFER: u8 = 3;
const CHUNK: u8 = 4;

type Id = (u64, u64, u64);

fn to_id(position: Position) -> Id {
    (position.term, position.node, position.index)
}

fn to_position_of((term, node, index): Id) -> Position {
    Position { term, node, index }
}

/// A vote on the wire: term, node, and whether a quorum granted it.
pub(super) type WireVote = (u64, u64, bool);

pub(super) fn from_vote(vote: &Vote<u64>) -> WireVote {
    (vote.leader_id().term, vote.leader_id().node_id, vote.is_committed())
}

pub(super) fn to_vote((term, node, committed): WireVote) -> Vote<u64> {
    if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) }
}

#[derive(Encode, Decode)]
struct AppendHead {
    vote: WireVote,
    prev: Option<Id>,
    commit: Option<Id>,
    entries: u32,
}

/// A snapshot is about to come: how long it is, and how far.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Offer {
    pub(super) vote: WireVote,
    pub(super) index: u64,
    pub(super) len: u64,
}

/// A part of an offered snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Chunk {
    pub(super) offer: Offer,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// The answer to both: bytes that are there; or, at the end, the vote of the replica that has installed it or knows
/// of a higher one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Received {
    Upto(u64),
    Done(WireVote),
    Failed(String),
    /// The node holds no replica: not yet, or no longer.
    Absent,
}

/// What a node answers that is offered a snapshot of a shard that it does not hold.
pub(crate) fn absent() -> Bytes {
    codec::encode(&Received::Absent).into()
}

/// A request to a replica.
pub(super) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Offer(Offer),
    Chunk(Chunk),
}

fn tagged(kind: u8, fields: &impl Encode) -> Vec<u8> {
    let mut out = vec![kind];
    codec::encode_into(fields, &mut out);
    out
}

pub(super) fn append(request: AppendEntriesRequest<Types>) -> Bytes {
    let id = |id: openraft::LogId<u64>| to_id(to_position(&id));
    let head = AppendHead {
        vote: from_vote(&request.vote),
        prev: request.prev_log_id.map(id),
        commit: request.leader_commit.map(id),
        entries: request.entries.len() as u32,
    };
    let entries: Vec<LogEntry> = request.entries.into_iter().map(encode_entry).collect();
    let mut out = tagged(APPEND, &head);
    out.reserve(entries.iter().map(|entry| entry.payload.len() + 28).sum());
    for LogEntry { position: Position { term, node, index }, payload } in &entries {
        for number in [*term, *node, *index] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(payload);
    }
    out.into()
}

pub(super) fn vote(request: &VoteRequest<u64>) -> Bytes {
    tagged(VOTE, &(from_vote(&request.vote), request.last_log_id.map(|id| to_id(to_position(&id))))).into()
}

pub(super) fn offer(offer: &Offer) -> Bytes {
    tagged(OFFER, offer).into()
}

pub(super) fn chunk(chunk: &Chunk) -> Bytes {
    tagged(CHUNK, chunk).into()
}

/// The request in these bytes; `None` for one that this build does not know.
pub(super) fn request(mut bytes: Bytes) -> Option<Request> {
    if bytes.is_empty() {
        return None;
    }
    let kind = bytes.get_u8();
    match kind {
        APPEND => decode_append(bytes).map(Request::Append),
        VOTE => {
            let (vote, last): (WireVote, Option<Id>) = codec::decode_stored(&bytes).ok()?;
            let last = last.map(|id| from_position(to_position_of(id)));
            Some(Request::Vote(VoteRequest::new(to_vote(vote), last)))
        }
        OFFER => codec::decode_stored(&bytes).ok().map(Request::Offer),
        CHUNK => codec::decode_stored(&bytes).ok().map(Request::Chunk),
        _ => None,
    }
}

fn decode_append(mut bytes: Bytes) -> Option<AppendEntriesRequest<Types>> {
    let (head, used): (AppendHead, usize) = codec::decode_prefix(&bytes).ok()?;
    bytes.advance(used);
    let mut entries = Vec::new();
    for _ in 0..head.entries {
        if bytes.remaining() < 28 {
            return None;
        }
        let position = Position { term: bytes.get_u64_le(), node: bytes.get_u64_le(), index: bytes.get_u64_le() };
        let len = bytes.get_u32_le() as usize;
        if bytes.remaining() < len {
            return None;
        }
        entries.push(decode_entry(LogEntry { position, payload: bytes.split_to(len) })?);
    }
    let id = |id: Id| from_position(to_position_of(id));
    let (prev_log_id, leader_commit) = (head.prev.map(id), head.commit.map(id));
    bytes.is_empty().then_some(AppendEntriesRequest { vote: to_vote(head.vote), prev_log_id, entries, leader_commit })
}

#[derive(Encode, Decode)]
enum Appended {
    Success,
    Partial(Option<Id>),
    Conflict,
    Higher(WireVote),
}

pub(super) fn appended(response: &AppendEntriesResponse<u64>) -> Bytes {
    codec::encode(&match response {
        AppendEntriesResponse::Success => Appended::Success,
        AppendEntriesResponse::PartialSuccess(id) => Appended::Partial(id.map(|id| to_id(to_position(&id)))),
        AppendEntriesResponse::Conflict => Appended::Conflict,
        AppendEntriesResponse::HigherVote(vote) => Appended::Higher(from_vote(vote)),
    })
    .into()
}

pub(super) fn to_appended(bytes: &[u8]) -> Option<AppendEntriesResponse<u64>> {
    Some(match codec::decode_stored(bytes).ok()? {
        Appended::Success => AppendEntriesResponse::Success,
        Appended::Partial(id) => AppendEntriesResponse::PartialSuccess(id.map(|id| from_position(to_position_of(id)))),
        Appended::Conflict => AppendEntriesResponse::Conflict,
        Appended::Higher(vote) => AppendEntriesResponse::HigherVote(to_vote(vote)),
    })
}

type WireVoted = (WireVote, bool, Option<Id>);

pub(super) fn voted(response: &VoteResponse<u64>) -> Bytes {
    let last = response.last_log_id.map(|id| to_id(to_position(&id)));
    codec::encode(&(from_vote(&response.vote), response.vote_granted, last)).into()
}

pub(super) fn to_voted(bytes: &[u8]) -> Option<VoteResponse<u64>> {
    let (vote, granted, last): WireVoted = codec::decode_stored(bytes).ok()?;
    let last = last.map(|id| from_position(to_position_of(id)));
    Some(VoteResponse { vote: to_vote(vote), vote_granted: granted, last_log_id: last })
}

#[cfg(test)]
pub(super) fn goldens() -> Vec<crate::golden::file::Golden> {
    use openraft::{Entry, EntryPayload};

    use super::openraft::Batch;
    use crate::golden::file::Golden;
    let id = |index| from_position(Position { term: 3, node: 0x0102, index });
    let entries: Vec<Entry<Types>> = (8..10)
        .map(|n| Entry { log_id: id(n), payload: EntryPayload::Normal(Batch(vec![1, 1, n as u8].into())) })
        .collect();
    let (vote_of, prev_log_id) = (Vote::new_committed(3, 0x0102), Some(id(7)));
    let rpc = AppendEntriesRequest { vote: vote_of, prev_log_id, entries, leader_commit: Some(id(6)) };
    let offered = Offer { vote: from_vote(&vote_of), index: 70_000, len: 1 << 20 };
    let part = Chunk { offer: offered.clone(), offset: 4096, bytes: b"part".to_vec() };
    let again = |bytes: &[u8]| {
        Some(match request(Bytes::copy_from_slice(bytes))? {
            Request::Append(rpc) => append(rpc).to_vec(),
            Request::Vote(rpc) => vote(&rpc).to_vec(),
            Request::Offer(it) => offer(&it).to_vec(),
            Request::Chunk(it) => chunk(&it).to_vec(),
        })
    };
    let mut goldens = vec![
        Golden::new("replica.append", append(rpc), again),
        Golden::new("replica.vote", vote(&VoteRequest::new(Vote::new(4, 2), Some(id(9)))), again),
        Golden::new("replica.offer", offer(&offered), again),
        Golden::new("replica.chunk", chunk(&part), again),
    ];
    let answers = [
        AppendEntriesResponse::Success,
        AppendEntriesResponse::PartialSuccess(Some(id(9))),
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(Vote::new(9, 1)),
    ];
    for (at, answer) in answers.iter().enumerate() {
        let again = |bytes: &[u8]| Some(appended(&to_appended(bytes)?).to_vec());
        goldens.push(Golden::new(format!("replica.appended.{at}"), appended(answer), again));
    }
    let answer = VoteResponse { vote: Vote::new(4, 2), vote_granted: true, last_log_id: Some(id(2)) };
    let again = |bytes: &[u8]| Some(voted(&to_voted(bytes)?).to_vec());
    goldens.push(Golden::new("replica.voted", voted(&answer), again));
    let received =
        vec![Received::Upto(4096), Received::Done((4, 2, true)), Received::Failed("why".into()), Received::Absent];
    goldens.extend(crate::golden::file::every("replica.received", received));
    goldens
}

#[cfg(test)]
mod tests {
    use openraft::{Entry, EntryPayload};

    use super::*;
    use crate::consensus::{BATCH_TAG, openraft::Batch};

    fn id(term: u64, index: u64) -> openraft::LogId<u64> {
        from_position(Position { term, node: 7, index })
    }

    #[test]
    fn entries_come_back_as_they_were_and_cut_ones_do_not() {
        let batch = |n: u8| EntryPayload::Normal(Batch(vec![BATCH_TAG, n, 3, 4].into()));
        let entries: Vec<Entry<Types>> = (1..=3).map(|n| Entry { log_id: id(2, n), payload: batch(n as u8) }).collect();
        let sent = AppendEntriesRequest {
            vote: Vote::new_committed(2, 7),
            prev_log_id: Some(id(1, 0)),
            entries: entries.clone(),
            leader_commit: None,
        };
        let bytes = append(sent);
        let Some(Request::Append(got)) = request(bytes.clone()) else { panic!("not read back") };
        assert_eq!((got.vote, got.prev_log_id, got.leader_commit), (Vote::new_committed(2, 7), Some(id(1, 0)), None));
        assert_eq!(got.entries, entries);
        for len in 0..bytes.len() {
            assert!(request(bytes.slice(..len)).is_none(), "{len} bytes of {}", bytes.len());
        }
    }

    #[test]
    fn answers_come_back_as_they_were() {
        for response in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::PartialSuccess(Some(id(3, 9))),
            AppendEntriesResponse::HigherVote(Vote::new(9, 1)),
        ] {
            assert_eq!(to_appended(&appended(&response)), Some(response));
        }
        let response = VoteResponse { vote: Vote::new(4, 2), vote_granted: true, last_log_id: Some(id(1, 2)) };
        assert_eq!(to_voted(&voted(&response)), Some(response));
    }
}
