use std::collections::{BTreeMap, BTreeSet};

use magpie_protocol::{NodeId, ShardId};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    placement::{Seen, Step, lead_out, next_step, plan},
    *,
};

fn node(n: u32) -> NodeId {
    NodeId::new(n, 1)
}

fn address(n: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1000 + n as u16))
}

fn cluster(nodes: u32, shards: u16) -> System {
    let mut system = System::found(1, (1..=nodes).map(|n| (node(n), address(n))).collect(), shards);
    for (n, member) in (1..).zip(system.nodes.values_mut()) {
        member.disk = Some(DiskId(n));
    }
    system
}

fn facts(n: u32, zone: &str) -> Registration {
    Registration { address: address(n), zone: zone.to_owned(), level: LEVEL, devices: None }
}

/// The node is expected and comes.
fn join(system: &System, n: u32, zone: &str) -> System {
    let token = Some([n as u8; 32]);
    let expect = Change::Expect { node: node(n), address: address(n), token: [n as u8; 32] };
    let register = Change::Register { node: node(n), disk: DiskId(n.into()), token, facts: facts(n, zone) };
    system.changed(expect).unwrap().changed(register).unwrap()
}

/// Everybody is up, and the first replica leads each shard.
fn all_up(system: &System) -> Seen {
    let up: BTreeSet<NodeId> = system.peers().into_keys().collect();
    let leaders = system.shards.iter().enumerate();
    let leaders = leaders.filter_map(|(i, place)| Some((ShardId::new(i as u16), *place.replicas.first()?)));
    Seen { up, leaders: leaders.collect(), ..Seen::default() }
}

/// Takes steps until there are none; every one must leave enough replicas of those before.
fn settle(mut system: System, seen: &mut Seen) -> (System, usize) {
    for steps in 0.. {
        assert!(steps < 500, "it never ends: {system:?}");
        match next_step(&system, seen) {
            None => return (system, steps),
            Some(Step::Move { shard, to }) => {
                let before = &system.place(shard).unwrap().replicas;
                let kept = before.intersection(&to).count();
                assert!(kept + 1 >= before.len().min(to.len()), "{before:?} to {to:?} at once");
                assert!(to.iter().all(|n| before.contains(n) || seen.up.contains(n)));
                system = system.changed(Change::Move { shard, to: to.clone() }).unwrap();
                assert!(system.place(shard).unwrap().holders().is_superset(&to));
                if seen.leaders.get(&shard).is_none_or(|leader| !to.contains(leader)) {
                    let next = to.iter().copied().find(|n| seen.up.contains(n)).unwrap();
                    seen.leaders.insert(shard, next);
                }
                system = system.changed(Change::Moved { shard, replicas: to }).unwrap();
            }
            Some(Step::Lead { shard, from, to }) => {
                assert_eq!(seen.leaders.get(&shard), Some(&from));
                assert!(system.place(shard).unwrap().replicas.contains(&to) && seen.up.contains(&to));
                seen.leaders.insert(shard, to);
            }
        }
    }
    unreachable!("the loop returns or panics")
}

fn spread<T: Ord>(of: impl Iterator<Item = T>, among: impl Iterator<Item = T>) -> usize {
    let mut counts: BTreeMap<T, usize> = among.map(|each| (each, 0)).collect();
    of.for_each(|each| *counts.entry(each).or_default() += 1);
    counts.values().max().unwrap() - counts.values().min().unwrap()
}

#[test]
fn leaders_and_replicas_are_spread_over_the_nodes() {
    let system = cluster(3, 8);
    let mut seen = all_up(&system);
    let (system, steps) = settle(system, &mut seen);
    assert!(steps <= 6, "{steps} steps");
    assert!(spread(seen.leaders.values().copied(), system.peers().into_keys()) <= 1);

    let system = join(&join(&system, 4, ""), 5, "");
    seen.up.extend([node(4), node(5)]);
    let (system, _) = settle(system, &mut seen);
    let held = system.shards.iter().flat_map(|place| place.replicas.iter().copied());
    assert!(spread(held, system.peers().into_keys()) <= 1);
    assert!(spread(seen.leaders.values().copied(), system.peers().into_keys()) <= 1);
    assert!(system.shards.iter().all(|place| place.replicas.len() == 3));
}

