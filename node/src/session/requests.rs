//! What a device asks, by family. Each subsystem's `api` makes a command of it and an answer of the reply.

use std::{future::Future, sync::Arc};

use actix::{ActorFutureExt, AsyncContext, Context, fut::wrap_future};
use magpie_cluster::priority;
use magpie_protocol::{
    Answer, ErrorCode, Frame, Request, RequestId, VERSION_MAX, VERSION_MIN, WireError,
    frame::{Direction as _, account::SignedIn, hello::Welcome},
};

use super::{Identity, SessionHandle, State, outbound::Outbound};
use crate::{AGENT, account, chat, contact, limits, media, node::Shared, overload::Priority, personal, search};

impl super::Actor {
    pub(super) fn request(&mut self, frame: Frame<Request>, context: &mut Context<Self>) {
        crate::metrics::count!(crate::metrics::REQUESTS, 1);
        let request = frame.request;
        self.out.begin_request();
        match (&self.state, frame.body) {
            (State::SignedIn(handle), body) => {
                let me = handle.identity();
                self.serve(request, me, body, context);
            }
            (State::New, Request::Hello(hello)) => {
                if hello.version_min > VERSION_MAX || hello.version_max < VERSION_MIN {
                    let detail = format!("this node speaks {VERSION_MIN} to {VERSION_MAX}");
                    self.refuse(request, WireError::detail(ErrorCode::UnsupportedVersion, detail));
                    return self.out.close();
                }
                self.state = State::Greeted;
                let version = VERSION_MAX.min(hello.version_max);
                let history_epoch = self.shared.router.system().now().map_or(1, |system| system.epoch);
                let time_ms = (self.shared.clock)();
                let welcome = Welcome { version, time_ms, history_epoch, agent: AGENT.to_owned() };
                self.out.answer(request, Answer::Welcome(welcome));
            }
            (State::Greeted, Request::SignUp(body)) => {
                let shared = self.shared.clone();
                let (address, exported) = (self.link.address().ip(), self.link.exported());
                let work = async move { account::api::sign_up(&shared, address, exported, body).await };
                self.signing_in(request, work, context);
            }
            (State::Greeted, Request::SignIn(body)) => {
                let shared = self.shared.clone();
                let (address, exported) = (self.link.address().ip(), self.link.exported());
                let work = async move { account::api::sign_in(&shared, address, exported, body).await };
                self.signing_in(request, work, context);
            }
            (State::Greeted, Request::SignUpInvited(body)) => {
                let shared = self.shared.clone();
                let (address, exported) = (self.link.address().ip(), self.link.exported());
                let work = async move { account::api::sign_up_invited(&shared, address, exported, body).await };
                self.signing_in(request, work, context);
            }
            (State::Greeted, Request::SignInByToken(body)) => {
                let shared = self.shared.clone();
                let (address, exported) = (self.link.address().ip(), self.link.exported());
                let work = async move { account::api::sign_in_by_token(&shared, address, exported, body).await };
                self.signing_in(request, work, context);
            }
            (State::Greeted, Request::Resume(body)) => {
                let shared = self.shared.clone();
                let exported = self.link.exported();
                let work = async move { account::api::resume(&shared, exported, body).await };
                self.signing_in(request, work, context);
            }
            (_, Request::Unknown(tag)) => {
                let detail = format!("this node does not know request {tag}");
                self.refuse(request, WireError::field(ErrorCode::BadFrame, "tag", detail));
            }
            (State::SigningIn, _) => self.refuse(request, WireError::new(ErrorCode::NotSignedIn)),
            (_, Request::Hello(_)) => {
                self.refuse(request, WireError::detail(ErrorCode::BadFrame, "hello was said already"));
            }
            (State::New, _) => self.refuse(request, WireError::detail(ErrorCode::BadFrame, "say hello first")),
            (State::Greeted, _) => self.refuse(request, WireError::new(ErrorCode::NotSignedIn)),
        }
    }

    fn refuse(&self, request: RequestId, error: WireError) {
        self.out.answer(request, Answer::Refused(error));
    }

    fn signing_in(
        &mut self,
        request: RequestId,
        work: impl Future<Output = Result<(Identity, SignedIn), WireError>> + 'static,
        context: &mut Context<Self>,
    ) {
        self.state = State::SigningIn;
        context.spawn(wrap_future::<_, Self>(work).map(move |result, actor, context| match result {
            Ok((identity, signed_in)) => {
                let handle = SessionHandle::new(identity, actor.out.clone(), context.address());
                actor.shared.sessions.entered(&handle);
                actor.state = State::SignedIn(handle);
                tokio::spawn(media::api::serve(actor.shared.clone(), actor.link.clone(), identity));
                actor.out.answer(request, Answer::SignedIn(signed_in));
                actor.guard(context);
            }
            Err(error) => {
                actor.state = State::Greeted;
                actor.refuse(request, error);
            }
        }));
    }

