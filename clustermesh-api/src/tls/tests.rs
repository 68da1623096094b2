//! Tests of `tls`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fabric_core::names::ClusterName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::pki::{Authority, KeyMaterial, Leaf, LeafRequest, Role, Validity};

struct World {
    _directories: Vec<tempfile::TempDir>,
    eu: Authority,
    us: Authority,
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn world() -> World {
    let directories = vec![tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let make = |index: usize, name| {
        Authority::open_or_create(directories[index].path(), &cluster(name), SystemTime::now()).unwrap()
    };
    let (eu, us) = (make(0, "eu"), make(1, "us"));
    World { _directories: directories, eu, us }
}

fn leaf_at(authority: &Authority, role: Role, now: SystemTime) -> Leaf {
    let request = LeafRequest { role, addresses: Vec::new(), validity: Validity::day(now) };
    authority.issue(&request, &KeyMaterial::Generate).unwrap()
}

fn leaf(authority: &Authority, role: Role) -> Leaf {
    leaf_at(authority, role, SystemTime::now())
}

fn peer(authority: &Authority, grant: Grant) -> PeerAuthority {
    PeerAuthority { cluster: authority.cluster().clone(), certificate: authority.certificate().clone(), grant }
}

struct Server {
    address: SocketAddr,
    task: tokio::task::JoinHandle<std::io::Result<Option<PeerIdentity>>>,
}

/// Accepts one connection and answers "hi".
async fn serve(certificate: &Leaf, trusted: &TrustedAuthorities, clients: ClientCertificate) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let certificate = ServerCertificate::new(certificate).unwrap();
    let config = server_config(&certificate, trusted, clients, &[ALPN_H2]).unwrap();
    let trusted = trusted.clone();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut accepted = accept(stream, &config, &trusted).await?;
        accepted.stream.write_all(b"hi").await?;
        accepted.stream.shutdown().await?;
        Ok(accepted.peer)
    });
    Server { address, task }
}

