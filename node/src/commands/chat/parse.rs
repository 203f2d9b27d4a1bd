//! What a line that was typed asks for.

/// How many entries `/history` shows when it is not told.
const HISTORY_DEFAULT: u32 = 20;
/// At most so many.
const HISTORY_MAX: u32 = 1_000;

/// What `/help` prints.
pub(super) const HELP: &str = "\
/to NAME                talk to a person; who does not know you yet is asked first
/accept NAME            let a person who asked talk to you
/group TITLE NAME...    make a group (\"a longer title\" in quotes)
/list                   your conversations, with how much is unread
/open N                 go on in conversation N of the list
/members                who is in this conversation
/history [N]            its last N entries (20)
/invite NAME            bring a person into this group
/remove NAME            remove a member of a group that you own
/rename TITLE           give this group another title
/leave                  leave this group
/devices                where you are signed in
/quit                   send what is not sent, and stop
//...                   says /...
Anything else is said in the current conversation.";

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Nothing,
    Text(String),
    Command(Command),
    /// It is not understood, and why.
    Wrong(String),
}

/// What can be asked for; see [`HELP`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    To(String),
    Accept(String),
    Group { title: String, names: Vec<String> },
    Invite(String),
    Remove(String),
    Rename(String),
    Leave,
    List,
    Open(usize),
    Members,
    History(u32),
    Devices,
    Quit,
    Help,
}

/// Understands a line.
pub(super) fn parse(line: &str) -> Typed {
    let line = line.trim_end();
    if line.is_empty() {
        return Typed::Nothing;
    }
    let Some(command) = line.strip_prefix('/') else { return Typed::Text(line.to_owned()) };
    if command.starts_with('/') {
        return Typed::Text(command.to_owned());
    }
    let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    match parse_command(word, rest.trim()) {
        Ok(command) => Typed::Command(command),
        Err(why) => Typed::Wrong(why),
    }
}

fn parse_command(word: &str, rest: &str) -> Result<Command, String> {
    let bare = |command| if rest.is_empty() { Ok(command) } else { Err(format!("/{word} takes nothing after it")) };
    Ok(match word {
        "to" => Command::To(one_name(word, rest)?),
        "accept" => Command::Accept(one_name(word, rest)?),
        "invite" => Command::Invite(one_name(word, rest)?),
        "remove" => Command::Remove(one_name(word, rest)?),
        "group" => {
            let mut words = words(rest)?.into_iter();
            let title = words.next().filter(|title| !title.is_empty());
            let names: Vec<_> = words.map(|name| bare_name(&name)).collect();
            match title.filter(|_| !names.is_empty()) {
                Some(title) => Command::Group { title, names },
                None => return Err("usage: /group TITLE NAME...".to_owned()),
            }
        }
        "rename" if rest.is_empty() => return Err("usage: /rename TITLE".to_owned()),
        "rename" => Command::Rename(rest.trim_matches('"').to_owned()),
        "open" => Command::Open(rest.parse().map_err(|_| "usage: /open N, a number of /list".to_owned())?),
        "history" if rest.is_empty() => Command::History(HISTORY_DEFAULT),
        "history" => match rest.parse() {
            Ok(n) if n > 0 => Command::History(HISTORY_MAX.min(n)),
            _ => return Err(format!("usage: /history [N], at most {HISTORY_MAX}")),
        },
        "leave" => bare(Command::Leave)?,
        "list" => bare(Command::List)?,
        "members" => bare(Command::Members)?,
        "devices" => bare(Command::Devices)?,
        "quit" => bare(Command::Quit)?,
        "help" => bare(Command::Help)?,
        _ => return Err(format!("no such command: /{word} (/help lists them; begin with // to say it)")),
    })
}

fn one_name(word: &str, rest: &str) -> Result<String, String> {
    let name = bare_name(rest);
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!("usage: /{word} NAME"));
    }
    Ok(name)
}

/// No handle holds an `@`, but people write one in front.
pub(super) fn bare_name(name: &str) -> String {
    name.strip_prefix('@').unwrap_or(name).to_owned()
}

/// Words between blanks; quotes hold a word with blanks together.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a quotation mark is missing")?,
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
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

    #[test]
    fn what_is_no_command_is_said() {
        assert_eq!(parse("hello  world \r"), Typed::Text("hello  world".into()));
        assert_eq!(parse(" /to bob"), Typed::Text(" /to bob".into()));
        assert_eq!(parse("//etc/passwd"), Typed::Text("/etc/passwd".into()));
        assert_eq!(parse(" \t"), Typed::Nothing);
    }

    #[test]
    fn commands_are_understood() {
        assert_eq!(command("/to bob"), Command::To("bob".into()));
        assert_eq!(command("/accept  @bob "), Command::Accept("bob".into()));
        assert_eq!(command("/rename \"our team\""), Command::Rename("our team".into()));
        assert_eq!(command("/open 3"), Command::Open(3));
        assert_eq!(command("/history"), Command::History(20));
        assert_eq!(command("/history 99999"), Command::History(1000));
        assert_eq!(command("/quit"), Command::Quit);
        let names = vec!["bob".to_owned(), "carol".to_owned()];
        assert_eq!(command("/group team bob @carol"), Command::Group { title: "team".into(), names: names.clone() });
        assert_eq!(command("/group \"our team\"  bob carol"), Command::Group { title: "our team".into(), names });
    }

    #[test]
    fn what_is_not_understood_says_how_it_is_written() {
        for line in
            ["/to", "/to a b", "/group team", "/group", "/group \"x bob", "/open", "/open x", "/history 0", "/x"]
        {
            assert!(matches!(parse(line), Typed::Wrong(_)), "{line}");
        }
        assert_eq!(parse("/leave team"), Typed::Wrong("/leave takes nothing after it".into()));
    }

    #[test]
    fn help_names_every_command() {
        for word in
            ["to", "accept", "group", "list", "open", "members", "history", "invite", "remove", "rename", "leave"]
        {
            assert!(HELP.lines().any(|line| line.starts_with(&format!("/{word}"))), "{word}");
        }
    }
}