    fn serve(&mut self, request: RequestId, me: Identity, body: Request, context: &mut Context<Self>) {
        let shared = &self.shared;
        let now_ms = (shared.clock)();
        let priority = Priority::of(&body, me.user, now_ms);
        // A stranger's tag is told apart below.
        if !matches!(body, Request::Unknown(_))
            && let Err(error) = shared.overload.admit(priority)
        {
            return self.refuse(request, error);
        }
        if let Err(wait) = self.bucket.take(shared.limits.requests, now_ms) {
            limits::limited("requests-per-device");
            return self.refuse(request, limits::refusal(wait));
        }
        if let Err(wait) = shared.limits.take(&body, me.user, now_ms) {
            return self.refuse(request, limits::refusal(wait));
        }
        priority::with(Some(priority.into()), || self.carry_out(request, me, body, context));
    }

    fn carry_out(&mut self, request: RequestId, me: Identity, body: Request, context: &mut Context<Self>) {
        let (shared, out) = (&self.shared, &self.out);
        match body {
            Request::Sync(_) => self.sync(request, context),
            Request::Unknown(tag) => {
                let detail = format!("this node does not know request {tag}");
                self.refuse(request, WireError::field(ErrorCode::BadFrame, "tag", detail));
            }
            Request::Hello(_)
            | Request::SignUp(_)
            | Request::SignUpInvited(_)
            | Request::SignIn(_)
            | Request::SignInByToken(_)
            | Request::Resume(_) => {
                self.refuse(request, WireError::detail(ErrorCode::BadFrame, "this session is signed in already"));
            }
            body => pass_on(shared, out, request, me, body),
        }
    }
}

/// To the subsystem that it is for.
fn pass_on(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity, body: Request) {
    match body {
        Request::Post(post) => match media::api::blobs_of(&post.content) {
            blobs if blobs.is_empty() => chat::api::post(shared, out, request, me, post),
            blobs => media::api::post(shared, out, request, me, post, blobs),
        },
        Request::Pull(pull) => chat::api::pull(shared, out, request, me, &pull),
        Request::MarkRead(read) => chat::api::mark_read(shared, out, request, me, &read),
        Request::CreateGroup(create) => chat::api::create_group(shared, out, request, me, create),
        Request::Members(members) => chat::api::members(shared, out, request, me, &members),
        Request::Join(body) => chat::api::join(shared, out, request, me, &body),
        Request::AskGroup(body) => chat::api::group(shared, out, request, me, &body),
        Request::Signal(body) => chat::api::signal(shared, out, request, me, &body),
        Request::AskReadBy(body) => chat::reading::read_by(shared, out, request, me, &body),
        Request::SetConversation(body) => personal::api::set_conversation(shared, out, request, me, body),
        Request::Settings(_) => personal::api::settings(shared, out, request, me),
        Request::Hide(body) => personal::api::hide(shared, out, request, me, body),
        Request::AddFavourite(body) => personal::api::add_favourite(shared, out, request, me, body),
        Request::RemoveFavourite(body) => personal::api::remove_favourite(shared, out, request, me, &body),
        Request::Favourites(body) => personal::api::favourites(shared, out, request, me, &body),
        Request::SearchMessages(body) => search::api::messages(shared, out, request, me, body),
        Request::SearchNames(body) => search::api::names(shared, out, request, me, body),
        body => of_people(shared, out, request, me, body),
    }
}

/// Contacts and accounts.
fn of_people(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity, body: Request) {
    match body {
        Request::Find(find) => contact::api::find(shared, out, request, find),
        Request::FindPhone(body) => contact::api::find_phone(shared, out, request, body),
        Request::FindCode(body) => contact::api::find_code(shared, out, request, &body),
        Request::Who(body) => contact::api::who(shared, out, request, &body),
        Request::Profiles(body) => contact::api::profiles(shared, out, request, body),
        Request::RequestContact(body) => contact::api::request(shared, out, request, me, body),
        Request::AcceptContact(body) => contact::api::accept(shared, out, request, me, &body),
        Request::RefuseContact(body) => contact::api::refuse(shared, out, request, me, &body),
        Request::SetContact(body) => contact::api::set(shared, out, request, me, body),
        Request::Block(body) => contact::api::block(shared, out, request, me, &body),
        Request::DeleteContact(body) => contact::api::delete(shared, out, request, me, &body),
        Request::Contacts(body) => contact::api::contacts(shared, out, request, me, &body),
        Request::Cards(body) => contact::api::cards(shared, out, request, me, &body),
        Request::Shake(body) => contact::api::shake(shared, out, request, me, body),
        Request::SignOut(body) => account::api::sign_out(shared, out, request, me, &body),
        Request::Devices(_) => account::api::devices(shared, out, request, me),
        Request::AskAccount(_) => account::api::account(shared, out, request, me),
        Request::SetProfile(body) => account::api::set_profile(shared, out, request, me, body),
        Request::SetPrivacy(body) => account::api::set_privacy(shared, out, request, me, body),
        Request::SetPhone(body) => account::api::set_phone(shared, out, request, me, body),
        Request::NewCode(_) => account::api::new_code(shared, out, request, me),
        Request::ChangePassword(body) => account::api::change_password(shared, out, request, me, body),
        Request::CloseAccount(body) => account::api::close(shared, out, request, me, body),
        Request::AskOnline(body) => account::api::ask_online(shared, out, request, me, body),
        other => {
            let detail = format!("request {} is not served here", other.tag());
            out.answer(request, Answer::Refused(WireError::field(ErrorCode::BadFrame, "tag", detail)));
        }
    }
}
