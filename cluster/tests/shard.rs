//! A small machine on real storage: what is acknowledged survives, whatever is taken away.

mod machine;

use std::{path::Path, sync::Arc};

use machine::{Command, Rig, Said, user};
use magpie_cluster::{
    AskError,
    disk::{Disk, memory::Faults, os::OsDisk},
};

#[tokio::test]
async fn what_is_acknowledged_is_there_after_a_clean_stop_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    for crash in [false, true, false] {
        let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
        let before = rig.total(7);
        for _ in 0..50 {
            rig.ask(7, Command::Add(1)).await.unwrap();
        }
        assert_eq!(rig.total(7), before + 50);
        rig.end(crash).await;
    }
    let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
    assert_eq!(rig.total(7), 150);
    assert_eq!(rig.entries(7), (1..=150).collect::<Vec<_>>());
    rig.end(false).await;
}

#[tokio::test]
async fn deleting_the_state_folder_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
    for user in 0..40 {
        rig.ask(user, Command::Add(user)).await.unwrap();
    }
    rig.snapshot_all().await;
    for user in 0..40 {
        rig.ask(user, Command::Add(1)).await.unwrap();
    }
    rig.end(false).await;
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
    for user in 0..40 {
        assert_eq!(rig.total(user), user + 1);
        assert_eq!(rig.entries(user), vec![1, 2]);
    }
    rig.end(false).await;
}

#[tokio::test]
async fn power_loss_takes_nothing_that_was_acknowledged() {
    for torn_bytes in [0, 1, 17, 40, 200, 5_000] {
        let disk = machine::memory_disk();
        let rig = Rig::on(disk.clone(), Path::new("/m"), true).await;
        for _ in 0..20 {
            rig.ask(1, Command::Add(1)).await.unwrap();
        }
        let after = disk.after_power_loss(torn_bytes);
        rig.end(true).await;
        let rig = Rig::on(Arc::new(after), Path::new("/m"), true).await;
        assert!(rig.total(1) >= 20, "with {torn_bytes} torn bytes");
        rig.end(true).await;
    }
}

#[tokio::test]
async fn a_failed_sync_is_never_acknowledged_and_is_reported() {
    let disk = machine::memory_disk();
    let rig = Rig::on(disk.clone(), Path::new("/m"), true).await;
    rig.ask(1, Command::Add(1)).await.unwrap();
    disk.set_faults(Faults { fail_sync_after: Some(0), ..Faults::default() });
    assert_eq!(rig.ask(1, Command::Add(1)).await, Err(AskError::Unknown));
    assert!(rig.fatal().contains("injected sync error"), "{}", rig.fatal());
    let after = disk.after_power_loss(0);
    rig.end(true).await;
    let rig = Rig::on(Arc::new(after), Path::new("/m"), true).await;
    assert_eq!(rig.total(1), 1);
    rig.end(true).await;
}

#[tokio::test]
async fn a_full_disk_refuses_before_it_proposes_and_recovers_by_itself() {
    let disk = machine::memory_disk();
    let rig = Rig::on(disk.clone(), Path::new("/m"), true).await;
    rig.ask(1, Command::Add(1)).await.unwrap();
    disk.set_faults(Faults { free_bytes: Some(1000), ..Faults::default() });
    machine::until(|| rig.health().is_err()).await;
    assert_eq!(rig.ask(1, Command::Add(1)).await, Err(AskError::StorageFull));
    disk.set_faults(Faults::default());
    machine::until(|| rig.health().is_ok()).await;
    assert_eq!(rig.ask(1, Command::Add(1)).await, Ok(Said::Total(2)));
    rig.end(true).await;
}

#[tokio::test]
async fn a_bit_flip_in_the_log_stops_the_start_and_names_the_file() {
    let disk = machine::memory_disk();
    let rig = Rig::on(disk.clone(), Path::new("/m"), true).await;
    for _ in 0..20 {
        rig.ask(1, Command::Add(1)).await.unwrap();
    }
    rig.end(false).await;
    let file = Path::new("/m/log/log-0000000000.seg");
    let len = disk.read(file).unwrap().len();
    for offset in (0..len).step_by(13) {
        disk.flip_bit(file, offset);
        let error = Rig::try_on(disk.clone(), Path::new("/m"), true).await.err();
        disk.flip_bit(file, offset);
        let text = error.map(|e| e.to_string()).unwrap_or_default();
        // The seal that a clean stop writes is the one group whose loss costs nothing.
        let seal = offset >= len - 63;
        assert!(seal || (text.contains("log-0000000000.seg") && text.contains("offset")), "at {offset}: {text:?}");
    }
}

#[tokio::test]
async fn a_bit_flip_in_a_snapshot_is_found_before_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
    for user in 0..40 {
        rig.ask(user, Command::Add(1)).await.unwrap();
    }
    rig.snapshot_all().await;
    rig.end(false).await;
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    let snapshots = dir.path().join("snapshots");
    let file = std::fs::read_dir(&snapshots).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let error = Rig::try_on(Arc::new(OsDisk), dir.path(), false).await.err().unwrap().to_string();
    assert!(error.contains("snapshot damaged") && error.contains("offset"), "{error}");
    bytes[middle] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
    assert_eq!(rig.total(3), 1);
    rig.end(false).await;
}

#[tokio::test]
async fn a_panic_in_apply_quarantines_one_entity_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
    rig.ask(1, Command::Add(5)).await.unwrap();
    assert_eq!(rig.ask(1, Command::Panic).await, Ok(Said::Internal));
    assert_eq!(rig.ask(1, Command::Add(1)).await, Ok(Said::Internal));
    assert_eq!(rig.ask(2, Command::Add(1)).await, Ok(Said::Total(1)));
    rig.end(true).await;
    let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
    assert_eq!(rig.ask(1, Command::Add(1)).await, Ok(Said::Internal));
    assert_eq!(rig.ask(2, Command::Add(1)).await, Ok(Said::Total(2)));
    assert_eq!(rig.total(1), 5, "what the panicking command wrote was discarded");
    rig.end(false).await;
}

#[tokio::test]
async fn the_outbox_delivers_exactly_once_and_in_order_over_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let people = 12;
    for round in 0..6 {
        let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
        for from in 0..people {
            for to in 0..people {
                let note = round * 1000 + from * 10;
                rig.ask(from, Command::Tell { to: user(to), note }).await.unwrap();
            }
        }
        // Crash while the outbox is busy.
        rig.end(true).await;
    }
    let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
    machine::until_async(async || {
        for to in 0..people {
            if rig.notes(to).len() < (6 * people) as usize {
                return false;
            }
        }
        true
    })
    .await;
    for to in 0..people {
        let notes = rig.notes(to);
        assert_eq!(notes.len(), (6 * people) as usize, "each message once");
        for from in 0..people {
            let of: Vec<u64> = notes.iter().filter(|n| n.0 == from).map(|n| n.1).collect();
            assert!(of.is_sorted(), "messages of {from} to {to} are in order: {of:?}");
        }
    }
    rig.end(false).await;
}
