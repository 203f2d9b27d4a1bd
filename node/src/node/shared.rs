//! What sessions ask of the node.

use std::sync::Arc;

use magpie_cluster::{
    EntityId, priority,
    system::{Member, Standing},
};
use magpie_protocol::{
    Answer, ErrorCode, NodeId, RequestId, Slot, UserId, WireError, frame::hello::Done, limits::ELSEWHERE_MAX,
};

use super::Shared;
use crate::{
    Outcome,
    machine::{Command, Query, View},
    session::{
        Identity,
        outbound::{Outbound, ask_error},
    },
};

impl Shared {
    /// The node gives away what it has, and takes no sessions.
    pub(crate) fn is_draining(&self) -> bool {
        let system = self.router.system().now();
        let standing = system.and_then(|system| Some(system.nodes.get(&self.router.me())?.standing));
        standing.is_some_and(|standing| standing != Standing::Active)
    }

    /// Where else a person's devices may go: other nodes that take sessions, each person's in an order of its own.
    pub(crate) fn elsewhere(&self, user: UserId) -> Vec<String> {
        let Some(system) = self.router.system().now() else { return Vec::new() };
        let me = self.router.me();
        let takes = |(id, node): (&NodeId, &Member)| {
            node.devices.filter(|at| *id != me && node.standing == Standing::Active && !at.ip().is_unspecified())
        };
        let mut servers: Vec<String> = system.nodes.iter().filter_map(takes).map(|at| at.to_string()).collect();
        if !servers.is_empty() {
            let first = user.bits() % servers.len() as u64;
            servers.rotate_left(first as usize);
        }
        servers.truncate(ELSEWHERE_MAX);
        servers
    }

    /// Asks an entity for a device: the answer goes straight to the device's queue.
    pub(crate) fn submit(
        &self,
        entity: EntityId,
        command: Command,
        out: &Arc<Outbound>,
        request: RequestId,
        to_answer: impl FnOnce(Outcome) -> Answer + Send + 'static,
    ) {
        let out = out.clone();
        let reply = move |result: Result<_, magpie_cluster::AskError>| match result {
            Ok(replied) => out.reply(request, replied, to_answer),
            Err(error) => out.answer(request, Answer::Refused(ask_error(&error))),
        };
        self.router.submit(entity, command, Box::new(reply));
    }

    /// Changes what is a person's own. The answer says only that it is done.
    pub(crate) fn own(&self, out: &Arc<Outbound>, request: RequestId, me: Identity, command: impl Into<Command>) {
        self.submit(EntityId::user(me.user), command.into(), out, request, |_| Answer::Done(Done));
    }

    /// Goes on once the list of words, and the service that is asked before, let others read these texts. Each comes
    /// with what it is.
    pub(crate) fn once_shown(
        self: &Arc<Self>,
        out: &Arc<Outbound>,
        request: RequestId,
        me: Identity,
        texts: Vec<(&'static str, String)>,
        then: impl FnOnce(&Arc<Self>, &Arc<Outbound>) + Send + 'static,
    ) {
        if !self.hooks.before.waits() {
            return match texts.iter().try_for_each(|(field, text)| self.hooks.before.check(field, text)) {
                Ok(()) => then(self, out),
                Err(error) => out.answer(request, Answer::Refused(error)),
            };
        }
        let (shared, out) = (self.clone(), out.clone());
        priority::spawn(async move {
            match shared.hooks.before.may_show(me, &texts).await {
                Ok(()) => then(&shared, &out),
                Err(error) => out.answer(request, Answer::Refused(error)),
            }
        });
    }

    /// Reads for a device.
    pub(crate) fn read(
        &self,
        slot: Slot,
        query: Query,
        out: &Arc<Outbound>,
        request: RequestId,
        to_answer: impl FnOnce(View) -> Option<Answer> + Send + 'static,
    ) {
        let answer = move |view| match view {
            Ok(view) => to_answer(view).unwrap_or_else(|| Answer::Refused(WireError::new(ErrorCode::Internal))),
            Err(error) => Answer::Refused(ask_error(&error)),
        };
        if self.router.answers_here(slot, &query) {
            return out.answer(request, answer(self.router.query_here(slot, query)));
        }
        let (router, out) = (self.router.clone(), out.clone());
        priority::spawn(async move { out.answer(request, answer(router.query(slot, query).await)) });
    }
}
