//! What devices ask.

use magpie_protocol::{
    Request,
    frame::{account::*, contact::*, conversation::*, hello::*, personal::*, sync::*},
};
use proptest::{collection::vec, option::of, prelude::*, sample::select};

use super::{
    blob_ref, conversation, device, incarnation, messages::content, number, signed, small, text, timeline, user, users,
    wide,
};

/// Any request.
pub(crate) fn request() -> impl Strategy<Value = Request> {
    select(Request::TAGS).prop_flat_map(|(tag, name)| match tag {
        1..=31 => account_of(tag, name),
        32..=47 => contact_of(tag, name),
        48..=63 => conversation_of(tag, name),
        64..=79 => sync_of(tag, name),
        80..=95 => personal_of(tag, name),
        _ => super::search::request_of(tag, name),
    })
}

fn proof() -> impl Strategy<Value = [u8; 64]> {
    any::<[u8; 64]>()
}

fn key() -> impl Strategy<Value = DeviceKey> {
    (any::<[u8; 32]>(), proof(), text()).prop_map(|(public_key, proof, name)| DeviceKey { public_key, proof, name })
}

fn account_of(tag: u16, name: &str) -> BoxedStrategy<Request> {
    match tag {
        1 => (any::<u8>(), any::<u8>(), text())
            .prop_map(|(version_min, version_max, agent)| Request::Hello(Hello { version_min, version_max, agent }))
            .boxed(),
        16 => (text(), text(), key())
            .prop_map(|(handle, password, device)| Request::SignUp(SignUp { handle, password, device }))
            .boxed(),
        17 => (text(), text(), key())
            .prop_map(|(handle, password, device)| Request::SignIn(SignIn { handle, password, device }))
            .boxed(),
        18 => (vec(any::<u8>(), 0..300), proof())
            .prop_map(|(token, proof)| Request::Resume(Resume { token, proof }))
            .boxed(),
        19 => device().prop_map(|device| Request::SignOut(SignOut { device })).boxed(),
        20 => Just(Request::Devices(Devices)).boxed(),
        21 => Just(Request::AskAccount(AskAccount)).boxed(),
        22 => (of(text()), of(of(blob_ref())), of(text()), of(text()))
            .prop_map(|(nickname, avatar, region, signature)| {
                Request::SetProfile(SetProfile { nickname, avatar, region, signature })
            })
            .boxed(),
        23 => any::<[Option<bool>; 4]>()
            .prop_map(|[by_phone, by_handle, show_typing, show_online]| {
                Request::SetPrivacy(SetPrivacy { by_phone, by_handle, show_typing, show_online })
            })
            .boxed(),
        24 => text().prop_map(|phone| Request::SetPhone(SetPhone { phone })).boxed(),
        25 => Just(Request::NewCode(NewCode)).boxed(),
        26 => (text(), text()).prop_map(|(old, new)| Request::ChangePassword(ChangePassword { old, new })).boxed(),
        27 => text().prop_map(|password| Request::CloseAccount(CloseAccount { password })).boxed(),
        28 => users().prop_map(|users| Request::AskOnline(AskOnline { users })).boxed(),
        29 => (text(), text(), key(), text())
            .prop_map(|(handle, password, device, invitation)| {
                Request::SignUpInvited(SignUpInvited { sign_up: SignUp { handle, password, device }, invitation })
            })
            .boxed(),
        30 => {
            (text(), key()).prop_map(|(token, device)| Request::SignInByToken(SignInByToken { token, device })).boxed()
        }
        _ => panic!("request {name} has no strategy"),
    }
}

