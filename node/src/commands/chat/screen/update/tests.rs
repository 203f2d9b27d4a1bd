use magpie_client::{ContactState, Content, ConversationSettings, Kind};
use ratatui::crossterm::event::KeyCode;

use super::*;
use crate::commands::chat::screen::{
    command::WithPerson,
    message::Answer,
    sample::{self, BOB, CAROL, ME, chat, control, direct, grouping, line, press, state, talking, text},
    state::Overlay,
};

fn contents(effects: &[Effect]) -> Vec<&Content> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Post { content, .. } = effect { Some(content) } else { None })
        .collect()
}

fn asks(effects: &[Effect]) -> Vec<&Ask> {
    effects.iter().filter_map(|effect| if let Effect::Ask(ask) = effect { Some(ask) } else { None }).collect()
}

fn arrived(state: &mut State, id: ConversationId, entry: Entry) -> Vec<Effect> {
    state.on(Input::Arrived { conversation: Some(id), entry })
}

#[test]
fn what_is_pinned_comes_first_then_what_is_newest_and_the_hidden_come_back_with_a_message() {
    let mut state = state();
    let order = |state: &State| state.list().iter().map(|chat| chat.id).collect::<Vec<_>>();
    assert_eq!(order(&state), [direct(), sample::group()], "the direct one has the newer entry");
    let mut chats = sample::chats();
    chats[1].settings.pinned = true;
    state.on(sample::lists(chats.clone()));
    assert_eq!(order(&state), [sample::group(), direct()]);
    chats[0].settings = ConversationSettings { hidden_at: chats[0].cursor, ..chats[0].settings.clone() };
    state.on(sample::lists(chats.clone()));
    assert_eq!(order(&state), [sample::group()]);
    chats[0].cursor += 1;
    state.on(sample::lists(chats));
    assert_eq!(order(&state).len(), 2);
}

#[test]
fn a_text_waits_until_the_conversation_has_it() {
    let mut state = talking();
    let effects = line(&mut state, "on my way");
    assert_eq!(contents(&effects), [&Content::Text("on my way".into())]);
    assert!(state.draft().is_some_and(|draft| draft.is_empty()));
    let key = state.pending[0].key;
    assert_eq!(state.pending[0].state, Sent::Waiting);
    state.on(Input::Posted { key, result: Ok(sample::posted(11)) });
    assert_eq!(state.pending[0].state, Sent::Acknowledged(11), "its entry is not here yet");
    let mut entries = sample::direct_entries();
    entries.push(text(11, ME, "on my way"));
    state.on(sample::window(direct(), entries));
    assert!(state.pending.is_empty());
}

#[test]
fn a_refused_text_stays_with_the_reason() {
    let mut state = talking();
    line(&mut state, "hello?");
    let key = state.pending[0].key;
    state.on(Input::Posted { key, result: Err("this person takes no messages from you".into()) });
    let why = "this person takes no messages from you".to_owned();
    assert_eq!(state.pending[0].refusal(), Some(&Refusal { why, after: 10 }));
    line(&mut state, "/recall");
    let key = state.pending[1].key;
    state.on(Input::Posted { key, result: Err("the time for this is over".into()) });
    assert_eq!(state.pending.len(), 1, "what is no message is told once and not kept");
    assert!(state.notice.as_ref().unwrap().text.contains("the time for this is over"));
}

#[test]
fn without_a_connection_what_is_said_is_kept_and_what_is_asked_is_not() {
    let mut state = talking();
    state.on(Input::Link(Link::Offline("gone".into())));
    assert_eq!(contents(&line(&mut state, "later")).len(), 1);
    assert!(state.notice.as_ref().unwrap().text.contains("kept"));
    assert!(line(&mut state, "/devices").is_empty());
    assert!(state.notice.as_ref().unwrap().text.contains("not connected"));
}

