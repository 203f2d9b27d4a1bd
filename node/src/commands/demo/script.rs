//! What is said by whom, in which order.

use std::collections::{BTreeMap, HashMap, HashSet};

use magpie_protocol::limits::GROUP_MEMBERS_MAX;

/// A person of the script, by place in [`Script::people`].
pub(crate) type PersonIndex = usize;

/// One thing that happens in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Join(PersonIndex),
    Leave(PersonIndex),
    Say(PersonIndex, String),
}

impl Step {
    fn person(&self) -> PersonIndex {
        match self {
            Self::Join(person) | Self::Leave(person) | Self::Say(person, _) => *person,
        }
    }
}

/// One group: its steps, each at a minute since the group began.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupScript {
    pub(crate) title: String,
    pub(crate) steps: Vec<(u32, Step)>,
}

/// Everything that is played.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) people: Vec<String>,
    pub(crate) groups: Vec<GroupScript>,
    /// Lines that were not played, by reason.
    pub(crate) skipped: BTreeMap<&'static str, u64>,
    indexes: HashMap<String, PersonIndex>,
}

impl Script {
    /// The person of this name.
    pub(crate) fn person(&mut self, name: &str) -> PersonIndex {
        let next = self.people.len();
        let key = name.to_lowercase();
        *self.indexes.entry(key).or_insert_with(|| {
            self.people.push(name.to_owned());
            next
        })
    }

    /// Counts a line that is not played.
    pub(crate) fn skip(&mut self, why: &'static str) {
        *self.skipped.entry(why).or_default() += 1;
    }

    /// Adds a group, cut to the people who say most if there are more than fit; somebody who speaks or leaves
    /// without having joined is taken to have joined before.
    pub(crate) fn add(&mut self, mut group: GroupScript) {
        let mut said: HashMap<PersonIndex, u64> = HashMap::new();
        for (_, step) in &group.steps {
            *said.entry(step.person()).or_default() += u64::from(matches!(step, Step::Say(..)));
        }
        // One place is the host's, who invites.
        if said.len() > GROUP_MEMBERS_MAX - 1 {
            let mut order: Vec<_> = said.into_iter().collect();
            order.sort_by_key(|(person, count)| (std::cmp::Reverse(*count), *person));
            let kept: HashSet<_> = order.into_iter().take(GROUP_MEMBERS_MAX - 1).map(|(person, _)| person).collect();
            let before = group.steps.len();
            group.steps.retain(|(_, step)| kept.contains(&step.person()));
            *self.skipped.entry("of people beyond the 500 most active of a group").or_default() +=
                (before - group.steps.len()) as u64;
        }
        let mut present: HashSet<PersonIndex> = HashSet::new();
        let mut steps = Vec::with_capacity(group.steps.len());
        for (minute, step) in group.steps {
            let person = step.person();
            match step {
                Step::Join(_) if !present.insert(person) => continue,
                Step::Leave(_) if !present.remove(&person) => continue,
                Step::Say(..) if present.insert(person) => steps.push((minute, Step::Join(person))),
                _ => {}
            }
            steps.push((minute, step));
        }
        group.steps = steps;
        self.groups.push(group);
    }

    /// A conversation of our own: the same every time.
    pub(crate) fn generate(groups: usize, people: usize, messages: usize) -> Self {
        const WORDS: [&str; 16] = [
            "the", "magpie", "nest", "is", "silver", "over", "there", "who", "took", "my", "shiny", "ring", "maybe",
            "you", "did", "again",
        ];
        let mut script = Self::default();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = move |below: usize| {
            // xorshift64*: enough to vary a demonstration (Vigna, 2016).
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
        };
        for group in 0..groups {
            let mut steps = Vec::new();
            for number in 0..messages {
                let person = script.person(&format!("bird-{}", draw(people * groups.div_ceil(2))));
                let minute = (number / 20) as u32;
                match draw(20) {
                    0 => steps.push((minute, Step::Leave(person))),
                    1 => steps.push((minute, Step::Join(person))),
                    _ => {
                        let words: Vec<_> = (0..3 + draw(9)).map(|_| WORDS[draw(WORDS.len())]).collect();
                        steps.push((minute, Step::Say(person, words.join(" "))));
                    }
                }
            }
            script.add(GroupScript { title: format!("tree {}", group + 1), steps });
        }
        script
    }

    /// Messages that will be sent.
    pub(crate) fn messages(&self) -> u64 {
        let steps = self.groups.iter().flat_map(|g| &g.steps);
        steps.filter(|(_, step)| matches!(step, Step::Say(..))).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_without_having_joined_joins_first() {
        let mut script = Script::default();
        let (a, b) = (script.person("a"), script.person("b"));
        let say = |p| (0, Step::Say(p, "x".into()));
        let steps = vec![say(a), (0, Step::Join(a)), (1, Step::Leave(b)), (1, Step::Leave(a)), say(a)];
        script.add(GroupScript { title: "t".into(), steps });
        let kinds: Vec<_> = script.groups[0].steps.iter().map(|(_, s)| s.clone()).collect();
        let say = |p| Step::Say(p, "x".into());
        assert_eq!(kinds, [Step::Join(a), say(a), Step::Leave(a), Step::Join(a), say(a)]);
    }

    #[test]
    fn a_group_is_cut_to_the_most_active() {
        let mut script = Script::default();
        let mut steps = Vec::new();
        for n in 0..600 {
            let person = script.person(&format!("p{n}"));
            for _ in 0..=(n / 100) {
                steps.push((0, Step::Say(person, "x".into())));
            }
        }
        script.add(GroupScript { title: "t".into(), steps });
        let people: HashSet<_> = script.groups[0].steps.iter().map(|(_, s)| s.person()).collect();
        assert_eq!(people.len(), 499);
        assert_eq!(script.skipped.values().sum::<u64>(), 102, "100 people with one line, one with two");
    }

    #[test]
    fn the_generated_conversation_is_the_same_every_time() {
        let (a, b) = (Script::generate(3, 10, 50), Script::generate(3, 10, 50));
        assert_eq!(a.people, b.people);
        assert_eq!(a.groups[2].steps, b.groups[2].steps);
        assert!(a.messages() > 100);
    }
}
