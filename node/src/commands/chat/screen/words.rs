//! What entries say, in words.

use magpie_client::{Body, ConversationId, ConversationKind, Entry, Kind, Message, UserId};

use super::{
    names::Names,
    state::State,
    text::{clean, size},
};

/// What a message says, for the conversation.
pub(super) fn kind(kind: &Kind) -> String {
    let file = |what: &str, blob: &magpie_client::message::BlobRef| format!("[{what}, {}]", size(blob.len));
    match kind {
        Kind::Text(text) => clean(text),
        Kind::Picture(picture) if picture.width > 0 => {
            format!("[Picture {}×{}, {}]", picture.width, picture.height, size(picture.blob.len))
        }
        Kind::Picture(picture) => file("Picture", &picture.blob),
        Kind::Voice(voice) => format!("[Voice, {} s]", voice.duration_ms.div_ceil(1000)),
        Kind::Video(video) => {
            format!("[Video, {} s, {}]", video.duration_ms.div_ceil(1000), size(video.blob.len))
        }
        Kind::File(sent) => format!("[File {}, {}]", line(&sent.name), size(sent.blob.len)),
        Kind::Location(place) => format!(
            "[Place] {} {} ({:.5}, {:.5})",
            line(&place.name),
            line(&place.address),
            f64::from(place.latitude_e7) / 1e7,
            f64::from(place.longitude_e7) / 1e7
        ),
        Kind::Card(card) => {
            let name = if card.nickname.is_empty() { &card.handle } else { &card.nickname };
            format!("[Contact card] {} ({})", line(name), line(&card.handle))
        }
        Kind::Sticker(sticker) => format!("[Sticker] {}", line(&sticker.meaning)),
        Kind::Link(link) => format!("{}\n{}\n{}", line(&link.title), line(&link.summary), line(&link.url)),
        Kind::Custom(custom) => format!("[{}: only its app can show this]", line(&custom.name)),
        Kind::Forwarded(forwarded) => {
            let items = forwarded.items.iter().map(|item| {
                let said = item.kind().map_or_else(|_| "[?]".to_owned(), |said| self::kind(&said).replace('\n', " "));
                format!("\n  {}: {said}", line(&item.sender))
            });
            format!("[{}]{}", line(&forwarded.title), items.collect::<String>())
        }
        Kind::Unknown(_) => "[only a newer version can show this]".to_owned(),
    }
}

fn line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

/// The message of an entry, if it is one that still stands.
pub(super) fn message(entry: &Entry) -> Option<Message> {
    match &entry.body {
        Body::Text(text) => Some(Message::new(Kind::Text(text.clone()))),
        Body::Message(said) => Some(said.message.clone()),
        _ => None,
    }
}

/// Whether an entry is a message, without copying it.
pub(super) fn is_message(entry: &Entry) -> bool {
    matches!(entry.body, Body::Text(_) | Body::Message(_))
}

/// Whether a message names a file.
pub(super) fn has_file(entry: &Entry) -> bool {
    message(entry).is_some_and(|message| !message.kind.blobs().is_empty())
}

/// Whether a message means this person in particular.
pub(super) fn mentions(entry: &Entry, user: UserId) -> bool {
    let Body::Message(said) = &entry.body else { return false };
    said.message.mentions.iter().any(|meant| *meant == user || *meant == UserId::EVERYONE)
}

/// Whom an entry is of or about.
pub(super) fn people(entry: &Entry) -> Vec<UserId> {
    let about = match &entry.body {
        Body::Joined(joined) => vec![joined.user, joined.by],
        Body::Removed(removed) => vec![removed.user, removed.by],
        Body::Left(user) | Body::OwnerChanged(user) | Body::JoinAsked(user) | Body::JoinRefused(user) => vec![*user],
        Body::AdminSet(set) => vec![set.user],
        Body::Muted(muted) => vec![muted.user],
        _ => Vec::new(),
    };
    std::iter::once(entry.sender).chain(about).collect()
}