#[test]
fn what_is_done_now_takes_away_what_was_said_of_something_else() {
    let mut state = talking();
    for next in ["hello", "/members", "/group lunch carol"] {
        line(&mut state, "/group lunch");
        assert!(state.notice.as_ref().unwrap().text.contains("usage"));
        control(&mut state, 'u');
        line(&mut state, next);
        let said = state.notice.as_ref().map(|notice| notice.text.clone()).unwrap_or_default();
        assert!(!said.contains("usage"), "{next}: {said}");
        state.overlays.clear();
    }
    state.say("✉ bob: hi");
    line(&mut state, "hello");
    assert!(state.notice.is_some(), "what others write is no word on it");
}

#[test]
fn a_draft_belongs_to_its_conversation() {
    let mut state = talking();
    "half a".chars().for_each(|c| drop(press(&mut state, KeyCode::Char(c))));
    state.open(sample::group());
    assert!(state.draft().is_none_or(|draft| draft.is_empty()));
    state.open(direct());
    assert_eq!(state.draft().unwrap().text(), "half a");
}

#[test]
fn messages_elsewhere_are_told_but_not_where_one_looks_nor_where_one_is_not_to_be_disturbed() {
    let mut state = talking();
    let group = sample::group();
    assert!(arrived(&mut state, direct(), text(11, BOB, "here")).is_empty());
    assert_eq!(arrived(&mut state, group, text(5, CAROL, "there")), [Effect::Bell]);
    assert!(state.notice.as_ref().unwrap().text.contains("carol: there"));
    assert!(arrived(&mut state, group, text(6, ME, "my own, from my phone")).is_empty());
    state.chats.get_mut(&group).unwrap().settings.do_not_disturb = true;
    assert!(arrived(&mut state, group, text(7, CAROL, "quiet")).is_empty());
    let meant = sample::group_entries().pop().unwrap();
    assert_eq!(arrived(&mut state, group, meant), [Effect::Bell], "who is meant is told all the same");
    state.on(Input::Focus(false));
    assert_eq!(arrived(&mut state, direct(), text(12, BOB, "are you there")), [Effect::Bell]);
    state.on(Input::Link(Link::Offline(String::new())));
    assert!(arrived(&mut state, direct(), text(13, BOB, "missed")).is_empty(), "what was missed rings no bell");
}

#[test]
fn what_is_looked_at_is_read_and_stays_read() {
    let mut state = state();
    assert_eq!(state.unread(), 2);
    let group = sample::group();
    state.open(group);
    let effects = state.on(sample::window(group, sample::group_entries()));
    assert!(effects.contains(&Effect::MarkRead { conversation: group, number: 4 }));
    assert_eq!(state.unread(), 0);
    // The store does not know of it yet.
    state.on(sample::lists(sample::chats()));
    assert_eq!(state.unread(), 0);
    assert_eq!(state.talk.as_ref().unwrap().read_before, 2, "but what was new stays marked while it is open");
    press(&mut state, KeyCode::Esc);
    let mut chats = sample::chats();
    chats[1] = chat(group, "lunch", [sample::group_entries(), vec![text(5, CAROL, "more")]].concat(), 4);
    state.on(sample::lists(chats));
    assert_eq!(state.unread(), 1);
}

#[test]
fn scrolling_back_asks_for_older_entries_once_and_new_ones_move_nothing() {
    let mut state = state();
    state.open(direct());
    let many = |from: u64, to: u64| (from..=to).map(|n| text(n, BOB, &format!("line {n}"))).collect::<Vec<_>>();
    state.on(Input::Window { conversation: direct(), entries: many(100, 200), reactions: vec![], at_start: false });
    let mut loads = Vec::new();
    for _ in 0..40 {
        loads.extend(press(&mut state, KeyCode::PageUp));
    }
    assert_eq!(loads, [Effect::Load { conversation: direct(), from: 0 }]);
    let shown = |state: &State| {
        let (columns, height) = state.talk_size();
        let rows = rows::rows(state, columns);
        let to = rows.len() - state.talk.as_ref().unwrap().scroll;
        rows[to - height..to].iter().map(|row| row.line.to_string()).collect::<Vec<_>>()
    };
    press(&mut state, KeyCode::PageDown);
    let before = shown(&state);
    state.on(Input::Window { conversation: direct(), entries: many(100, 220), reactions: vec![], at_start: false });
    assert_eq!(shown(&state), before);
    state.on(Input::Window { conversation: direct(), entries: many(1, 220), reactions: vec![], at_start: true });
    assert_eq!(shown(&state)[5..], before[5..], "but for the rule at the top");
}