#[test]
fn zones_are_kept_apart() {
    let mut system = cluster(1, 8);
    system.replicas = 3;
    for (n, zone) in [(2, "b"), (3, "b"), (4, "c"), (5, "c")] {
        system = join(&system, n, zone);
    }
    let register = Change::Register { node: node(1), disk: DiskId(1), token: None, facts: facts(1, "a") };
    let system = system.changed(register).unwrap();
    let mut seen = all_up(&system);
    let (system, _) = settle(system, &mut seen);
    for place in &system.shards {
        let zones: BTreeSet<&str> = place.replicas.iter().map(|n| system.nodes[n].zone.as_str()).collect();
        assert_eq!(zones.len(), 3, "{place:?}");
    }
}

#[test]
fn a_drained_node_ends_with_nothing_or_keeps_what_nobody_can_take() {
    let three = cluster(3, 8);
    let drain = Change::Stand { node: node(1), standing: Standing::Draining };
    let mut seen = all_up(&three);
    let (kept, _) = settle(three.changed(drain.clone()).unwrap(), &mut seen);
    assert_eq!(kept.held_by(node(1)), 8, "three replicas need three nodes");
    assert!(seen.leaders.values().all(|leader| *leader != node(1)));
    let removed = kept.changed(Change::Stand { node: node(1), standing: Standing::Removed });
    assert_eq!(removed, Err(Refusal::StillHolds(node(1), 8)));

    let four = join(&kept, 4, "");
    seen.up.insert(node(4));
    let (four, _) = settle(four, &mut seen);
    assert_eq!(four.held_by(node(1)), 0);
    let gone = four.changed(Change::Stand { node: node(1), standing: Standing::Removed }).unwrap();
    assert!(!gone.peers().contains_key(&node(1)));
    let again = Change::Expect { node: node(1), address: address(1), token: [0; 32] };
    assert_eq!(gone.changed(again), Err(Refusal::Taken(node(1))));
    let back = Change::Register { node: node(1), disk: DiskId(1), token: None, facts: facts(1, "") };
    assert_eq!(gone.changed(back), Err(Refusal::Removed(node(1))));
}

#[test]
fn a_lost_node_is_replaced_where_another_can_take_its_place() {
    let mut seen = all_up(&cluster(3, 4));
    seen.up.remove(&node(2));
    seen.lost.insert(node(2));
    seen.leaders.values_mut().for_each(|leader| *leader = node(1));
    let (kept, _) = settle(cluster(3, 4), &mut seen);
    assert_eq!(kept.held_by(node(2)), 4, "it may come back");
    let four = join(&kept, 4, "");
    seen.up.insert(node(4));
    let (four, _) = settle(four, &mut seen);
    assert_eq!((four.held_by(node(2)), four.held_by(node(4))), (0, 4));
}

#[test]
fn a_move_is_ended_by_who_began_it_and_can_be_called_off() {
    let system = join(&cluster(3, 2), 4, "");
    let (shard, back) = (ShardId::new(0), system.shards[0].replicas.clone());
    let to: BTreeSet<NodeId> = [node(1), node(2), node(4)].into();
    let moving = system.changed(Change::Move { shard, to: to.clone() }).unwrap();
    let other: BTreeSet<NodeId> = [node(1), node(3), node(4)].into();
    assert_eq!(moving.changed(Change::Move { shard, to: other.clone() }), Err(Refusal::Moving(shard)));
    let late = moving.changed(Change::Moved { shard, replicas: other }).unwrap();
    assert_eq!(late, moving, "of another move");

    // The new replica's node is lost: the move is called off, and others can begin.
    let mut seen = all_up(&moving);
    seen.up.remove(&node(4));
    seen.lost.insert(node(4));
    assert_eq!(next_step(&moving, &seen), Some(Step::Move { shard, to: back.clone() }));
    let called_off = moving.changed(Change::Move { shard, to: back.clone() }).unwrap();
    assert!(!called_off.holds(node(4), shard));
    let ended = called_off.changed(Change::Moved { shard, replicas: back.clone() }).unwrap();
    assert_eq!((&ended.shards[0].replicas, &ended.shards[0].becoming), (&back, &None));
}

