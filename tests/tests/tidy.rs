//! The house rules that a machine can keep: layers, sizes, names, generated files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::Parser;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every Rust file of the repository, by its path from the top, with its text.
fn sources() -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let named = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((named, read(&path)));
            }
        }
    }
    assert!(found.len() > 80, "only {} files were found", found.len());
    found
}

/// What a crate's manifest says under a heading, one line each.
fn section(manifest: &str, heading: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != format!("[{heading}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.map(|line| line.split('#').next().unwrap().trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn dependencies(krate: &str) -> BTreeSet<String> {
    let manifest = read(&root().join(krate).join("Cargo.toml"));
    let name = |line: &String| line.split(['.', ' ', '=']).next().unwrap().to_owned();
    section(&manifest, "dependencies").iter().map(name).collect()
}

#[test]
fn the_layers_point_one_way() {
    let may: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("protocol", [].as_slice()),
        ("cluster", &["magpie-protocol"]),
        ("node", &["magpie-protocol", "magpie-cluster", "magpie-client"]),
        ("client", &["magpie-protocol"]),
        ("client/ffi", &["magpie-client"]),
        ("bench", &["magpie-client"]),
    ]);
    for (krate, allowed) in may {
        let ours: Vec<String> = dependencies(krate).into_iter().filter(|name| name.starts_with("magpie")).collect();
        let wrong: Vec<_> = ours.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{krate} may not depend on {wrong:?}");
        assert!(krate == "protocol" || !ours.is_empty(), "the manifest of {krate} was not understood");
    }
    let io = ["tokio", "quinn", "actix", "actix-web", "rustls", "sled", "rusqlite"];
    let wrong: Vec<_> = dependencies("protocol").into_iter().filter(|name| io.contains(&name.as_str())).collect();
    assert!(wrong.is_empty(), "protocol does no IO: {wrong:?}");
}

#[test]
fn in_the_node_only_chat_and_demo_know_the_client() {
    for (path, text) in sources() {
        let may = !path.starts_with("node/")
            || ["node/src/commands/chat", "node/src/commands/demo"].iter().any(|p| path.starts_with(p));
        assert!(may || !text.contains("magpie_client"), "{path} names the client");
    }
}

#[test]
fn no_file_is_too_long() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 500, "{path} has {lines} lines: split it at 500");
        // What tests share lies in a folder, or cargo would take it for a test.
        assert!(!path.ends_with("/mod.rs") || path.contains("/tests/"), "{path}: foo.rs beside foo/, no mod.rs");
    }
    let main = read(&root().join("node/src/main.rs")).lines().count();
    assert!(main <= 100, "node/src/main.rs has {main} lines; everything lives in the library");
    let map = root().join("ARCHITECTURE.md");
    let lines = if map.exists() { read(&map).lines().count() } else { 0 };
    assert!(lines < 500, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn a_full_mailbox_is_never_ignored() {
    // As text, so that this file does not name what it forbids.
    let call = concat!(".do_", "send(");
    let (mut calls, mut files) = (0, 0);
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(call)) {
            let why = lines[i.saturating_sub(2)..i].join(" ");
            let excused = why.contains("expect(clippy::disallowed_methods")
                && (why.contains("a stop message") || why.contains("a timer message"));
            assert!(excused, "{path}:{}: {}: only stop and timer messages may ignore the bound", i + 1, line.trim());
            calls += 1;
        }
        files += 1;
    }
    println!("{calls} calls in {files} files");
    let lint = read(&root().join("clippy.toml"));
    assert!(lint.contains("actix::Addr::do_send") && lint.contains("actix::Recipient::do_send"));
}

#[test]
fn every_crate_keeps_the_lints_of_the_workspace() {
    let workspace = read(&root().join("Cargo.toml"));
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.len() >= 6, "{members:?}");
    for member in members {
        let manifest = read(&root().join(member).join("Cargo.toml"));
        assert_eq!(section(&manifest, "lints"), ["workspace = true"], "{member}/Cargo.toml");
        assert!(manifest.contains("license.workspace = true"), "{member}/Cargo.toml");
    }
    let lints = [section(&workspace, "workspace.lints.rust"), section(&workspace, "workspace.lints.clippy")].concat();
    for lint in [
        "unreachable_pub",
        "unused_async",
        "large_futures",
        "print_stdout",
        "dbg_macro",
        "todo",
        "unwrap_used",
        "expect_used",
        "disallowed_methods",
    ] {
        let on = |line: &&String| line.starts_with(lint) && (line.contains("\"warn\"") || line.contains("\"deny\""));
        assert!(lints.iter().any(|line| on(&line)), "the workspace does not lint {lint}");
    }
}

