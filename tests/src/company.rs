//! One node in this process, and the people on it.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use magpie_node::{Config, Options};

use crate::{InProcess, Person, Place, node::test_config};

/// A node with a folder of its own, and people who are signed in.
pub struct Company {
    pub node: InProcess,
    pub place: Place,
    pub people: Vec<Person>,
    pub dir: tempfile::TempDir,
}

impl Company {
    /// Signs these people up at a new node, whose configuration may differ from that of tests.
    pub async fn new(names: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut config = test_config(dir.path());
        change(&mut config);
        let node = InProcess::start(config, Options::default());
        let place = Place::new(node.address, node.ca.clone());
        let mut people = Vec::new();
        for name in names {
            people.push(Person::new(&place, name).await);
        }
        Self { node, place, people, dir }
    }
}
