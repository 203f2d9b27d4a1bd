//! What this node does for others, and for itself, where it leads a shard.

use crate::{
    AskError, Machine, Router,
    remote::{Done, Request, RequestOf, Response},
};
use magpie_protocol::NodeId;

use super::cuts;

impl<M: Machine> Router<M> {
    /// Does for a node, this one or another, what it asks.
    pub(crate) fn serve(&self, from: NodeId, request: RequestOf<M>, done: Done<M>) {
        let shard = match (request.shard(), &request) {
            (Some(shard), _) => shard,
            (None, Request::Stand(shard) | Request::CutPart { shard, .. } | Request::ForgetCut(shard, _)) => *shard,
            (None, Request::Greet) => return done(Ok(Response::Greeting(self.0.disk))),
            (None, _) => return done(Ok(Response::Facts(self.facts()))),
        };
        let Some(shard) = self.shard(shard).cloned() else { return done(Err(AskError::Unavailable)) };
        match request {
            Request::Submit(_, entity, command) => {
                self.submit_here(&shard, entity, command, Box::new(|result| done(result.map(Response::Reply))));
            }
            Request::Signal(_, signal) => done(shard.signal(signal).map(|()| Response::Done)),
            Request::Watched(_, timelines) => done(shard.watched(&timelines).map(Response::Timelines)),
            Request::Query(_, query) if let Some(front) = self.front_for(&query) => {
                front.answer(&shard, query, Box::new(|view| done(view.map(Response::View))));
            }
            Request::Query(_, query) if shard.wants_fresh(&query) => {
                tokio::spawn(async move { done(shard.query_fresh(query).await.map(Response::View)) });
            }
            Request::Query(_, query) => done(self.view_here(&shard, query).map(Response::View)),
            Request::Watch(_, timelines, query) if shard.wants_fresh(&query) => {
                let watched = shard.watch(from, &timelines);
                tokio::spawn(async move {
                    let view = match watched {
                        Ok(()) => shard.query_fresh(query).await,
                        Err(error) => Err(error),
                    };
                    done(view.map(Response::View));
                });
            }
            Request::Watch(_, timelines, query) => {
                let watched = shard.watch(from, &timelines).and_then(|()| shard.query(query));
                done(watched.map(Response::View));
            }
            Request::Rewatch(_, timelines) => done(shard.rewatch(from, &timelines).map(|()| Response::Done)),
            Request::Unwatched(_, timelines) => done(shard.unwatched(&timelines).map(Response::Timelines)),
            Request::Deliver { from, first, messages, .. } => cuts::deliver(&shard, (from, 0), first, messages, done),
            Request::DeliverCut { .. } | Request::Cut(..) | Request::CutPart { .. } | Request::ForgetCut(..) => {
                cuts::serve(self.0.me, shard, request, done);
            }
            Request::Change(_, change) => {
                let changed = |result: Result<Result<_, _>, _>| {
                    done(result.map(|changed| Response::Changed(changed.map(drop))));
                };
                shard.change_system(&change, Box::new(changed));
            }
            Request::Reshape(_, to) => {
                tokio::spawn(async move { done(shard.reshape(to).await.map(Response::Reshaped)) });
            }
            Request::HandOver(_, to) => {
                let router = self.clone();
                tokio::spawn(async move {
                    done(shard.hand_over(&router, to).await.map(|()| Response::Done));
                });
            }
            Request::Stand(_) => {
                tokio::spawn(async move { done(shard.stand().await.map(|()| Response::Done)) });
            }
            Request::Lead(..) | Request::Balance(_) if !shard.leadership().leads => {
                done(Err(AskError::NotLeader { leader: shard.leadership().leader }));
            }
            Request::Lead(of, to) => {
                self.0.wishes.rest(of);
                let router = self.clone();
                tokio::spawn(async move { done(router.hand_over(of, to).await.map(|()| Response::Done)) });
            }
            Request::Balance(go) => done(Ok(Response::Plan(self.plan(go)))),
            Request::Greet | Request::Facts => done(Err(AskError::Unavailable)),
        }
    }
}
