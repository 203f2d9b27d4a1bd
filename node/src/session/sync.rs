//! Following timelines on behalf of a device: watch first, then heads.

use std::collections::BTreeMap;

use magpie_protocol::{
    Answer, ConversationId, RequestId, ShardId, TimelineId, UserId, WireError,
    frame::{
        hello::ClosingReason,
        sync::{Behind, Head, Heads},
    },
    limits::PAGE_HEADS_MAX,
};

use super::{Identity, SessionHandle, outbound};
use crate::{
    account::{self, Listed},
    chat::{self, HeadView},
    machine::{Query, View},
};

/// Where the inbox of a person stands.
fn inbox_head(user: UserId, head: u64) -> Head {
    Head { timeline: TimelineId::Inbox(user), first: 1, head, read: 0 }
}

impl super::Actor {
    /// Ends the session if its device was signed out. The inbox is watched from the sign-in on, whether or not the
    /// device asks for it: who stole a device need not ask for anything. Watch first, then look.
    pub(super) fn guard(&mut self) {
        let Some(session) = self.handle() else { return };
        let me = session.identity();
        let inbox = TimelineId::Inbox(me.user);
        self.shared.watches.enter(&mut self.watching, inbox, &session);
        let shard = self.shared.router.shard_id_of(inbox);
        match self.shared.router.watch(shard, &[inbox], Query::Account(account::Query::Devices(me.user))) {
            Ok(View::Account(account::View::Devices(devices))) => {
                if !devices.iter().any(|device| device.device == me.device) {
                    self.close(ClosingReason::SignedOut, 0);
                }
            }
            // The device comes back and is asked again.
            _ => self.out.close(),
        }
    }

    /// Follows everything, and says where it stands.
    pub(super) fn sync(&mut self, request: RequestId) {
        let Some(me) = self.identity() else { return };
        self.synced = true;
        match self.follow_all(me) {
            Ok(heads) => {
                let mut rest = heads.chunks(PAGE_HEADS_MAX).peekable();
                while let Some(chunk) = rest.next() {
                    let last = rest.peek().is_none();
                    let answer = Answer::Heads(Heads { heads: chunk.to_vec(), last });
                    if last {
                        self.out.answer(request, answer);
                    } else {
                        self.out.part(request, answer);
                    }
                }
            }
            Err(error) => self.out.answer(request, Answer::Refused(error)),
        }
    }

    /// Something of the inbox was missed: follow what is new, and say where everything stands.
    pub(super) fn relist(&mut self) {
        let Some(me) = self.identity() else { return };
        self.guard();
        if !self.synced {
            return;
        }
        match self.follow_all(me) {
            Ok(heads) => self.push_behind(&heads),
            // The device comes back and asks for everything.
            Err(_) => self.out.close(),
        }
    }

    fn follow_all(&mut self, me: Identity) -> Result<Vec<Head>, WireError> {
        let unavailable = |e| outbound::ask_error(&e);
        let shared = self.shared.clone();
        let inbox = TimelineId::Inbox(me.user);
        let shard = shared.router.shard_id_of(inbox);
        let session = self.handle().ok_or_else(|| outbound::ask_error(&magpie_cluster::AskError::Unknown))?;
        shared.watches.enter(&mut self.watching, inbox, &session);
        let query = Query::Account(account::Query::List(me.user));
        let view = shared.router.watch(shard, &[inbox], query).map_err(unavailable)?;
        let View::Account(account::View::List { listed, inbox: head }) = view else {
            return Err(outbound::ask_error(&magpie_cluster::AskError::Unavailable));
        };
        shared.watches.grant(inbox, &session, 0);
        let mut heads = vec![inbox_head(me.user, head)];
        let mut by_shard: BTreeMap<ShardId, Vec<Listed>> = BTreeMap::new();
        for listed in listed {
            let timeline = TimelineId::Conversation(listed.conversation);
            by_shard.entry(shared.router.shard_id_of(timeline)).or_default().push(listed);
        }
        for (shard, listed) in by_shard {
            heads.extend(self.follow_some(shard, &listed)?);
        }
        Ok(heads)
    }