/// What happened, other than that something was said; `None` for what goes without saying.
/// `others` are the entries around it, in order.
pub(super) fn event(
    entry: &Entry,
    others: &[Entry],
    conversation: ConversationId,
    names: &Names,
    me: UserId,
) -> Option<String> {
    let direct = conversation.kind() == Some(ConversationKind::Direct);
    let name = |user: UserId| if user == me { "you".to_owned() } else { names.name_in(conversation, user) };
    // With what the person is or was: "you are", "bob is".
    let is = |user: UserId| if user == me { "you are".to_owned() } else { format!("{} is", name(user)) };
    let by = name(entry.sender);
    Some(match &entry.body {
        Body::Created(_) if direct => "you can talk now".to_owned(),
        Body::Created(created) => format!("{by} made the group {}", line(&created.title)),
        Body::Joined(_) if direct => return None,
        // Whoever made the group.
        Body::Joined(joined) if joined.user == joined.by && entry.number <= 2 => return None,
        Body::Joined(joined) if joined.user == joined.by => format!("{} joined", name(joined.user)),
        Body::Joined(joined) => format!("{} brought {} in", name(joined.by), name(joined.user)),
        Body::Left(user) => format!("{} left", name(*user)),
        Body::Removed(removed) => format!("{} removed {}", name(removed.by), name(removed.user)),
        Body::Renamed(title) => format!("{by} named the group {}", line(title)),
        Body::Gone(gone) => {
            let whose = if entry.sender == me { "your message".to_owned() } else { format!("a message of {by}") };
            match others.binary_search_by_key(&gone.recalled, |other| other.number).ok().and_then(|at| others.get(at)) {
                Some(recall) if recall.sender == entry.sender => format!("{by} recalled a message"),
                Some(recall) => format!("{} recalled {whose}", name(recall.sender)),
                None => format!("{whose} was recalled"),
            }
        }
        Body::AdminSet(set) if set.on => format!("{} an administrator now", is(set.user)),
        Body::AdminSet(set) => format!("{} no longer an administrator", is(set.user)),
        Body::OwnerChanged(user) => format!("the group belongs to {} now", name(*user)),
        Body::Dissolved(_) => format!("{by} ended the group"),
        Body::Announced(text) if text.is_empty() => format!("{by} took the announcement down"),
        Body::Announced(text) => format!("announcement by {by}: {}", clean(text)),
        Body::AllMuted(true) => "only administrators may write now".to_owned(),
        Body::AllMuted(false) => "everyone may write again".to_owned(),
        Body::Muted(muted) if muted.until_ms == 0 => format!("{} may write again", name(muted.user)),
        Body::Muted(muted) => format!("{} may not write for a while", name(muted.user)),
        Body::Nicknamed(name) if name.is_empty() && entry.sender == me => "you go by your own name here".to_owned(),
        Body::Nicknamed(name) if name.is_empty() => format!("{by} goes by their own name here"),
        Body::Nicknamed(name) if entry.sender == me => format!("you are called {} here", line(name)),
        Body::Nicknamed(name) => format!("{} is called {} here", names.name(entry.sender), line(name)),
        Body::JoinSet(set) if set.open && set.approval => {
            format!("{by} opened the group to who has its code, once an administrator lets them in")
        }
        Body::JoinSet(set) if set.open => format!("{by} opened the group to who has its code"),
        Body::JoinSet(_) => format!("{by} closed the group's code"),
        Body::JoinAsked(user) => format!("{0} asks to be let in (/admit {0})", name(*user)),
        Body::JoinRefused(user) if *user == me => "you were not let in".to_owned(),
        Body::JoinRefused(user) => format!("{} was not let in", name(*user)),
        Body::Unknown(_) => "something that only a newer version can show".to_owned(),
        _ => return None,
    })
}

