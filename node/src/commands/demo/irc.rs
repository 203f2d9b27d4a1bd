//! IRC logs as a script: each file a group, each nick a person.
//!
//! Lines are `[HH:MM] <nick> text`, `=== nick [host]  has joined ...`, `=== nick [host]  has left ...`,
//! `=== nick [host]  has quit ...` and `=== old is now known as new`. Others are skipped and counted.

use std::{collections::HashMap, fs, path::Path};

use magpie_protocol::limits::{HANDLE_LEN_MAX, TEXT_LEN_MAX};

use super::script::{GroupScript, PersonIndex, Script, Step};

/// One line of a log.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Said { minute: u32, nick: &'a str, text: &'a str },
    Joined(&'a str),
    Gone(&'a str),
    Renamed { old: &'a str, new: &'a str },
    Other,
}

fn parse(line: &str) -> Line<'_> {
    if let Some(rest) = line.strip_prefix("=== ") {
        if let Some((old, new)) = rest.split_once(" is now known as ") {
            return Line::Renamed { old: old.trim(), new: new.trim() };
        }
        let Some((nick, what)) = rest.split_once(' ') else { return Line::Other };
        let what = what.split_once("] ").map_or(what, |(_, what)| what).trim_start();
        return match what {
            _ if what.starts_with("has joined") => Line::Joined(nick),
            _ if what.starts_with("has left") || what.starts_with("has quit") => Line::Gone(nick),
            _ => Line::Other,
        };
    }
    said(line).unwrap_or(Line::Other)
}

fn said(line: &str) -> Option<Line<'_>> {
    let (time, rest) = line.strip_prefix('[')?.split_once("] <")?;
    let (hours, minutes) = time.split_once(':')?;
    let minute = hours.parse::<u32>().ok()? * 60 + minutes.parse::<u32>().ok()?;
    let (nick, text) = rest.split_once('>')?;
    Some(Line::Said { minute, nick, text: text.strip_prefix(' ').unwrap_or(text) })
}

/// The first `groups` files of a folder.
pub(super) fn load(dir: &Path, groups: usize) -> anyhow::Result<Script> {
    let mut files: Vec<_> = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.path().extension().is_some_and(|e| e == "txt"));
    files.sort_by_key(std::fs::DirEntry::path);
    anyhow::ensure!(!files.is_empty(), "it holds no .txt file");
    let mut script = Script::default();
    for file in files.into_iter().take(groups) {
        let bytes = fs::read(file.path())?;
        let title = file.file_name().to_string_lossy().split('.').next().unwrap_or_default().to_owned();
        // A few files are not valid UTF-8 throughout.
        read(&mut script, title, &String::from_utf8_lossy(&bytes));
    }
    Ok(script)
}

fn read(script: &mut Script, title: String, text: &str) {
    let mut group = GroupScript { title, steps: Vec::new() };
    // Within a file a person keeps their account through renames.
    let mut nicks: HashMap<String, PersonIndex> = HashMap::new();
    let (mut first, mut minute) = (None, 0);
    for line in text.lines() {
        let mut person = |script: &mut Script, nick: &str| {
            let fits = (1..=HANDLE_LEN_MAX).contains(&nick.len()) && !nick.contains([' ', '@', '/', '#', ':']);
            fits.then(|| *nicks.entry(nick.to_lowercase()).or_insert_with(|| script.person(nick)))
        };
        match parse(line) {
            Line::Said { minute: at, nick, text } => {
                // Logs cross midnight at most once.
                let first = *first.get_or_insert(at);
                minute = minute.max(if at >= first { at - first } else { at + 24 * 60 - first });
                let Some(person) = person(script, nick) else {
                    script.skip("of nicks that are no handles");
                    continue;
                };
                if text.trim().is_empty() || text.len() > TEXT_LEN_MAX {
                    script.skip("without text");
                } else {
                    group.steps.push((minute, Step::Say(person, text.to_owned())));
                }
            }
            Line::Joined(nick) => match person(script, nick) {
                Some(person) => group.steps.push((minute, Step::Join(person))),
                None => script.skip("of nicks that are no handles"),
            },
            Line::Gone(nick) => match person(script, nick) {
                Some(person) => group.steps.push((minute, Step::Leave(person))),
                None => script.skip("of nicks that are no handles"),
            },
            Line::Renamed { old, new } => {
                if let Some(person) = person(script, old) {
                    nicks.insert(new.to_lowercase(), person);
                }
            }
            Line::Other => script.skip("of other forms"),
        }
    }
    script.add(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_logs_have_them() {
        assert_eq!(parse("[09:07] <ivoks> a > b"), Line::Said { minute: 547, nick: "ivoks", text: "a > b" });
        assert_eq!(parse("=== fdr [~fdr@62.97.40.10]  has joined #ubuntu"), Line::Joined("fdr"));
        assert_eq!(parse("=== x [~b@2.1.1.2]  has left #ubuntu []"), Line::Gone("x"));
        assert_eq!(parse("=== x [~b@2.1.1.2]  has quit [\"bye\"]"), Line::Gone("x"));
        assert_eq!(parse("=== a is now known as b"), Line::Renamed { old: "a", new: "b" });
        assert_eq!(parse("* somebody waves"), Line::Other);
        assert_eq!(parse("[xx:07] <ivoks> a"), Line::Other);
    }

    #[test]
    fn a_renamed_person_stays_the_same_account() {
        let mut script = Script::default();
        read(&mut script, "t".into(), "[10:00] <a> x\n=== a is now known as b\n[10:01] <b> y\n[09:59] <c> z\n");
        assert_eq!(script.people, ["a", "c"]);
        let minutes: Vec<_> = script.groups[0].steps.iter().map(|(m, _)| *m).collect();
        assert_eq!(minutes, [0, 0, 1, 1439, 1439]);
    }
}
