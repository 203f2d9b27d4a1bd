use super::*;

const MEMORY: usize = 15_000_000;
const HISTORY: &str = "1 1";

fn conversation(n: u128) -> ConversationId {
    ConversationId::from_bits(n)
}

fn at(n: u128, number: u64) -> Place {
    Place { time_ms: 1_000 + number, conversation: conversation(n), number }
}

fn put(number: u64, words: &str) -> Change {
    Change::Put { number, time_ms: 1_000 + number, words: words.to_owned() }
}

fn through(n: u128, through: u64) -> Cursor {
    Cursor { conversation: conversation(n), through, searched_ms: 7 }
}

fn wanted(words: &str, windows: &[(u128, u64, u64)]) -> Wanted {
    let window = |w: &(u128, u64, u64)| Window { conversation: conversation(w.0), first: w.1, last: w.2 };
    let windows = windows.iter().map(window).collect();
    Wanted { question: Question::new(words).unwrap(), windows, before: None, limit: 100 }
}

fn found(index: &Index, words: &str) -> Vec<u64> {
    index.find(&wanted(words, &[(1, 1, 100)])).unwrap().iter().map(|place| place.number).collect()
}

#[test]
fn newest_first_within_the_windows_and_before_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path(), HISTORY, MEMORY).unwrap();
    for n in 1..=3 {
        let changes = (1..=20).map(|number| put(number, &format!("word{} 喜鹊{n}", number % 2))).collect();
        assert_eq!(index.add(0, through(n, 20), changes).unwrap(), through(n, 20));
        // Each in a segment of its own.
        index.commit().unwrap();
    }
    let all = index.find(&wanted("word1 喜鹊", &[(1, 5, 9), (2, 1, 3)])).unwrap();
    assert_eq!(all, [at(1, 9), at(1, 7), at(1, 5), at(2, 3), at(2, 1)]);
    let mut some = wanted("word", &[(1, 5, 9), (3, 9, 9)]);
    (some.before, some.limit) = (Some(at(1, 9)), 2);
    assert_eq!(index.find(&some).unwrap(), [at(1, 8), at(1, 7)]);
    some.before = Some(at(3, 9));
    assert_eq!(index.find(&some).unwrap(), [at(1, 9), at(1, 8)]);
    assert_eq!(index.find(&wanted("喜", &[(4, 1, 9)])).unwrap(), []);
}

#[test]
fn words_and_how_far_they_were_read_are_never_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path(), HISTORY, MEMORY).unwrap();
    index.add(0, through(1, 2), vec![put(1, "one"), put(2, "one")]).unwrap();
    index.commit().unwrap();
    index.add(2, through(1, 4), vec![put(3, "one"), put(4, "one")]).unwrap();
    assert_eq!(index.cursors(&[conversation(1)]).unwrap(), [through(1, 4)], "it knows what it has not committed");
    // What is not committed is lost with the process, both of it.
    drop(index);
    let mut index = Index::open(dir.path(), HISTORY, MEMORY).unwrap();
    assert_eq!(index.cursors(&[conversation(1), conversation(2)]).unwrap(), [through(1, 2)]);
    assert_eq!(found(&index, "one"), [2, 1]);
    // So it goes on from there and has each once; two that read the same add it once.
    assert_eq!(index.add(2, through(1, 4), vec![put(3, "one"), put(4, "one")]).unwrap(), through(1, 4));
    assert_eq!(index.add(2, through(1, 4), vec![put(3, "one"), put(4, "one")]).unwrap(), through(1, 4));
    assert_eq!(index.add(9, through(2, 10), vec![put(10, "one")]).unwrap().through, 0, "from its beginning");
    index.commit().unwrap();
    assert_eq!(found(&index, "one"), [4, 3, 2, 1]);
}

#[test]
fn what_was_taken_back_or_forgotten_leaves_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path(), HISTORY, MEMORY).unwrap();
    let first = vec![put(1, "secret"), put(2, "mistake"), put(3, "kept")];
    index.add(0, through(1, 3), first).unwrap();
    index.add(0, through(2, 1), vec![put(1, "elsewhere")]).unwrap();
    index.commit().unwrap();
    index.add(3, through(1, 5), vec![Change::Drop { number: 1 }, put(2, "better")]).unwrap();
    index.forget(conversation(2)).unwrap();
    index.commit().unwrap();
    assert_eq!((found(&index, "secret"), found(&index, "mistake")), (vec![], vec![]));
    assert_eq!((found(&index, "better"), found(&index, "kept")), (vec![2], vec![3]));
    assert!(words_in(dir.path()).unwrap().contains(&"secret".to_owned()), "not found is not yet gone");
    index.rewrite().unwrap();
    let mut words = words_in(dir.path()).unwrap();
    words.sort();
    assert_eq!(words, ["better", "kept"]);
    assert_eq!(index.cursors(&[conversation(1), conversation(2)]).unwrap(), [through(1, 5)]);
    assert_eq!(index.conversations().unwrap(), [conversation(1)]);
    assert_eq!((found(&index, "better"), found(&index, "kept")), (vec![2], vec![3]));
    only_what_it_names(dir.path());
}

/// No file of a segment is left that the index no longer names.
fn only_what_it_names(dir: &Path) {
    let meta = fs::read_to_string(dir.join("meta.json")).unwrap().replace('-', "");
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let stem = name.split('.').next().unwrap();
        let of_segment = stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(!of_segment || meta.contains(stem), "{name} is left");
    }
}

#[test]
fn another_history_and_damage_are_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let fill = |history: &str| {
        let mut index = Index::open(dir.path(), history, MEMORY).unwrap();
        let known = index.cursors(&[conversation(1)]).unwrap();
        if known.is_empty() {
            index.add(0, through(1, 1), vec![put(1, "one")]).unwrap();
            index.commit().unwrap();
        }
        assert_eq!(found(&index, "one"), [1]);
        known.len()
    };
    assert_eq!((fill("a"), fill("a"), fill("b"), fill("b")), (0, 1, 0, 1));
    // One byte of any file, and any file cut short or gone: it is noticed or it does not matter. Also where the list
    // of the files says nothing of it.
    let list = dir.path().join(".managed.json");
    for (damage, is_listed) in (0..3).flat_map(|damage| [(damage, true), (damage, false)]) {
        let files: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        for file in files.iter().filter(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0)) {
            if !is_listed {
                fs::write(&list, "[]").unwrap();
            }
            let mut bytes = fs::read(file).unwrap();
            let middle = bytes.len() / 2;
            match damage {
                0 => bytes[middle] ^= 0x55,
                1 => bytes.truncate(middle),
                _ => bytes.clear(),
            }
            fs::write(file, &bytes).unwrap();
            fill("b");
        }
    }
}