#[test]
fn a_chosen_message_is_answered_edited_recalled_and_signed() {
    let mut state = talking();
    press(&mut state, KeyCode::Up);
    press(&mut state, KeyCode::Up);
    assert_eq!(state.talk.as_ref().unwrap().chosen, Some(6), "the recalled one is passed over");
    press(&mut state, KeyCode::Char('r'));
    let effects = line(&mut state, "yes");
    let Content::Say(said) = contents(&effects)[0] else { panic!("{effects:?}") };
    assert_eq!((said.quote, &said.kind), (6, &Kind::Text("yes".into())));
    assert_eq!(contents(&line(&mut state, "/recall")), [&Content::Recall(5)], "the newest of one's own");
    (0..3).for_each(|_| drop(press(&mut state, KeyCode::Up)));
    assert_eq!(state.talk.as_ref().unwrap().chosen, Some(5));
    press(&mut state, KeyCode::Char('e'));
    assert_eq!(state.draft().unwrap().text(), "I am here now");
    let effects = line(&mut state, "!");
    let Content::Edit(edit) = contents(&effects)[0] else { panic!("{effects:?}") };
    assert_eq!((edit.number, &edit.kind), (5, &Kind::Text("I am here now!".into())));
    let on = |effects: &[Effect]| matches!(contents(effects)[0], Content::React(react) if react.on);
    assert!(on(&line(&mut state, "/react 👍")));
    state.talk.as_mut().unwrap().reactions[0].user = ME;
    (0..3).for_each(|_| drop(press(&mut state, KeyCode::Up)));
    press(&mut state, KeyCode::Char('+'));
    assert!(!on(&line(&mut state, "❤")), "the same sign again takes it off");
}

#[test]
fn a_code_is_shown_without_another_being_made_and_keeps_who_lets_in() {
    let mut state = grouping();
    let set = |effects: Vec<Effect>| match asks(&effects)[..] {
        [Ask::SetCode { code, approval, .. }] => (*code, *approval),
        _ => panic!("{effects:?}"),
    };
    assert!(line(&mut state, "/code").is_empty());
    assert!(state.notice.as_ref().unwrap().text.contains("/code new"));
    assert_eq!(set(line(&mut state, "/code approve")), (None, true), "there is none that could stay");
    let group = state.talk.as_mut().unwrap().group.as_mut().unwrap();
    (group.join_code, group.join_approval) = (77, true);
    assert!(line(&mut state, "/code").is_empty());
    let Some(Overlay::Text(_, text, _)) = state.overlays.pop() else { panic!("no code") };
    assert!(text.starts_with("magpie:g/") && text.contains("An administrator lets them in"), "{text}");
    assert_eq!(set(line(&mut state, "/code new")), (None, true));
    assert_eq!(set(line(&mut state, "/code open")), (Some(77), false));
    assert_eq!(set(line(&mut state, "/code off")), (Some(0), false));
}

#[test]
fn who_is_meant_by_a_name_is_told_so() {
    let mut state = grouping();
    let effects = line(&mut state, "@The Cook and @bobby, what about @bob?");
    let Content::Say(said) = contents(&effects)[0] else { panic!("{effects:?}") };
    assert_eq!(said.mentions, [BOB, CAROL]);
    let effects = line(&mut state, "@all: now");
    let Content::Say(said) = contents(&effects)[0] else { panic!("{effects:?}") };
    assert_eq!(said.mentions, [UserId::EVERYONE]);
    state.talk.as_mut().unwrap().group.as_mut().unwrap().owner = BOB;
    assert_eq!(contents(&line(&mut state, "@all: now")), [&Content::Text("@all: now".into())]);
}