#[test]
fn what_is_unsafe_is_where_nothing_else_does() {
    let lint = concat!("uns", "afe_code");
    let may = [
        "client/ffi/src/lib.rs",
        "cluster/tests/history.rs",
        "protocol/tests/hostile_lengths.rs",
        "tests/src/bin/magpie-test-simulation/system.rs",
    ];
    for (path, text) in sources() {
        assert_eq!(text.contains(lint), may.contains(&path.as_str()), "{path}");
        // There it is the macros that write it, and nobody else.
        let word = &lint[..6];
        let by_hand = path.starts_with("client/ffi/")
            && text.lines().any(|line| line.contains(word) && !line.starts_with("//") && !line.contains(lint));
        assert!(!by_hand, "{path} does what only the macros of UniFFI may");
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("#[ig", "nore"),
        concat!("db", "g!("),
    ];
    for (path, text) in sources() {
        for (i, line) in text.lines().enumerate() {
            let mark = marks.iter().find(|mark| line.contains(**mark));
            assert_eq!(mark, None, "{path}:{}: {}", i + 1, line.trim());
        }
    }
}

#[test]
fn the_reference_configuration_is_up_to_date() {
    let path = root().join("config/reference.toml");
    let reference = magpie_node::Config::reference();
    if std::env::var_os("MAGPIE_BLESS").is_some() {
        fs::write(&path, &reference).unwrap();
    }
    let hint = "config/reference.toml is generated: MAGPIE_BLESS=1 cargo test --workspace --test tidy";
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), reference, "{hint}");
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let loaded = magpie_node::Config::load(Some(&path), std::iter::empty());
            assert!(loaded.is_ok(), "{} does not run as it is: {loaded:?}", path.display());
        }
    }
}

#[test]
fn the_bytes_of_the_wire_are_pinned() {
    let golden = read(&root().join("protocol/tests/golden/v1.txt"));
    let samples = golden.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
    let tags = magpie_protocol::Request::TAGS.len() + magpie_protocol::Answer::TAGS.len();
    assert!(samples >= tags, "{samples} samples for {tags} tags");
    let compared =
        sources().iter().any(|(path, text)| path.starts_with("protocol/tests/") && text.contains("golden/v1.txt"));
    assert!(compared, "no test compares the golden bytes");
}

#[test]
fn metrics_are_named_alike_and_described() {
    for (krate, path) in [("node", "node/src/metrics.rs"), ("cluster", "cluster/src/metrics.rs")] {
        let text = read(&root().join(path));
        let mut names = 0;
        for line in text.lines().filter(|line| line.starts_with("pub const ")) {
            let name = line.split([' ', ':']).nth(2).unwrap();
            let value = line.split('"').nth(1).unwrap_or_else(|| panic!("{path}: {line}"));
            assert!(value.starts_with(&format!("magpie_{krate}_")), "{path}: {value}");
            assert!(value.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{path}: {value}");
            let described = |kind: &str| text.contains(&format!("describe_{kind}!({name},"));
            let counter = described("counter");
            assert!(counter || described("gauge") || described("histogram"), "{path}: {name} is not described");
            assert_eq!(counter, value.ends_with("_total"), "{path}: counters, and they alone, end in _total: {value}");
            names += 1;
        }
        assert!(names > 5, "{path}: {names} names");
    }
    let literal = ["counter!(\"", "gauge!(\"", "histogram!(\""];
    for (path, text) in sources().iter().filter(|(path, _)| !path.ends_with("tests/tidy.rs")) {
        let named = literal.iter().any(|call| text.contains(&format!("metrics::{call}")));
        assert!(!named, "{path} counts under a name that metrics.rs does not describe");
    }
}

/// The commands in the fenced blocks of a document, without prompts and comments, continued lines joined.
fn commands(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        match line.trim().strip_prefix("```") {
            Some(_) => inside = !inside,
            None if inside => {
                commands.push(line.split(" #").next().unwrap().trim().trim_start_matches("$ ").to_owned())
            }
            None => {}
        }
    }
    commands
}

#[test]
fn what_the_readme_tells_to_run_can_be_run() {
    let text = read(&root().join("README.md"));
    let (mut run, mut tested) = (0, 0);
    for command in commands(&text) {
        let words: Vec<&str> = command.split_whitespace().skip_while(|word| word.contains('=')).collect();
        let ours = words.first().is_some_and(|word| word.rsplit('/').next() == Some("magpie"));
        let through_cargo = words.starts_with(&["cargo", "run"]) && !command.contains("bench");
        if ours || through_cargo {
            let arguments =
                if ours { &words[1..] } else { words.split(|word| *word == "--").nth(1).unwrap_or_default() };
            let cut = arguments.iter().position(|word| ["|", ">", "&", "2>"].contains(word)).unwrap_or(arguments.len());
            let all = std::iter::once("magpie").chain(arguments[..cut].iter().copied());
            if let Err(error) = magpie_node::cli::Cli::try_parse_from(all) {
                let shown = matches!(
                    error.kind(),
                    clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
                );
                assert!(shown, "README.md: {command}: {error}");
            }
            run += 1;
        }
        if let Some(at) = words.iter().position(|word| *word == "--test") {
            let file = root().join(format!("tests/tests/{}.rs", words[at + 1]));
            assert!(file.exists(), "README.md: {command}: there is no such test");
        }
        tested += usize::from(words.starts_with(&["cargo", "test"]));
    }
    assert!(run >= 2 && tested >= 1, "{run} commands and {tested} test commands were found");
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let there =
            link.contains("://") || link.starts_with('#') || root().join(link.split('#').next().unwrap()).exists();
        assert!(there, "README.md links to {link}, which is not there");
    }
}