    /// Watches conversations of one shard, one request for all of them.
    fn follow_some(&mut self, shard: ShardId, listed: &[Listed]) -> Result<Vec<Head>, WireError> {
        let Some(session) = self.handle() else { return Ok(Vec::new()) };
        let shared = self.shared.clone();
        let timelines: Vec<TimelineId> = listed.iter().map(|l| TimelineId::Conversation(l.conversation)).collect();
        for (timeline, listed) in timelines.iter().zip(listed) {
            if listed.last == 0 {
                shared.watches.enter(&mut self.watching, *timeline, &session);
            }
        }
        let conversations = listed.iter().map(|l| l.conversation).collect();
        let query = Query::Chat(chat::Query::Heads { reader: session.identity().user, conversations });
        let view = shared.router.watch(shard, &timelines, query).map_err(|e| outbound::ask_error(&e))?;
        let View::Chat(chat::View::Heads(views)) = view else {
            return Err(outbound::ask_error(&magpie_cluster::AskError::Unavailable));
        };
        let mut heads = Vec::with_capacity(views.len());
        for view in views {
            self.settle(&session, &view);
            let read = listed.iter().find(|l| l.conversation == view.conversation).map_or(0, |l| l.read);
            heads.push(to_head(&view, read));
        }
        Ok(heads)
    }

    /// Grants or ends the watch of a conversation as its shard says.
    fn settle(&mut self, session: &SessionHandle, view: &HeadView) {
        let timeline = TimelineId::Conversation(view.conversation);
        if view.follows {
            self.shared.watches.grant(timeline, session, view.rights);
        } else {
            self.shared.watches.leave_one(&mut self.watching, timeline, session);
        }
    }

    /// The person is in this conversation from now on.
    pub(super) fn follow(&mut self, conversation: ConversationId) {
        let shard = self.shared.router.shard_id_of(TimelineId::Conversation(conversation));
        let listed = Listed { conversation, first: 0, last: 0, read: 0 };
        match self.follow_some(shard, &[listed]) {
            Ok(heads) => self.push_behind(&heads),
            Err(_) => self.out.close(),
        }
    }

    /// The person is no longer in this conversation; what they may still read, the device pulls.
    pub(super) fn unfollow(&mut self, conversation: ConversationId) {
        self.tell_behind(vec![TimelineId::Conversation(conversation)]);
    }

    /// Tells the device where these timelines stand, so that it pulls.
    pub(super) fn tell_behind(&mut self, timelines: Vec<TimelineId>) {
        let Some(session) = self.handle() else { return };
        let me = session.identity();
        let mut by_shard: BTreeMap<ShardId, Vec<ConversationId>> = BTreeMap::new();
        for timeline in timelines {
            match timeline {
                // The inbox also says which conversations there are.
                TimelineId::Inbox(_) => return self.relist(),
                TimelineId::Conversation(id) => {
                    by_shard.entry(self.shared.router.shard_id_of(timeline)).or_default().push(id);
                }
            }
        }
        let mut heads = Vec::new();
        for (shard, conversations) in by_shard {
            let query = Query::Chat(chat::Query::Heads { reader: me.user, conversations });
            match self.shared.router.watch(shard, &[], query) {
                Ok(View::Chat(chat::View::Heads(views))) => {
                    for view in views {
                        self.settle(&session, &view);
                        heads.push(to_head(&view, 0));
                    }
                }
                _ => return self.out.close(),
            }
        }
        self.push_behind(&heads);
    }

    fn push_behind(&self, heads: &[Head]) {
        for chunk in heads.chunks(PAGE_HEADS_MAX) {
            self.out.push_answer(Answer::Behind(Behind { heads: chunk.to_vec() }));
        }
    }

    fn handle(&self) -> Option<SessionHandle> {
        match &self.state {
            super::State::SignedIn(handle) => Some(handle.clone()),
            _ => None,
        }
    }
}

fn to_head(view: &HeadView, read: u64) -> Head {
    Head { timeline: TimelineId::Conversation(view.conversation), first: view.first, head: view.head, read }
}
