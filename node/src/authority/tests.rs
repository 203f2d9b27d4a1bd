use clap::Parser;

use super::*;
use crate::cli::Cli;

fn node() -> NodeId {
    NodeId::new(3, 1)
}

fn load(dir: &Path) -> Result<Identity, IdentityError> {
    let NodeFiles { chain, key } = node_files(dir);
    Identity::load(&dir.join("ca.pem"), &chain, &key)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_issued_is_the_identity_of_the_node_and_keys_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_dir, out) = (dir.path().join("ca"), dir.path().join("n3.1"));
    ClusterAuthority::create(&ca_dir).unwrap();
    let files = ClusterAuthority::open(&ca_dir).unwrap().issue_node(node(), 30, &out).unwrap();
    assert_eq!(load(&out).unwrap().node().unwrap(), node());
    assert_eq!((mode(&files.key), mode(&ca_files(&ca_dir).1)), (0o600, 0o600));
    assert_eq!((mode(&files.chain), mode(&out.join("ca.pem"))), (0o644, 0o644));
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 6, "{left:?}");
}

#[test]
fn an_authority_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    ClusterAuthority::create(dir.path()).unwrap();
    let (ca, key) = ca_files(dir.path());
    let before = (fs::read(&ca).unwrap(), fs::read(&key).unwrap());
    assert!(matches!(ClusterAuthority::create(dir.path()), Err(AuthorityError::Exists(_))));
    fs::remove_file(&ca).unwrap();
    let error = ClusterAuthority::create(dir.path()).unwrap_err().to_string();
    assert!(error.contains("ca.key.pem"), "{error}");
    assert_eq!(fs::read(&key).unwrap(), before.1);
}

#[test]
fn a_rotation_that_ends_anywhere_leaves_files_that_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_dir, out) = (dir.path().join("ca"), dir.path().join("node"));
    ClusterAuthority::create(&ca_dir).unwrap();
    let authority = ClusterAuthority::open(&ca_dir).unwrap();
    let files = authority.issue_node(node(), 30, &out).unwrap();
    let old = (fs::read(&files.chain).unwrap(), fs::read_to_string(&files.key).unwrap());
    authority.issue_node(node(), 30, &out).unwrap();
    let new = (fs::read(&files.chain).unwrap(), fs::read_to_string(&files.key).unwrap());
    assert!(old.0 != new.0 && old.1 != new.1);
    assert_eq!(new.1.matches("BEGIN PRIVATE KEY").count(), 1);
    // The states in between: both keys with the old certificate, then with the new one.
    let both = format!("{}{}", new.1, old.1);
    for (chain, key) in [(&old.0, &both), (&new.0, &both), (&new.0, &new.1)] {
        fs::write(&files.chain, chain).unwrap();
        fs::write(&files.key, key).unwrap();
        load(&out).unwrap();
    }
    fs::write(&files.chain, &old.0).unwrap();
    assert!(matches!(load(&out), Err(IdentityError::OtherKey { .. })));
}

#[test]
fn a_rotation_that_fails_after_the_key_leaves_the_old_certificate_of_use() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_dir, out) = (dir.path().join("ca"), dir.path().join("node"));
    ClusterAuthority::create(&ca_dir).unwrap();
    let authority = ClusterAuthority::open(&ca_dir).unwrap();
    let files = authority.issue_node(node(), 30, &out).unwrap();
    let old = (fs::read(&files.chain).unwrap(), fs::read(&files.key).unwrap());
    // A folder where the new certificate would be written first.
    fs::create_dir(out.join("node.pem.new")).unwrap();
    assert!(matches!(authority.issue_node(node(), 30, &out), Err(AuthorityError::Unwritable { .. })));
    assert_eq!(fs::read(&files.chain).unwrap(), old.0);
    assert_ne!(fs::read(&files.key).unwrap(), old.1, "the key was written before it");
    load(&out).unwrap();
    fs::remove_dir(out.join("node.pem.new")).unwrap();
    authority.issue_node(node(), 30, &out).unwrap();
    assert_eq!(fs::read_to_string(&files.key).unwrap().matches("BEGIN PRIVATE KEY").count(), 1);
    load(&out).unwrap();
}

#[test]
fn a_key_that_is_not_the_authoritys_is_found_out_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_dir, out) = (dir.path().join("ca"), dir.path().join("node"));
    ClusterAuthority::create(&ca_dir).unwrap();
    fs::write(ca_files(&ca_dir).1, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let result = ClusterAuthority::open(&ca_dir).unwrap().issue_node(node(), 30, &out);
    assert!(matches!(result, Err(AuthorityError::Invalid(IdentityError::NotValid { .. }))));
    assert!(!out.exists());
}

fn magpie(arguments: &[&str]) -> Result<i32, String> {
    let cli = Cli::try_parse_from([&["magpie", "cert"], arguments].concat()).map_err(|e| e.to_string())?;
    cli.run().map_err(|e| format!("{e:#}"))
}

#[test]
fn the_command_makes_rotates_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
    let (ca, out_dir) = (ca.to_str().unwrap(), out.to_str().unwrap());
    let node = ["node", "--ca", ca, "--node", "n3.1", "--out", out_dir];
    let rotate = ["rotate", "--ca", ca, "--node", "n3.1", "--out", out_dir];
    let says = |result: Result<i32, String>, what: &str| {
        let error = result.unwrap_err();
        assert!(error.contains(what), "{error}");
    };
    says(magpie(&node), "magpie cert ca --dir");
    assert_eq!(magpie(&["ca", "--dir", ca]), Ok(0));
    says(magpie(&["ca", "--dir", ca]), "is there already");
    says(magpie(&rotate), "magpie cert node");
    assert_eq!(magpie(&node), Ok(0));
    says(magpie(&node), "magpie cert rotate");
    let before = fs::read(out.join("node.pem")).unwrap();
    assert_eq!(magpie(&rotate), Ok(0));
    assert_ne!(fs::read(out.join("node.pem")).unwrap(), before);
    load(&out).unwrap();
    says(magpie(&["node", "--ca", ca, "--node", "3"]), "a dot and a generation");
    says(magpie(&["node", "--ca", ca, "--node", "n1.1", "--days", "0"]), "1..=3650");
}