fn contact_of(tag: u16, name: &str) -> BoxedStrategy<Request> {
    match tag {
        32 => text().prop_map(|handle| Request::Find(Find { handle })).boxed(),
        33 => (user(), text())
            .prop_map(|(user, greeting)| Request::RequestContact(RequestContact { user, greeting }))
            .boxed(),
        34 => user().prop_map(|user| Request::AcceptContact(AcceptContact { user })).boxed(),
        35 => user().prop_map(|after| Request::Contacts(Contacts { after })).boxed(),
        36 => user().prop_map(|user| Request::Who(Who { user })).boxed(),
        37 => user().prop_map(|user| Request::RefuseContact(RefuseContact { user })).boxed(),
        38 => (user(), of(text()), of(vec(text(), 0..5)), any::<Option<bool>>())
            .prop_map(|(user, remark, tags, starred)| Request::SetContact(SetContact { user, remark, tags, starred }))
            .boxed(),
        39 => (user(), any::<bool>()).prop_map(|(user, on)| Request::Block(Block { user, on })).boxed(),
        40 => user().prop_map(|user| Request::DeleteContact(DeleteContact { user })).boxed(),
        41 => user().prop_map(|after| Request::Cards(Cards { after })).boxed(),
        42 => text().prop_map(|phone| Request::FindPhone(FindPhone { phone })).boxed(),
        43 => (user(), number()).prop_map(|(user, code)| Request::FindCode(FindCode { user, code })).boxed(),
        44 => (signed(), signed())
            .prop_map(|(latitude_e2, longitude_e2)| Request::Shake(Shake { latitude_e2, longitude_e2 }))
            .boxed(),
        45 => users().prop_map(|users| Request::Profiles(Profiles { users })).boxed(),
        _ => panic!("request {name} has no strategy"),
    }
}

fn conversation_of(tag: u16, name: &str) -> BoxedStrategy<Request> {
    match tag {
        48 => (conversation(), incarnation(), number(), content())
            .prop_map(|(conversation, incarnation, number, content)| {
                Request::Post(Post { conversation, incarnation, number, content })
            })
            .boxed(),
        49 => (wide(), text(), vec(user(), 0..20))
            .prop_map(|(nonce, title, members)| Request::CreateGroup(CreateGroup { nonce, title, members }))
            .boxed(),
        50 => conversation().prop_map(|conversation| Request::Members(Members { conversation })).boxed(),
        51 => (conversation(), number())
            .prop_map(|(conversation, code)| Request::Join(Join { conversation, code }))
            .boxed(),
        52 => conversation().prop_map(|conversation| Request::AskGroup(AskGroup { conversation })).boxed(),
        53 => (conversation(), any::<u16>())
            .prop_map(|(conversation, kind)| Request::Signal(Signal { conversation, kind }))
            .boxed(),
        54 => conversation().prop_map(|conversation| Request::AskReadBy(AskReadBy { conversation })).boxed(),
        _ => panic!("request {name} has no strategy"),
    }
}

fn sync_of(tag: u16, name: &str) -> BoxedStrategy<Request> {
    match tag {
        64 => Just(Request::Sync(Sync)).boxed(),
        65 => (timeline(), number(), small())
            .prop_map(|(timeline, after, limit)| Request::Pull(Pull { timeline, after, limit }))
            .boxed(),
        66 => (conversation(), number())
            .prop_map(|(conversation, number)| Request::MarkRead(MarkRead { conversation, number }))
            .boxed(),
        _ => panic!("request {name} has no strategy"),
    }
}

fn personal_of(tag: u16, name: &str) -> BoxedStrategy<Request> {
    match tag {
        80 => (conversation(), any::<[Option<bool>; 3]>(), of(number()))
            .prop_map(|(conversation, [pinned, do_not_disturb, saved], hidden_at)| {
                Request::SetConversation(SetConversation { conversation, pinned, do_not_disturb, saved, hidden_at })
            })
            .boxed(),
        81 => Just(Request::Settings(Settings)).boxed(),
        82 => (conversation(), number(), vec(number(), 0..20))
            .prop_map(|(conversation, up_to, numbers)| Request::Hide(Hide { conversation, up_to, numbers }))
            .boxed(),
        83 => (conversation(), number())
            .prop_map(|(conversation, number)| Request::AddFavourite(AddFavourite { conversation, number }))
            .boxed(),
        84 => number().prop_map(|id| Request::RemoveFavourite(RemoveFavourite { id })).boxed(),
        85 => number().prop_map(|before| Request::Favourites(Favourites { before })).boxed(),
        _ => panic!("request {name} has no strategy"),
    }
}