#[test]
fn a_replica_that_lags_is_given_no_lead() {
    let system = cluster(3, 2);
    let mut seen = all_up(&system);
    seen.leaders.values_mut().for_each(|leader| *leader = node(1));
    seen.lagging = [2, 3].into_iter().flat_map(|n| [0, 1].map(|shard| (ShardId::new(shard), node(n)))).collect();
    assert_eq!(next_step(&system, &seen), None);
    seen.lagging.remove(&(ShardId::new(1), node(3)));
    let expected = Step::Lead { shard: ShardId::new(1), from: node(1), to: node(3) };
    assert_eq!(next_step(&system, &seen), Some(expected));
}

#[test]
fn a_record_of_another_cluster_is_not_taken() {
    let (view, mine) = (SystemView::default(), cluster(3, 2));
    view.offer(mine.clone());
    view.offer(System { id: 2, version: 9, ..mine.clone() });
    assert_eq!(*view.now().unwrap(), mine);
    view.offer(System { version: 9, ..mine });
    assert_eq!(view.version(), 9);
}

#[test]
fn an_id_belongs_to_one_data_folder() {
    let system = cluster(3, 2);
    let register = |disk, token| Change::Register { node: node(2), disk: DiskId(disk), token, facts: facts(2, "z") };
    assert_eq!(system.changed(register(7, None)), Err(Refusal::OtherDisk(node(2))));
    let same = system.changed(register(2, None)).unwrap();
    assert_eq!(same.nodes[&node(2)].zone, "z");
    assert_eq!(same.changed(register(2, None)).unwrap().version, same.version, "nothing changed");

    let stranger = |token| Change::Register { node: node(9), disk: DiskId(9), token, facts: facts(9, "") };
    assert_eq!(system.changed(stranger(None)), Err(Refusal::Unknown(node(9))));
    let expected = system.changed(Change::Expect { node: node(9), address: address(9), token: [1; 32] }).unwrap();
    assert_eq!(expected.changed(stranger(None)), Err(Refusal::WrongToken(node(9))));
    assert_eq!(expected.changed(stranger(Some([2; 32]))), Err(Refusal::WrongToken(node(9))));
    let come = expected.changed(stranger(Some([1; 32]))).unwrap();
    assert_eq!(
        come.changed(Change::Expect { node: node(9), address: address(9), token: [3; 32] }),
        Err(Refusal::Taken(node(9)))
    );
}

#[test]
fn an_older_build_does_not_come_back_into_a_cluster_that_has_moved_on() {
    let mut system = cluster(3, 2);
    assert_eq!(system.changed(Change::Raise { level: LEVEL + 1 }), Err(Refusal::NotYet(node(1), FIRST_LEVEL)));
    system.nodes.values_mut().for_each(|member| member.level = LEVEL + 1);
    let raised = system.changed(Change::Raise { level: LEVEL + 1 }).unwrap();
    let register = Change::Register { node: node(2), disk: DiskId(2), token: None, facts: facts(2, "") };
    assert_eq!(raised.changed(register), Err(Refusal::TooOld { can: LEVEL, at: LEVEL + 1 }));
}