/// Connects and reads what the server says, as a refusal of our certificate comes only then.
async fn talk(address: SocketAddr, trust: &ServerTrust, identity: &ClientIdentity<'_>) -> std::io::Result<String> {
    let config = client_config(trust, identity, &[ALPN_H2]).unwrap();
    let mut stream = Connector::new(&[address], config).connect(Duration::from_secs(5)).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn fault_of(result: std::io::Result<String>) -> TlsFault {
    let error = result.unwrap_err();
    tls_fault(&error).unwrap_or_else(|| panic!("no fault in {error:?}"))
}

#[tokio::test]
async fn a_pin_is_enough_to_find_the_one_server() {
    let world = world();
    let trusted = TrustedAuthorities::new(&cluster("eu"), world.eu.certificate()).unwrap();
    let certificate = leaf(&world.eu, Role::Api);
    let trust = ServerTrust::pinned_api(world.eu.pin());
    let server = serve(&certificate, &trusted, ClientCertificate::Optional).await;
    assert_eq!(talk(server.address, &trust, &ClientIdentity::Anonymous).await.unwrap(), "hi");
    assert_eq!(server.task.await.unwrap().unwrap(), None);

    let server = serve(&certificate, &trusted, ClientCertificate::Optional).await;
    let wrong = ServerTrust::pinned_api(world.us.pin());
    assert_eq!(fault_of(talk(server.address, &wrong, &ClientIdentity::Anonymous).await), TlsFault::OtherAuthority);
}

#[tokio::test]
async fn a_chain_that_only_carries_the_pinned_authority_is_refused() {
    let world = world();
    let trusted = TrustedAuthorities::new(&cluster("eu"), world.eu.certificate()).unwrap();
    // An impostor: its own leaf, the real authority's certificate beside it.
    let mut impostor = leaf(&world.us, Role::Api);
    impostor.chain[1] = world.eu.certificate().clone();
    let server = serve(&impostor, &trusted, ClientCertificate::Optional).await;
    let trust = ServerTrust::pinned_api(world.eu.pin());
    assert_eq!(fault_of(talk(server.address, &trust, &ClientIdentity::Anonymous).await), TlsFault::OtherAuthority);
}

#[tokio::test]
async fn a_node_of_the_same_cluster_is_not_its_api() {
    let world = world();
    let trusted = TrustedAuthorities::new(&cluster("eu"), world.eu.certificate()).unwrap();
    let node = leaf(&world.eu, Role::Node("n1".parse().unwrap()));
    let server = serve(&node, &trusted, ClientCertificate::Optional).await;
    let mut trust = ServerTrust::pinned_api(world.eu.pin());
    trust.cluster = Some(cluster("eu"));
    let fault = fault_of(talk(server.address, &trust, &ClientIdentity::Anonymous).await);
    assert_eq!(fault.to_string(), "the server is spiffe://eu/node/n1, not spiffe://eu/api");
}

#[tokio::test]
async fn links_come_and_go_without_a_restart() {
    let world = world();
    let trusted = TrustedAuthorities::new(&cluster("eu"), world.eu.certificate()).unwrap();
    let certificate = leaf(&world.eu, Role::Api);
    let trust = ServerTrust::pinned_api(world.eu.pin());
    let mirror = leaf(&world.us, Role::Api);
    for linked in [false, true, false] {
        trusted.set_peers(if linked { vec![peer(&world.us, Grant::Read)] } else { Vec::new() });
        let server = serve(&certificate, &trusted, ClientCertificate::Required).await;
        let said = talk(server.address, &trust, &ClientIdentity::Leaf(&mirror)).await;
        if linked {
            assert_eq!(said.unwrap(), "hi");
            let identity = server.task.await.unwrap().unwrap().unwrap();
            assert_eq!(identity.authority, AuthorityOf::Peer(cluster("us")));
            assert_eq!(identity.name.unwrap().to_string(), "spiffe://us/api");
            assert_eq!(identity.common_name, "remote-us");
        } else {
            assert_eq!(
                fault_of(said).to_string(),
                "the server refused our certificate: its authority is not known there"
            );
            assert!(server.task.await.unwrap().is_err());
        }
    }
}

#[tokio::test]
async fn without_a_certificate_the_mesh_endpoint_is_closed() {
    let world = world();
    let trusted = TrustedAuthorities::new(&cluster("eu"), world.eu.certificate()).unwrap();
    let server = serve(&leaf(&world.eu, Role::Api), &trusted, ClientCertificate::Required).await;
    let trust = ServerTrust::pinned_api(world.eu.pin());
    let fault = fault_of(talk(server.address, &trust, &ClientIdentity::Anonymous).await);
    assert_eq!(fault.to_string(), "the server refused our certificate: one is needed");
}

#[tokio::test]
async fn a_wrong_clock_is_named() {
    let world = world();
    let trusted = TrustedAuthorities::new(&cluster("eu"), world.eu.certificate()).unwrap();
    let trust = ServerTrust::pinned_api(world.eu.pin());
    let day = Duration::from_hours(24);
    let later = leaf_at(&world.eu, Role::Api, SystemTime::now() + day);
    let server = serve(&later, &trusted, ClientCertificate::Optional).await;
    let fault = fault_of(talk(server.address, &trust, &ClientIdentity::Anonymous).await);
    assert!(matches!(fault, TlsFault::NotYetValid { .. }) && fault.to_string().contains("check the clocks"), "{fault}");

    let earlier = leaf_at(&world.eu, Role::Api, SystemTime::now() - 2 * day);
    let server = serve(&earlier, &trusted, ClientCertificate::Optional).await;
    let fault = fault_of(talk(server.address, &trust, &ClientIdentity::Anonymous).await);
    assert!(matches!(fault, TlsFault::Expired { .. }), "{fault}");

    // The server's clock decides about the client's certificate; the client is told so.
    let good = leaf(&world.eu, Role::Api);
    let server = serve(&good, &trusted, ClientCertificate::Required).await;
    let fault = fault_of(talk(server.address, &trust, &ClientIdentity::Leaf(&later)).await);
    assert!(fault.to_string().contains("server's clock"), "{fault}");
}

#[tokio::test]
async fn a_cluster_cannot_vouch_for_another() {
    let world = world();
    let trusted = TrustedAuthorities::new(&cluster("eu"), world.eu.certificate()).unwrap();
    // The "us" authority, linked under the name "asia": its leafs name "us".
    let mut wrong = peer(&world.us, Grant::Read);
    wrong.cluster = cluster("asia");
    trusted.set_peers(vec![wrong]);
    let now = rustls_pki_types::UnixTime::now();
    let error = trusted.identify(&leaf(&world.us, Role::Api).chain, now).unwrap_err();
    assert!(matches!(error, UntrustedError::OtherCluster { .. }), "{error}");
}

#[tokio::test]
async fn another_certificate_is_served_without_a_restart() {
    let world = world();
    let first = leaf(&world.eu, Role::Api);
    let certificate = ServerCertificate::new(&first).unwrap();
    let trusted = TrustedAuthorities::new(&cluster("eu"), world.eu.certificate()).unwrap();
    let config = server_config(&certificate, &trusted, ClientCertificate::Optional, &[ALPN_H2]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trust = ServerTrust::pinned_api(world.eu.pin());
    let client = client_config(&trust, &ClientIdentity::Anonymous, &[ALPN_H2]).unwrap();
    let connector = Connector::new(&[listener.local_addr().unwrap()], client);
    let second = leaf(&world.eu, Role::Api);
    for leaf in [&first, &second] {
        certificate.replace(leaf).unwrap();
        let accepting = async {
            let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            accept(stream, &config, &trusted).await.unwrap()
        };
        let (_accepted, stream) = tokio::join!(accepting, connector.connect(Duration::from_secs(5)));
        let stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], leaf.chain[0]);
    }
    let _: Arc<_> = config;
}