#[test]
fn people_are_found_before_something_is_done_with_them() {
    let mut state = state();
    assert_eq!(asks(&state.run(super::super::command::Command::Find("erin".into()))).len(), 1);
    state.open(direct());
    let effects = line(&mut state, "/to erin");
    assert_eq!(asks(&effects), [&Ask::Find("erin".into(), WithPerson::Talk)]);
    let found = magpie_client::Found { user: UserId::from_bits(9), handle: "erin".into() };
    let effects = state.on(Input::Answer(Answer::Found(found, WithPerson::Talk)));
    assert_eq!(asks(&effects), [&Ask::Reach(UserId::from_bits(9))]);
    // Whoever is writing somewhere is not taken away when the other agrees.
    state.on(Input::Answer(Answer::Reached { user: UserId::from_bits(9), asked: true }));
    assert_eq!(state.awaited, None);
    assert_eq!(asks(&line(&mut state, "/to dave")), [&Ask::Accept(UserId::from_bits(4))], "who asks is accepted");
    // Who was taken off the contacts is asked anew; who is one is not.
    assert!(!asks(&line(&mut state, "/to bob")).contains(&&Ask::Reach(BOB)));
    state.names.cards.get_mut(&BOB).unwrap().state = None;
    assert!(asks(&line(&mut state, "/to bob")).contains(&&Ask::Reach(BOB)));
    assert_eq!(state.talk.as_ref().unwrap().id, direct());
}

#[test]
fn a_request_is_accepted_and_the_conversation_opens_when_it_comes() {
    let mut state = state();
    press(&mut state, KeyCode::F(2));
    let at = state.lines(Tab::Contacts).iter().position(|line| line.label == "dave").unwrap();
    state.line_at[1] = at;
    press(&mut state, KeyCode::Enter);
    let Some(Overlay::Menu(menu)) = state.overlays.last() else { panic!("no menu") };
    assert!(menu.items.iter().any(|(label, _)| label.contains("we met at the lake")));
    assert_eq!(menu.items[menu.at].0, "Accept");
    let dave = UserId::from_bits(4);
    assert_eq!(asks(&press(&mut state, KeyCode::Enter)), [&Ask::Accept(dave)]);
    state.on(Input::Answer(Answer::Accepted(dave)));
    let id = ConversationId::direct(ME, dave);
    state.on(sample::lists([sample::chats(), vec![chat(id, "", vec![], 0)]].concat()));
    assert_eq!(state.talk.as_ref().unwrap().id, id);
}

#[test]
fn what_others_say_is_neither_edited_nor_recalled_and_headings_are_passed_over() {
    let mut state = talking();
    press(&mut state, KeyCode::Up);
    for key in ['e', 'x'] {
        assert_eq!(state.chosen().unwrap().sender, BOB);
        assert!(press(&mut state, KeyCode::Char(key)).is_empty());
        assert!(state.notice.take().unwrap().text.contains("only your own"));
    }
    press(&mut state, KeyCode::F(2));
    for (key, times) in [(KeyCode::Down, 20), (KeyCode::Up, 20), (KeyCode::PageDown, 3), (KeyCode::PageUp, 3)] {
        for _ in 0..times {
            press(&mut state, key);
            let line = state.lines(Tab::Contacts).swap_remove(state.line_at[1]);
            assert!(!line.is_heading(), "{line:?}");
        }
    }
    assert_eq!(state.line_at[1], 0);
}

#[test]
fn a_group_is_made_of_people_who_are_chosen() {
    let mut state = state();
    press(&mut state, KeyCode::Char('n'));
    press(&mut state, KeyCode::Char(' '));
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Char(' '));
    press(&mut state, KeyCode::Enter);
    let effects = line(&mut state, "picnic");
    assert_eq!(asks(&effects), [&Ask::CreateGroup("picnic".into(), vec![BOB, CAROL])]);
}

#[test]
fn what_cannot_be_undone_is_asked_twice() {
    let mut state = grouping();
    assert!(line(&mut state, "/dissolve").is_empty());
    press(&mut state, KeyCode::Char('n'));
    assert!(state.overlays.is_empty());
    line(&mut state, "/dissolve");
    assert_eq!(contents(&press(&mut state, KeyCode::Char('y'))).len(), 1);
    assert_eq!(asks(&line(&mut state, "/mycode")), [&Ask::MyCode]);
    assert!(!control(&mut state, 'c').contains(&Effect::Quit));
    assert!(control(&mut state, 'c').contains(&Effect::Quit));
}