/// An entry on one line, for a list or a notice.
pub(super) fn summary(entry: &Entry, others: &[Entry], conversation: ConversationId, state: &State) -> Option<String> {
    let group = conversation.kind() == Some(ConversationKind::Group);
    match message(entry) {
        Some(message) => {
            let said = kind(&message.kind).replace('\n', " ");
            let by_me = entry.sender == state.me;
            Some(match (by_me, group) {
                (true, _) => format!("you: {said}"),
                (false, true) => format!("{}: {said}", state.names.name_in(conversation, entry.sender)),
                (false, false) => said,
            })
        }
        None => event(entry, others, conversation, &state.names, state.me).map(|text| text.replace('\n', " ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use magpie_client::{
        entry::{AdminSet, Gone, Joined, Said},
        message::{BlobRef, File, Forwarded, ForwardedItem},
    };

    #[test]
    fn every_kind_says_something_and_nothing_acts_on_the_terminal() {
        let blob = BlobRef { blob: magpie_client::ids::BlobId::from_hash([0; 32]), len: 2048, media_type: "x".into() };
        let file = Kind::File(File { blob, name: "a\u{1b}b.txt".into() });
        assert_eq!(kind(&file), "[File a\u{fffd}b.txt, 2.0 KiB]");
        let item = ForwardedItem { sender: "ann".into(), time_ms: 1, kind: Vec::new() };
        let forwarded = Kind::Forwarded(Forwarded { title: "Chat".into(), items: vec![item] });
        assert_eq!(kind(&forwarded), "[Chat]\n  ann: [?]");
    }

    #[test]
    fn a_recall_says_who_recalled_whose() {
        let (me, bob, owner) = (UserId::from_bits(1), UserId::from_bits(2), UserId::from_bits(3));
        let mut state = State::new(me, "alice", "");
        state.names.learn(bob, "bob");
        state.names.learn(owner, "olga");
        let told = |sender, recaller| {
            let gone = Entry { number: 4, time_ms: 0, sender, body: Body::Gone(Gone { recalled: 9 }) };
            let recall = Entry { number: 9, time_ms: 0, sender: recaller, body: Body::Recalled(4) };
            event(&gone, &[gone.clone(), recall], ConversationId::group(owner, 7), &state.names, me).unwrap()
        };
        assert_eq!(told(bob, bob), "bob recalled a message");
        assert_eq!(told(bob, owner), "olga recalled a message of bob");
        assert_eq!(told(me, owner), "olga recalled your message");
        assert_eq!(told(bob, me), "you recalled a message of bob");
        assert_eq!(told(me, me), "you recalled a message");
        let gone = Entry { number: 4, time_ms: 0, sender: bob, body: Body::Gone(Gone { recalled: 9 }) };
        let alone = event(&gone, &[], ConversationId::group(owner, 7), &state.names, me);
        assert_eq!(alone.unwrap(), "a message of bob was recalled", "the recall is not loaded");
    }

    #[test]
    fn what_happens_is_told_from_where_one_stands() {
        let (me, bob) = (UserId::from_bits(1), UserId::from_bits(2));
        let mut state = State::new(me, "alice", "");
        state.names.learn(bob, "bob");
        let group = ConversationId::group(me, 7);
        let entry = |body| Entry { number: 1, time_ms: 0, sender: bob, body };
        let told = |body| event(&entry(body), &[], group, &state.names, me);
        assert_eq!(told(Body::Joined(Joined { user: me, by: bob })).unwrap(), "bob brought you in");
        assert_eq!(told(Body::Left(bob)).unwrap(), "bob left");
        let admin = |user| Body::AdminSet(AdminSet { user, on: true });
        assert_eq!(told(admin(bob)).unwrap(), "bob is an administrator now");
        assert_eq!(told(admin(me)).unwrap(), "you are an administrator now");
        assert_eq!(told(Body::Nicknamed("Bobby".into())).unwrap(), "bob is called Bobby here");
        let mine = Entry { sender: me, ..entry(Body::Nicknamed("Al".into())) };
        assert_eq!(event(&mine, &[], group, &state.names, me).unwrap(), "you are called Al here");
        assert_eq!(told(Body::Recalled(3)), None);
        let said =
            Said { message: Message { mentions: vec![me], ..Message::new(Kind::Text("hi\nyou".into())) }, edited: 0 };
        let said = entry(Body::Message(said));
        assert!(mentions(&said, me) && !mentions(&said, bob));
        assert_eq!(summary(&said, &[], group, &state).unwrap(), "bob: hi you");
        assert_eq!(summary(&said, &[], ConversationId::direct(me, bob), &state).unwrap(), "hi you");
    }
}
