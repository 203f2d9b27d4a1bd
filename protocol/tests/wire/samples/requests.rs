//! What devices ask.

use magpie_protocol::{
    Request, TimelineId,
    frame::{account::*, contact::*, conversation::*, hello::*, personal::*, sync::*},
};

use super::{ALICE, BOB, PHONE, STORE, blob_ref, contents, direct, group};

fn device_key() -> DeviceKey {
    DeviceKey {
        public_key: std::array::from_fn(|i| i as u8),
        proof: std::array::from_fn(|i| 0xff - i as u8),
        name: "phone".into(),
    }
}

/// Every request tag; a second of the same tag is named by its number.
pub(crate) fn requests() -> Vec<Request> {
    let (handle, password) = (String::from("alice"), String::from("correct horse"));
    let mut all = vec![
        Request::Hello(Hello { version_min: 1, version_max: 1, agent: "magpie-client/0.1.0".into() }),
        Request::SignUp(SignUp { handle: handle.clone(), password: password.clone(), device: device_key() }),
        Request::SignIn(SignIn { handle, password, device: device_key() }),
        Request::Resume(Resume { token: vec![1, 2, 3, 250, 251, 255], proof: [7; 64] }),
        Request::SignOut(SignOut { device: PHONE }),
        Request::Devices(Devices),
        Request::Find(Find { handle: "bob".into() }),
        Request::RequestContact(RequestContact { user: BOB, greeting: "hi".into() }),
        Request::AcceptContact(AcceptContact { user: ALICE }),
        Request::Contacts(Contacts { after: ALICE }),
        Request::Who(Who { user: BOB }),
        Request::CreateGroup(CreateGroup { nonce: 1 << 127 | 5, title: "the nest".into(), members: vec![ALICE, BOB] }),
        Request::Members(Members { conversation: group() }),
        Request::Sync(Sync),
        Request::Pull(Pull { timeline: TimelineId::Conversation(direct()), after: 300, limit: 500 }),
        Request::Pull(Pull { timeline: TimelineId::Inbox(BOB), after: 0, limit: 1 }),
        Request::MarkRead(MarkRead { conversation: direct(), number: 301 }),
    ];
    all.extend(account());
    all.extend(contact());
    all.extend(conversation());
    all.extend(personal());
    all.extend(super::search::requests());
    let posts = contents().into_iter().zip(1..);
    all.extend(
        posts.map(|(content, number)| {
            Request::Post(Post { conversation: direct(), incarnation: STORE, number, content })
        }),
    );
    all
}

fn account() -> Vec<Request> {
    let unchanged = SetProfile { nickname: None, avatar: None, region: None, signature: None };
    vec![
        Request::AskAccount(AskAccount),
        Request::SetPrivacy(SetPrivacy {
            by_phone: None,
            by_handle: Some(true),
            show_typing: Some(false),
            show_online: None,
        }),
        Request::SetPhone(SetPhone { phone: "+4712345678".into() }),
        Request::NewCode(NewCode),
        Request::ChangePassword(ChangePassword { old: "correct horse".into(), new: "battery staple".into() }),
        Request::CloseAccount(CloseAccount { password: "correct horse".into() }),
        Request::AskOnline(AskOnline { users: vec![ALICE, BOB] }),
        Request::SignUpInvited(SignUpInvited {
            sign_up: SignUp { handle: "alice".into(), password: "correct horse".into(), device: device_key() },
            invitation: "come-in".into(),
        }),
        Request::SignInByToken(SignInByToken { token: "e30.e30.AA".into(), device: device_key() }),
        Request::SetProfile(SetProfile {
            nickname: Some("Alice".into()),
            avatar: Some(Some(blob_ref("image/webp"))),
            region: None,
            signature: Some(String::new()),
        }),
        Request::SetProfile(SetProfile { avatar: Some(None), ..unchanged.clone() }),
        Request::SetProfile(unchanged),
    ]
}

fn contact() -> Vec<Request> {
    vec![
        Request::RefuseContact(RefuseContact { user: BOB }),
        Request::SetContact(SetContact {
            user: BOB,
            remark: Some("Bob next door".into()),
            tags: Some(vec!["birds".into()]),
            starred: None,
        }),
        Request::SetContact(SetContact { user: BOB, remark: None, tags: None, starred: Some(true) }),
        Request::Block(Block { user: BOB, on: true }),
        Request::DeleteContact(DeleteContact { user: BOB }),
        Request::Cards(Cards { after: ALICE }),
        Request::FindPhone(FindPhone { phone: "+4712345678".into() }),
        Request::FindCode(FindCode { user: BOB, code: 0x0123_4567_89ab_cdef }),
        Request::Shake(Shake { latitude_e2: 6_039, longitude_e2: -532 }),
        Request::Profiles(Profiles { users: vec![BOB] }),
    ]
}

fn conversation() -> Vec<Request> {
    vec![
        Request::Join(Join { conversation: group(), code: 0xfeed_face_cafe_beef }),
        Request::AskGroup(AskGroup { conversation: group() }),
        Request::Signal(Signal { conversation: direct(), kind: 1 }),
        Request::AskReadBy(AskReadBy { conversation: group() }),
    ]
}

fn personal() -> Vec<Request> {
    vec![
        Request::SetConversation(SetConversation {
            conversation: group(),
            pinned: Some(true),
            do_not_disturb: None,
            saved: Some(false),
            hidden_at: Some(251),
        }),
        Request::Settings(Settings),
        Request::Hide(Hide { conversation: direct(), up_to: 0, numbers: vec![1, 250, 251] }),
        Request::AddFavourite(AddFavourite { conversation: direct(), number: 300 }),
        Request::RemoveFavourite(RemoveFavourite { id: 7 }),
        Request::Favourites(Favourites { before: 0 }),
    ]
}