#[test]
fn others_are_told_that_one_types_but_not_with_every_key_nor_of_commands() {
    let mut state = talking();
    assert_eq!(press(&mut state, KeyCode::Char('h')), [Effect::Typing(direct())]);
    assert!(press(&mut state, KeyCode::Char('i')).is_empty());
    state.on(Input::Tick(state.now_ms + 5_000));
    assert_eq!(press(&mut state, KeyCode::Char('!')), [Effect::Typing(direct())]);
    press(&mut state, KeyCode::Enter);
    assert!(press(&mut state, KeyCode::Char('/')).is_empty());
    state.on(Input::Signalled { conversation: direct(), user: BOB, kind: 1 });
    assert!(state.typing.contains_key(&direct()));
    arrived(&mut state, direct(), text(11, BOB, "done"));
    assert!(state.typing.is_empty());
    state.on(Input::Signalled { conversation: direct(), user: BOB, kind: 1 });
    state.on(Input::Tick(state.now_ms + 7_000));
    assert!(state.typing.is_empty());
}

#[test]
fn a_text_that_is_too_long_is_not_lost() {
    let mut state = talking();
    state.on(Input::Paste("x".repeat(20_000)));
    assert!(press(&mut state, KeyCode::Enter).is_empty());
    assert_eq!(state.draft().unwrap().text().len(), 20_000);
    assert!(state.requests() == 1 && state.names.cards[&UserId::from_bits(4)].state == Some(ContactState::Waiting));
}

#[test]
fn what_was_found_is_gone_to() {
    let mut state = state();
    let hit = text(40, CAROL, "the word");
    state.on(Input::Answer(Answer::Hits {
        words: "WORD".into(),
        hits: vec![(sample::group(), hit)],
        more: false,
        far: Box::default(),
    }));
    let effects = press(&mut state, KeyCode::Enter);
    let load = Effect::Load { conversation: sample::group(), from: 0 };
    assert!(effects.contains(&load) && effects.iter().filter(|e| matches!(e, Effect::Load { .. })).count() == 1);
    let entries = (1..=300).map(|n| text(n, CAROL, if n == 40 { "the word" } else { "other" })).collect();
    state.on(sample::window(sample::group(), entries));
    let (columns, height) = state.talk_size();
    let rows = rows::rows(&state, columns);
    let to = rows.len() - state.talk.as_ref().unwrap().scroll;
    assert!(rows[to - height..to].iter().any(|row| row.number == Some(40)));
    // A contact is found by name.
    state.on(Input::Answer(Answer::Hits { words: "bob".into(), hits: vec![], more: false, far: Box::default() }));
    let Some(Overlay::Menu(menu)) = state.overlays.last() else { panic!() };
    assert_eq!(menu.items[0].0, "☺ Bob B");
}

#[test]
fn what_an_earlier_run_did_not_send_is_shown_as_waiting() {
    let mut state = talking();
    let lists = |earlier| Input::Lists {
        chats: sample::chats(),
        cards: sample::cards(),
        profile: Default::default(),
        unresolved: 1,
        earlier,
    };
    line(&mut state, "now");
    state.on(lists(vec![(direct(), Content::Text("then".into()))]));
    let said: Vec<_> = state.pending.iter().filter_map(rows::said).collect();
    assert_eq!(said, ["then", "now"]);
    let why = "you are not contacts".to_owned();
    state.on(Input::NotSent { conversation: direct(), content: Content::Text("then".into()), why: why.clone() });
    assert_eq!(state.pending.len(), 2);
    state.on(lists(vec![]));
    assert_eq!(state.pending.len(), 2);
    assert_eq!(state.pending[0].refusal().map(|refusal| refusal.why.clone()), Some(why));
    control(&mut state, 't');
    assert_eq!(state.draft().unwrap().text(), "then");
}
