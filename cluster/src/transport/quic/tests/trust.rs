use std::fs;

use super::*;
use crate::transport::quic::link::{Link, node_at};

/// Dials `to` at this address once, with this identity; why it does not come through.
async fn dial(with: &Identity, to: NodeId, address: SocketAddr) -> Result<(), String> {
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let config = client_config(with).unwrap();
    let dialled = tokio::time::timeout(10 * SECOND, Link::dial(&endpoint, config, to, address)).await.unwrap();
    dialled.map(drop).map_err(|e| e.to_string())
}

/// Node 2 with this identity dials node 1, which knows its own way.
async fn turned_away(authority: &Authority, identity: Identity) -> Result<(), String> {
    let one = Node::start(node(1), 0, &authority.identity(node(1)));
    one.transport.set_peers(BTreeMap::from([(node(2), ([127, 0, 0, 1], 1).into())]));
    let result = dial(&identity, node(1), one.transport.address().unwrap()).await;
    stop(vec![one]).await;
    result
}

/// Node 1 dials what should be node 2 and has this identity.
async fn avoided(authority: &Authority, identity: Identity) -> Result<(), String> {
    let two = Node::start(node(2), 0, &identity);
    two.transport.set_peers(BTreeMap::from([(node(1), ([127, 0, 0, 1], 1).into())]));
    let result = dial(&authority.identity(node(1)), node(2), two.transport.address().unwrap()).await;
    stop(vec![two]).await;
    result
}

fn expired(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
}

#[tokio::test]
async fn only_a_peer_with_its_own_certificate_comes_in() {
    let ours = Authority::new();
    let name = name_of(node(2));
    assert_eq!(turned_away(&ours, ours.identity(node(2))).await, Ok(()));
    let mut foreign = Authority::new().identity(node(2));
    // It trusts us, but we do not trust it.
    foreign.trust(&ours.identity(node(2)));
    for (what, identity, reason) in [
        ("a foreign authority", foreign, "invalid peer certificate"),
        ("an expired certificate", ours.identity_with(&[&name], expired), "expired"),
        ("another role", ours.identity_with(&["n2-1.gateway.magpie"], |_| {}), "n2-1.gateway.magpie"),
        ("two names", ours.identity_with(&[&name, &name_of(node(3))], |_| {}), "2 names"),
        ("no name", ours.identity_with(&[], |_| {}), "0 names"),
        ("any node's name", ours.identity_with(&["*.node.magpie"], |_| {}), "*.node.magpie"),
        ("no peer", ours.identity(node(3)), "not among the peers"),
        ("the node itself", ours.identity(node(1)), "not among the peers"),
    ] {
        let why = turned_away(&ours, identity).await.expect_err(what);
        assert!(why.to_lowercase().contains(&reason.to_lowercase()), "{what}: {why}");
    }
}

#[tokio::test]
async fn nobody_else_is_taken_for_the_node_that_was_dialled() {
    let ours = Authority::new();
    let name = name_of(node(2));
    assert_eq!(avoided(&ours, ours.identity(node(2))).await, Ok(()));
    for (what, identity, reason) in [
        ("a foreign authority", Authority::new().identity(node(2)), "invalid peer certificate"),
        ("an expired certificate", ours.identity_with(&[&name], expired), "expired"),
        ("another role", ours.identity_with(&["n2-1.gateway.magpie"], |_| {}), "not valid for name"),
        ("another node", ours.identity(node(3)), "not valid for name"),
        ("another generation", ours.identity(NodeId::new(2, 2)), "not valid for name"),
        ("two names", ours.identity_with(&[&name, &name_of(node(3))], |_| {}), "2 names"),
        ("any node's name", ours.identity_with(&["*.node.magpie"], |_| {}), "*.node.magpie"),
    ] {
        let why = avoided(&ours, identity).await.expect_err(what);
        assert!(why.to_lowercase().contains(&reason.to_lowercase()), "{what}: {why}");
    }
}