/// Nodes come, go, fail and drain as lots are drawn: it always settles, and no shard is ever without a live majority
/// of its replicas because of a step.
#[test]
fn whatever_happens_to_nodes_it_settles() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let first = [1, 3, 5][random.random_range(0..3)];
        let mut system = cluster(first, random.random_range(1..=16));
        system.replicas = [1, 3, 5][random.random_range(0..3)];
        let mut seen = all_up(&system);
        let mut next = first + 1;
        for _ in 0..12 {
            let nodes: Vec<NodeId> = system.peers().into_keys().collect();
            let one = nodes[random.random_range(0..nodes.len())];
            match random.random_range(0..5) {
                0 | 1 => {
                    system = join(&system, next, ["", "a", "b"][random.random_range(0..3)]);
                    seen.up.insert(node(next));
                    next += 1;
                }
                2 => {
                    let standing = [Standing::Draining, Standing::Active, Standing::Removed][random.random_range(0..3)];
                    if let Ok(changed) = system.changed(Change::Stand { node: one, standing }) {
                        system = changed;
                    }
                }
                3 if seen.up.len() > nodes.len() / 2 + 1 => {
                    seen.up.remove(&one);
                    if random.random() {
                        seen.lost.insert(one);
                    }
                }
                _ => {
                    seen.up.insert(one);
                    seen.lost.remove(&one);
                }
            }
            for (i, place) in system.shards.iter().enumerate() {
                let shard = ShardId::new(i as u16);
                let led = seen.leaders.get(&shard).is_some_and(|l| seen.up.contains(l) && place.replicas.contains(l));
                if !led {
                    seen.leaders.remove(&shard);
                    seen.leaders.extend(place.replicas.iter().find(|n| seen.up.contains(n)).map(|n| (shard, *n)));
                }
            }
            (system, _) = settle(system, &mut seen);
            assert!(system.shards.iter().all(|place| place.becoming.is_none() && !place.replicas.is_empty()));
        }
    }
}

#[test]
fn a_leader_that_goes_hands_its_lead_over_before() {
    let mut system = cluster(4, 1);
    system = system.changed(Change::Want { replicas: 3 }).unwrap();
    let (shard, nodes) = (ShardId::new(0), |of: &[u32]| of.iter().map(|n| node(*n)).collect::<BTreeSet<_>>());
    system.shards[0].replicas = nodes(&[1, 2, 3]);
    let mut seen = all_up(&system);
    assert_eq!(lead_out(&system, &seen, shard), None, "nothing moves");
    system = system.changed(Change::Move { shard, to: nodes(&[2, 3, 4]) }).unwrap();
    assert_eq!(lead_out(&system, &seen, shard), Some(node(2)), "not the one that comes: it lacks everything");
    seen.lagging.insert((shard, node(2)));
    assert_eq!(lead_out(&system, &seen, shard), Some(node(3)));
    seen.unfit.insert(node(3));
    assert_eq!(lead_out(&system, &seen, shard), None, "nobody may");
    seen.leaders.insert(shard, node(2));
    assert_eq!(lead_out(&system, &seen, shard), None, "it stays");
}

#[test]
fn a_lead_that_was_moved_by_hand_rests_unless_its_node_goes() {
    let mut system = cluster(3, 3);
    let mut seen = all_up(&system);
    assert!(matches!(next_step(&system, &seen), Some(Step::Lead { .. })), "one leads all");
    seen.resting = (0..3).map(ShardId::new).collect();
    assert_eq!(next_step(&system, &seen), None);
    system = system.changed(Change::Stand { node: node(1), standing: Standing::Draining }).unwrap();
    assert!(matches!(next_step(&system, &seen), Some(Step::Lead { from, .. }) if from == node(1)));
}

#[test]
fn a_plan_is_what_the_steps_come_to() {
    let system = join(&cluster(3, 8), 4, "");
    let mut seen = all_up(&system);
    let steps = plan(&system, &seen);
    let (settled, count) = settle(system.clone(), &mut seen);
    let moves = |steps: &[Step]| steps.iter().filter(|step| matches!(step, Step::Move { .. })).count();
    assert_eq!(moves(&steps), 6, "a fourth of the replicas: {steps:?}");
    let mut places: Vec<_> = system.shards.iter().map(|place| place.replicas.clone()).collect();
    for step in &steps {
        if let Step::Move { shard, to } = step {
            places[usize::from(shard.get())] = to.clone();
        }
    }
    let now: Vec<_> = settled.shards.iter().map(|place| place.replicas.clone()).collect();
    assert_eq!(places, now);
    assert!(count >= 6);
}
