//! What the node said.

use magpie_client::{ContactState, ConversationId, DeviceInfo, Entry, Favourite, Found};

use super::super::{
    command::{Command, Person, WithPerson},
    message::{Answer, Effect, Far},
    rows::short_time,
    state::{Menu, Overlay, State},
    text::clean,
    words,
};

impl State {
    pub(super) fn on_answer(&mut self, answer: Answer) -> Vec<Effect> {
        match answer {
            Answer::Said(text) => {
                if !text.is_empty() {
                    self.say(text);
                }
                vec![Effect::Refresh]
            }
            Answer::Found(found, then) => {
                self.names.learn(found.user, &found.handle);
                self.with_person(Person::Is(found.user), then)
            }
            Answer::Reached { user, asked } => {
                // Who is in a conversation by then is not taken out of it.
                self.awaited = self.talk.is_none().then(|| ConversationId::direct(self.me, user));
                let name = self.names.name(user);
                self.say(match asked {
                    true => format!("asked {name} to talk; the conversation opens when {name} agrees"),
                    false => format!("you and {name} can talk"),
                });
                vec![Effect::Refresh]
            }
            Answer::Accepted(user) => {
                self.awaited = Some(ConversationId::direct(self.me, user));
                self.say(format!("you and {} can talk now", self.names.name(user)));
                vec![Effect::Refresh]
            }
            Answer::Made { conversation, learned } => {
                learned.iter().for_each(|found| self.names.learn(found.user, &found.handle));
                self.awaited = Some(conversation);
                vec![Effect::Refresh]
            }
            Answer::Joined { conversation, joined: true } => {
                self.awaited = Some(conversation);
                vec![Effect::Refresh]
            }
            Answer::Joined { joined: false, .. } => self.said("asked; an administrator has to let you in"),
            Answer::Group { conversation, info, members } => {
                self.names.learn_group(conversation, &info.nicknames);
                let people: Vec<_> = members.iter().chain(&info.waiting).copied().collect();
                if people.len() <= magpie_client::limits::PROFILES_MAX {
                    // One question tells what all of them are called by now.
                    people.iter().for_each(|user| self.names.ask_again_about(*user));
                }
                if let Some(talk) = self.talk.as_mut().filter(|talk| talk.id == conversation) {
                    (talk.group, talk.members) = (Some(info), members);
                }
                self.ask_names(people).into_iter().collect()
            }
            Answer::Outside(conversation) => {
                if let Some(talk) = self.talk.as_mut().filter(|talk| talk.id == conversation) {
                    talk.group = None;
                    talk.members.clear();
                }
                vec![Effect::Refresh]
            }
            Answer::Profiles(profiles) => {
                for shown in profiles {
                    if shown.user == self.me {
                        self.handle = shown.handle.clone();
                    }
                    self.names.learn_profile(shown);
                }
                Vec::new()
            }
            answer => self.on_list_answer(answer),
        }
    }

    fn on_list_answer(&mut self, answer: Answer) -> Vec<Effect> {
        match answer {
            Answer::Online(users) => self.online = users,
            Answer::Account(account) => {
                self.handle = clean(&account.handle);
                self.account = Some(account);
            }
            Answer::Show(title, text) => self.overlays.push(Overlay::Text(title, text, 0)),
            Answer::Devices(devices) => self.show_devices(&devices),
            Answer::Favourites(kept) => self.show_favourites(&kept),
            Answer::Shaken(people) => self.show_shaken(&people),
            Answer::Hits { words, hits, more, far } => self.show_hits(&words, &hits, more, &far),
            _ => {}
        }
        Vec::new()
    }

    fn push_menu(&mut self, title: String, items: Vec<(String, Command)>) {
        self.overlays.push(Overlay::Menu(Menu { title, items, at: 0 }));
    }

    fn show_devices(&mut self, devices: &[DeviceInfo]) {
        let item = |device: &DeviceInfo| {
            let here = if device.device == self.device { " (this one)" } else { "" };
            let name = clean(&device.name).replace('\n', " ");
            let label = format!("{name}{here}, since {}", short_time(self, device.last_seen_ms));
            let sign_out = Command::Sure(format!("Sign {name} out?"), Box::new(Command::SignOut(device.device)));
            (label, sign_out)
        };
        let items = devices.iter().map(item).collect();
        self.push_menu("Your devices: Enter signs one out".into(), items);
    }

    fn show_favourites(&mut self, kept: &[Favourite]) {
        if kept.is_empty() {
            return self.say("nothing is kept yet: f on a chosen message keeps it");
        }
        let mut items = Vec::new();
        for favourite in kept {
            let said = words::kind(&favourite.kind).replace('\n', " ");
            let name = if favourite.sender == self.me { "you".to_owned() } else { self.names.name(favourite.sender) };
            let unkeep = Command::Sure("No longer keep it?".into(), Box::new(Command::Unkeep(favourite.id)));
            items.push((format!("{}  {name}: {said}", short_time(self, favourite.time_ms)), unkeep));
        }
        self.push_menu("Favourites: Enter takes one away".into(), items);
    }

    fn show_shaken(&mut self, people: &[Found]) {
        if people.is_empty() {
            return self.say("nobody near you shook at this moment; try again together");
        }
        people.iter().for_each(|found| self.names.learn(found.user, &found.handle));
        let item =
            |found: &Found| (self.names.name(found.user), Command::With(Person::Is(found.user), WithPerson::Card));
        let items = people.iter().map(item).collect();
        self.push_menu("Who shook too".into(), items);
    }

    fn show_hits(&mut self, looked_for: &str, hits: &[(ConversationId, Entry)], more: bool, far: &Far) {
        let lower = looked_for.to_lowercase();
        let mut items = Vec::new();
        for card in self.names.cards.values().filter(|card| card.state == Some(ContactState::Accepted)) {
            let name = self.names.name(card.user);
            let tags = card.tags.join(" ").to_lowercase();
            if name.to_lowercase().contains(&lower)
                || card.handle.to_lowercase().contains(&lower)
                || tags.contains(&lower)
                || far.contacts.contains(&card.user)
            {
                items.push((format!("☺ {name}"), Command::With(Person::Is(card.user), WithPerson::Talk)));
            }
        }
        for chat in self.list().into_iter().filter(|chat| chat.is_group()) {
            let title = self.title(chat.id);
            if title.to_lowercase().contains(&lower) || far.groups.contains(&chat.id) {
                items.push((format!("☰ {title}"), Command::Goto(chat.id, 0)));
            }
        }
        for (id, entry) in hits {
            let Some(text) = words::summary(entry, &[], *id, self) else { continue };
            let label = format!("{}  {} › {text}", short_time(self, entry.time_ms), self.title(*id));
            items.push((label, Command::Goto(*id, entry.number)));
        }
        for found in &far.messages {
            let (time, title) = (short_time(self, found.place.time_ms), self.title(found.place.conversation));
            let name = if found.sender == self.me { "you".to_owned() } else { self.names.name(found.sender) };
            let label = format!("{time}  {title} › {name}: {}", clean(&found.excerpt));
            items.push((label, Command::Goto(found.place.conversation, found.place.number)));
        }
        if far.unfinished {
            items.push(("… the server has not looked through everything yet; search again".into(), Command::Nothing));
        }
        if more {
            items.push(("… and more; say more words to find less".into(), Command::Nothing));
        }
        if items.is_empty() {
            return self.say(format!("nothing found for {}", clean(looked_for)));
        }
        self.push_menu(format!("Found for {}", clean(looked_for)), items);
    }
}
