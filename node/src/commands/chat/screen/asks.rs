//! Questions to the node, and what comes of them.

use magpie_client::{
    Client, Content, ConversationId, Error, ErrorCode, Found, GroupCode, Message, SetJoin, UserCode, UserId,
};

use super::{
    super::show,
    command::WithPerson,
    message::{Answer, Ask},
    text::clean,
    update::about_code,
};

/// Asks, in the name of the person who is signed in.
pub(super) async fn ask(client: Client, ask: Ask) -> Answer {
    match answer(&client, ask).await {
        Ok(answer) => answer,
        Err(error) => Answer::Said(format!("✗ {}", show::error(&error))),
    }
}

fn done(text: &str) -> Answer {
    Answer::Said(text.to_owned())
}

async fn answer(client: &Client, ask: Ask) -> Result<Answer, Error> {
    Ok(match ask {
        Ask::Find(name, then) => find(client, &name, then).await?,
        Ask::Reach(user) => reach(client, user).await?,
        Ask::Accept(user) => match client.accept_contact(user).await {
            Err(error) if is_not_found(&error) => done("they have not asked to talk to you"),
            accepted => accepted.map(|()| Answer::Accepted(user))?,
        },
        Ask::Refuse(user) => client.refuse_contact(user).await.map(|()| done("refused; they are not told"))?,
        Ask::SetContact(set) => client.set_contact(set).await.map(|()| done("noted"))?,
        Ask::Block(user, on) => {
            client.block(user, on).await?;
            done(if on { "blocked: nothing of them comes through" } else { "let through again" })
        }
        Ask::Forget(user) => client.delete_contact(user).await.map(|()| done("deleted from your contacts"))?,
        Ask::CreateGroup(title, members) => {
            let conversation = client.create_group(&title, members).await?;
            Answer::Made { conversation, learned: Vec::new() }
        }
        Ask::FindAll { title, known, names } => make_group(client, title, known, names).await?,
        Ask::Join(code) => {
            let conversation = code.conversation;
            Answer::Joined { conversation, joined: client.join(code).await? }
        }
        Ask::SetCode { conversation, code, approval } => set_code(client, conversation, code, approval).await?,
        Ask::Group(conversation) => {
            let (info, group) = tokio::join!(client.group(conversation), client.members(conversation));
            match (info, group) {
                (Err(error), _) | (_, Err(error)) if is_not_found(&error) => Answer::Outside(conversation),
                (info, group) => Answer::Group { conversation, info: info?, members: group?.members },
            }
        }
        Ask::Profiles(users) => Answer::Profiles(client.profiles(&users).await?),
        Ask::Online(users) => Answer::Online(client.online(users).await?),
        ask => of_oneself(client, ask).await?,
    })
}

async fn of_oneself(client: &Client, ask: Ask) -> Result<Answer, Error> {
    Ok(match ask {
        Ask::SetConversation(set) => client.set_conversation(set).await.map(|()| done(""))?,
        Ask::Delete { conversation, number } => {
            client.hide(conversation, vec![number]).await.map(|()| done("deleted for you; others keep it"))?
        }
        Ask::DeleteUpTo { conversation, number } => {
            client.hide_up_to(conversation, number).await.map(|()| done("deleted for you; others keep them"))?
        }
        Ask::Keep { conversation, number } => {
            client.add_favourite(conversation, number).await.map(|()| done("kept: Me, Favourites"))?
        }
        Ask::Forward { from, to, kind } => {
            for blob in kind.blobs() {
                client.borrow_blob(from, &blob).await?;
            }
            client.send(to, Message::new(kind))?.posted().await?;
            done("")
        }
        Ask::Unkeep(id) => client.remove_favourite(id).await.map(|()| done("no longer kept"))?,
        Ask::Favourites => Answer::Favourites(client.favourites().await?),
        Ask::Account => Answer::Account(client.account().await?),
        Ask::SetProfile(set) => client.set_profile(set).await.map(|()| done("changed"))?,
        Ask::SetPrivacy(set) => {
            client.set_privacy(set).await?;
            Answer::Account(client.account().await?)
        }
        Ask::Phone(phone) => {
            client.set_phone(&phone).await?;
            Answer::Account(client.account().await?)
        }
        Ask::MyCode => code(client.my_code().await?),
        Ask::NewCode => code(client.new_code().await?),
        Ask::ChangePassword { old, new } => match client.change_password(&old, &new).await {
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::BadCredentials => {
                done("✗ that was not your password; nothing was changed")
            }
            changed => changed.map(|()| done("the password is changed"))?,
        },
        Ask::Devices => Answer::Devices(client.devices().await?),
        Ask::SignOut(device) => client.sign_out(device).await.map(|()| done("signed out"))?,
        Ask::CloseAccount(password) => {
            client.close_account(&password).await.map(|()| done("the account will be deleted in 30 days"))?
        }
        Ask::Shake(latitude, longitude) => Answer::Shaken(client.shake(latitude, longitude).await?),
        _ => done(""),
    })
}

fn code(code: UserCode) -> Answer {
    let text = format!("{code}\n\nWho has this finds you: in Contacts under \"Add a contact\", or with /find.");
    Answer::Show("Your code".into(), text)
}

fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Refused(refusal) if refusal.code == ErrorCode::NotFound)
}

async fn lookup(client: &Client, name: &str) -> Result<Found, Error> {
    if let Ok(code) = name.parse::<UserCode>() {
        return client.find_code(code).await;
    }
    if name.starts_with('+') {
        let phone: String = name.chars().filter(|c| *c == '+' || c.is_ascii_digit()).collect();
        return client.find_phone(&phone).await;
    }
    client.find(name.trim_start_matches('@')).await
}

async fn find(client: &Client, name: &str, then: WithPerson) -> Result<Answer, Error> {
    match lookup(client, name).await {
        Ok(found) => Ok(Answer::Found(found, then)),
        Err(error) if is_not_found(&error) => Ok(Answer::Said(format!("nobody can be found as \"{}\"", clean(name)))),
        Err(error) => Err(error),
    }
}

/// Asks a person to be a contact; who is one already is not asked.
async fn reach(client: &Client, user: UserId) -> Result<Answer, Error> {
    client.request_contact(user, "").await?;
    Ok(Answer::Reached { user, asked: true })
}

async fn make_group(
    client: &Client,
    title: String,
    mut known: Vec<UserId>,
    names: Vec<String>,
) -> Result<Answer, Error> {
    let mut learned = Vec::new();
    for name in names {
        match lookup(client, &name).await {
            Ok(found) => {
                known.push(found.user);
                learned.push(found);
            }
            Err(error) if is_not_found(&error) => {
                return Ok(Answer::Said(format!("nobody can be found as \"{}\"; no group was made", clean(&name))));
            }
            Err(error) => return Err(error),
        }
    }
    let conversation = client.create_group(&title, known).await?;
    Ok(Answer::Made { conversation, learned })
}

async fn set_code(client: &Client, id: ConversationId, code: Option<u64>, approval: bool) -> Result<Answer, Error> {
    let (code, sending) = match code {
        Some(code) => {
            let set = Content::SetJoin(SetJoin { code, approval });
            (GroupCode { conversation: id, code }, client.post(id, set)?)
        }
        None => client.set_join(id, true, approval)?,
    };
    sending.posted().await?;
    if code.code == 0 {
        return Ok(done("nobody joins by a code any more"));
    }
    Ok(Answer::Show("The group's code".into(), about_code(code, approval)))
}