#[tokio::test]
async fn certificates_are_replaced_while_requests_run_and_none_is_lost() {
    let authority = Authority::new();
    let nodes = cluster(&authority, 2).await;
    let (done, count) = (AtomicBool::new(false), AtomicU32::new(0));
    let requests = async {
        while !done.load(Ordering::Relaxed) {
            for lane in Lane::ALL {
                nodes[0].call(node(2), lane, b"on").await.unwrap();
                nodes[1].call(node(1), lane, b"on").await.unwrap();
                count.fetch_add(2, Ordering::Relaxed);
            }
        }
    };
    let (stranger, third) = (quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap(), authority.identity(node(3)));
    let rotation = async {
        for round in 0..20 {
            let fresh: Vec<Identity> = nodes.iter().map(|n| authority.identity(n.id)).collect();
            for (node, identity) in nodes.iter().zip(&fresh) {
                node.transport.set_identity(identity).unwrap();
            }
            // Who dials now is shown the new one. It is no peer, so that it takes nobody's place.
            let address = nodes[1].transport.address().unwrap();
            let connecting = stranger.connect_with(client_config(&third).unwrap(), address, &name_of(node(2)));
            let connection = connecting.unwrap().await.unwrap();
            assert_eq!(node_at(&connection).unwrap(), node(2));
            let shown = connection.peer_identity().unwrap();
            let shown = shown.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
            assert_eq!(*shown, fresh[1].chain(), "round {round}");
            let answered = count.load(Ordering::Relaxed);
            while count.load(Ordering::Relaxed) < answered + 6 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(requests, rotation);
    drop(stranger);
    stop(nodes).await;
}

#[tokio::test]
async fn a_node_starts_only_with_its_own_identity() {
    let authority = Authority::new();
    let start = |identity: &Identity| QuicTransport::bind(node(1), ([127, 0, 0, 1], 0).into(), identity);
    let other = start(&authority.identity(node(2))).unwrap_err().to_string();
    assert!(other.contains("n2.1") && other.contains("n1.1"), "{other}");
    let late = start(&authority.identity_with(&[&name_of(node(1))], expired)).unwrap_err().to_string();
    assert!(late.contains("expired") && late.contains("magpie cert rotate"), "{late}");
    let transport = start(&authority.identity(node(1))).unwrap();
    let error = transport.set_identity(&authority.identity(node(2))).unwrap_err();
    assert!(matches!(error, IdentityError::OtherNode { .. }), "{error}");
    let taken = QuicTransport::bind(node(1), transport.address().unwrap(), &authority.identity(node(1)));
    let taken = taken.unwrap_err().to_string();
    assert!(taken.contains(&transport.address().unwrap().to_string()), "{taken}");
    transport.stop().await;
}

#[test]
fn an_identity_in_files_says_which_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let [ca, chain, key] = ["ca.pem", "node.pem", "node.key.pem"].map(|name| dir.path().join(name));
    let load = || Identity::load(&ca, &chain, &key).map(|identity| identity.node().unwrap());
    let error = |file: &str, what: &str| {
        let error = load().unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(what), "{error}");
    };
    error("ca.pem", "cannot read");
    fs::write(&ca, authority.0.pem()).unwrap();
    error("/node.pem", "cannot read");
    let (chain_pem, key_pem) = authority.issue(&[&name_of(node(7))], |_| {});
    fs::write(&chain, &chain_pem).unwrap();
    fs::write(&key, "nothing").unwrap();
    error("node.key.pem", "no key in it");
    fs::write(&key, &key_pem).unwrap();
    assert_eq!(load().unwrap(), node(7));
    // While it is rotated, the file of the key has both.
    let (_, other) = authority.issue(&[&name_of(node(7))], |_| {});
    fs::write(&key, format!("{other}{key_pem}")).unwrap();
    assert_eq!(load().unwrap(), node(7));
    fs::write(&key, other).unwrap();
    error("node.key.pem", "belongs to the certificate in");
    fs::write(&key, &key_pem).unwrap();
    fs::write(&ca, Authority::new().0.pem()).unwrap();
    error("/node.pem", "not valid under");
    fs::write(&ca, "").unwrap();
    error("ca.pem", "no certificate");
    assert!(format!("{:?}", authority.identity(node(1))).len() < 100, "a key is not printed");
}

#[test]
fn names_of_nodes_go_both_ways() {
    assert_eq!(name_of(NodeId::new(3, 1)), "n3-1.node.magpie");
    use crate::transport::tls::node_named;
    assert_eq!(node_named("n3-1.node.magpie"), Some(NodeId::new(3, 1)));
    for other in ["n3.1.node.magpie", "n3-1.admin.magpie", "n03-1.node.magpie", "n3-1", "*.node.magpie", ""] {
        assert_eq!(node_named(other), None, "{other}");
    }
}
