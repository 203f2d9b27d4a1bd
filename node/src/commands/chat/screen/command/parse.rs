//! What a line that was typed asks for.

use super::{Command, Field, Joining, Look, Person, Privacy, Want, WithMessage, WithPerson};
use crate::commands::chat::parse::{bare_name, words};

/// What `/help` shows.
pub(in super::super) const HELP: &str = "\
Where you are
  Esc, Tab            from the conversation to the list, and back
  F1 F2 F3 F4         Chats, Contacts, Discover, Me (in the list also 1 2 3 4)
  F5                  what the operator of the server said
  Ctrl-C twice        stop (in the list also q)

In the list
  Enter               open; m menu; / search; n new group; a add a contact
  p d s h             pin, do not disturb, save to contacts, hide until the next message

In a conversation
  Enter               send; Alt-Enter or Ctrl-J a new line; what you write is kept until sent
  PgUp PgDn           scroll; Up (with nothing written) chooses a message
  on a chosen message r reply, e edit, x recall, d delete for me, + a sign, f keep,
                      w forward, Enter menu
  Ctrl-O              menu of the conversation; Ctrl-R search
  Ctrl-T              takes back what was refused, to be changed or sent again

Commands, in the line where you write
  /to NAME            talk to a person; who does not know you yet is asked first
  /accept NAME        let a person who asked talk to you; /refuse NAME
  /group TITLE NAME.. make a group (\"a longer title\" in quotes)
  /join CODE          join a group by its magpie:g/... code
  /list  /open N      your conversations; go on in number N
  /find WHO           a person by name, +phone or magpie:u/... code
  /search WORDS       what was said, and who
  /members /menu      of this conversation
  /invite /remove NAME   /rename TITLE   /leave   /dissolve
  /announce TEXT      /announcement shows it
  /nick NAME          what you are called in this group
  /admin /unadmin /transfer NAME
  /mute NAME [MINUTES]  /unmute NAME  /muteall on|off
  /code               the code to join this group by; /code new makes another
  /code approve|open  who has it is let in by an administrator, or at once; /code off
  /admit /deny NAME   who asks to be let in
  /quote /react SIGN /edit TEXT /recall /del /keep /forward   the chosen or newest message
  /send FILE          send a file or picture; /savefile [PATH] saves the chosen or newest one
  /pin /quiet /hide /save /clear    how this conversation is shown
  /remark NAME TEXT  /tags NAME A,B  /star NAME  /unstar NAME  /card NAME
  /block NAME  /unblock NAME  /forget NAME   (forget: no longer a contact)
  /nickname /region /signature TEXT  /phone NUMBER
  /privacy phone|handle|typing|online on|off
  /mycode  /newcode  /devices  /password  /favourites  /shake LAT LON
  /history            older messages; /quit
  //...               says /...";

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Typed {
    Nothing,
    Text(String),
    Command(Command),
    /// It is not understood, and why.
    Wrong(String),
}

/// Understands a line.
pub(in super::super) fn parse(line: &str) -> Typed {
    let line = line.trim_end();
    if line.trim().is_empty() {
        return Typed::Nothing;
    }
    let Some(command) = line.strip_prefix('/') else { return Typed::Text(line.to_owned()) };
    if command.starts_with('/') {
        return Typed::Text(command.to_owned());
    }
    let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    match person(word, rest).or_else(|| message(word, rest)).or_else(|| bare(word, rest)).or_else(|| more(word, rest)) {
        Some(Ok(command)) => Typed::Command(command),
        Some(Err(why)) => Typed::Wrong(why),
        None => Typed::Wrong(format!("no such command: /{word} (/help lists them; begin with // to say it)")),
    }
}

type Parsed = Option<Result<Command, String>>;

/// Commands that name a person.
fn person(word: &str, rest: &str) -> Parsed {
    let what = match word {
        "to" => WithPerson::Talk,
        "card" => WithPerson::Card,
        "accept" => WithPerson::Accept,
        "refuse" => WithPerson::Refuse,
        "invite" => WithPerson::Invite,
        "remove" => WithPerson::Remove,
        "star" => WithPerson::Star(true),
        "unstar" => WithPerson::Star(false),
        "block" => WithPerson::Block(true),
        "unblock" => WithPerson::Block(false),
        "forget" => WithPerson::Forget,
        "admin" => WithPerson::Admin(true),
        "unadmin" => WithPerson::Admin(false),
        "transfer" => WithPerson::Transfer,
        "unmute" => WithPerson::Mute(0),
        "admit" => WithPerson::Admit(true),
        "deny" => WithPerson::Admit(false),
        "sendcard" => WithPerson::SendCard,
        "mute" | "remark" | "tags" => return Some(person_and_more(word, rest)),
        _ => return None,
    };
    let name = bare_name(rest.trim_matches('"'));
    if name.is_empty() {
        return Some(Err(format!("usage: /{word} NAME")));
    }
    Some(Ok(Command::With(Person::Named(name), what)))
}

fn person_and_more(word: &str, rest: &str) -> Result<Command, String> {
    let mut all = words(rest)?.into_iter();
    let usage = || format!("usage: /{word} NAME {}", if word == "mute" { "[MINUTES]" } else { "TEXT" });
    let name = all.next().map(|name| bare_name(&name)).filter(|name| !name.is_empty()).ok_or_else(usage)?;
    let text = all.collect::<Vec<_>>().join(" ");
    let what = match word {
        "mute" if text.is_empty() => WithPerson::Mute(60),
        "mute" => WithPerson::Mute(text.parse().map_err(|_| usage())?),
        "tags" => WithPerson::Tags(tags(&text)),
        _ => WithPerson::Remark(text),
    };
    Ok(Command::With(Person::Named(name), what))
}

/// Commands about a message.
fn message(word: &str, rest: &str) -> Parsed {
    let given = (!rest.is_empty()).then(|| rest.to_owned());
    Some(Ok(Command::Message(match word {
        "quote" => WithMessage::Quote,
        "react" => match given {
            Some(sign) => WithMessage::React(sign),
            None => return Some(Err("usage: /react SIGN, such as 👍".to_owned())),
        },
        "edit" => WithMessage::Edit(given),
        "recall" => WithMessage::Recall,
        "del" => WithMessage::Delete,
        "keep" => WithMessage::Keep,
        "forward" => WithMessage::Forward,
        "savefile" | "get" => WithMessage::SaveFile(given),
        _ => return None,
    })))
}

/// Commands that take nothing after them.
fn bare(word: &str, rest: &str) -> Parsed {
    let sure = |text: &str, command| Command::Sure(text.to_owned(), Box::new(command));
    let command = match word {
        "list" => Command::List,
        "members" => Command::Members,
        "menu" => Command::GroupMenu,
        "leave" => sure("Leave this group?", Command::Leave),
        "dissolve" => sure("End this group for everyone?", Command::Dissolve),
        "announcement" => Command::Announcement,
        "pin" => Command::Look(Look::Pinned),
        "quiet" => Command::Look(Look::Quiet),
        "save" => Command::Look(Look::Saved),
        "hide" => Command::Look(Look::Hidden),
        "clear" => sure("Delete all messages here, for you alone?", Command::Clear),
        "mycode" => Command::MyCode,
        "newcode" => Command::NewCode,
        "devices" => Command::Devices,
        "password" => Command::Write(Want::OldPassword),
        "favourites" => Command::Favourites,
        "quit" => Command::Quit,
        "help" => Command::Help,
        _ => return None,
    };
    Some(if rest.is_empty() { Ok(command) } else { Err(format!("/{word} takes nothing after it")) })
}

fn more(word: &str, rest: &str) -> Parsed {
    let text = rest.trim_matches('"').to_owned();
    let needed = |command: fn(String) -> Command, what: &str| {
        if text.is_empty() { Err(format!("usage: /{word} {what}")) } else { Ok(command(text.clone())) }
    };
    Some(match word {
        "group" => group(rest),
        "rename" => needed(Command::Rename, "TITLE"),
        "search" => needed(Command::Search, "WORDS"),
        "find" => needed(Command::Find, "NAME, +PHONE or CODE"),
        "send" => needed(Command::SendFile, "FILE"),
        "announce" => Ok(Command::Announce(text)),
        "nick" => Ok(Command::Nick(text)),
        "nickname" => Ok(Command::Set(Field::Nickname, text)),
        "region" => Ok(Command::Set(Field::Region, text)),
        "signature" => Ok(Command::Set(Field::Signature, text)),
        "phone" => Ok(Command::Phone(text)),
        "join" => text.parse().map(Command::Join).map_err(|e| format!("{e}")),
        "open" => text.parse().map(Command::Open).map_err(|_| "usage: /open N, a number of the list".to_owned()),
        "history" => Ok(Command::Older),
        "muteall" => on_off(&text).map(Command::MuteAll).ok_or_else(|| "usage: /muteall on|off".to_owned()),
        "code" => match rest {
            "" => Ok(Command::ShowCode),
            "new" => Ok(Command::Code(Joining::Anew)),
            "approve" => Ok(Command::Code(Joining::Approval(true))),
            "open" => Ok(Command::Code(Joining::Approval(false))),
            "off" => Ok(Command::Code(Joining::Closed)),
            _ => Err("usage: /code [new|approve|open|off]".to_owned()),
        },
        "privacy" => privacy(rest).ok_or_else(|| "usage: /privacy phone|handle|typing|online on|off".to_owned()),
        "shake" => place(rest),
        _ => return None,
    })
}

fn group(rest: &str) -> Result<Command, String> {
    let mut words = words(rest)?.into_iter();
    let title = words.next().filter(|title| !title.is_empty());
    let people: Vec<_> = words.map(|name| Person::Named(bare_name(&name))).collect();
    match title.filter(|_| !people.is_empty()) {
        Some(title) => Ok(Command::NewGroup { title, people }),
        None => Err("usage: /group TITLE NAME...".to_owned()),
    }
}

fn on_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn privacy(rest: &str) -> Option<Command> {
    let (what, on) = rest.split_once(' ')?;
    let what = match what {
        "phone" => Privacy::ByPhone,
        "handle" => Privacy::ByHandle,
        "typing" => Privacy::Typing,
        "online" => Privacy::Online,
        _ => return None,
    };
    Some(Command::Privacy(what, on_off(on.trim())?))
}

/// Latitude and longitude in degrees; what is sent is rounded to hundredths, about a kilometre.
pub(super) fn place(text: &str) -> Result<Command, String> {
    let wrong = || "write latitude and longitude in degrees, such as 52.52 13.41".to_owned();
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    let (latitude, longitude) = text.split_once([' ', ',']).ok_or_else(wrong)?;
    let (latitude, longitude) = (number(latitude).ok_or_else(wrong)?, number(longitude).ok_or_else(wrong)?);
    if latitude.abs() > 90.0 || longitude.abs() > 180.0 {
        return Err(wrong());
    }
    Ok(Command::Shake((latitude * 100.0).round() as i32, (longitude * 100.0).round() as i32))
}

/// Words between commas.
pub(super) fn tags(text: &str) -> Vec<String> {
    text.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        match parse(line) {
            Typed::Command(command) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn named(name: &str, what: WithPerson) -> Command {
        Command::With(Person::Named(name.into()), what)
    }

    #[test]
    fn what_is_no_command_is_said() {
        assert_eq!(parse("hello  world \n"), Typed::Text("hello  world".into()));
        assert_eq!(parse("//etc/passwd"), Typed::Text("/etc/passwd".into()));
        assert_eq!(parse(" \n"), Typed::Nothing);
    }

    #[test]
    fn commands_are_understood() {
        assert_eq!(command("/to @bob"), named("bob", WithPerson::Talk));
        assert_eq!(command("/mute bob"), named("bob", WithPerson::Mute(60)));
        assert_eq!(command("/mute \"my brother\" 5"), named("my brother", WithPerson::Mute(5)));
        assert_eq!(command("/remark bob my brother"), named("bob", WithPerson::Remark("my brother".into())));
        assert_eq!(command("/tags bob a, b"), named("bob", WithPerson::Tags(vec!["a".into(), "b".into()])));
        assert_eq!(command("/shake 52.516 -13.4"), Command::Shake(5252, -1340));
        assert_eq!(command("/privacy typing off"), Command::Privacy(Privacy::Typing, false));
        assert_eq!(command("/react 👍"), Command::Message(WithMessage::React("👍".into())));
        let people = vec![Person::Named("bob".into()), Person::Named("carol".into())];
        assert_eq!(command("/group \"our team\" bob @carol"), Command::NewGroup { title: "our team".into(), people });
    }

    #[test]
    fn what_is_not_understood_says_how_it_is_written() {
        for line in ["/to", "/mute", "/mute bob x", "/group team", "/group \"x bob", "/open x", "/x", "/shake 91 0"] {
            assert!(matches!(parse(line), Typed::Wrong(_)), "{line}");
        }
        assert_eq!(parse("/leave team"), Typed::Wrong("/leave takes nothing after it".into()));
        assert!(matches!(parse("/join nonsense"), Typed::Wrong(_)));
    }

    #[test]
    fn passwords_are_asked_for_twice() {
        let Command::Write(again) = Want::NewPassword("old".into()).command("new1".into()).unwrap() else { panic!() };
        assert!(again.is_secret() && again.clone().command("new2".into()).is_err());
        let change = Command::ChangePassword { old: "old".into(), new: "new1".into() };
        assert_eq!(again.command("new1".into()), Ok(change));
    }
}
