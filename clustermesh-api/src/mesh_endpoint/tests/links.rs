//! Links come and go under live connections.

use clustermesh_api_proto::etcdserverpb::RangeRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use super::watches::{Client, state};
use super::world::{World, leaf, range, within};
use crate::pki::Role;
use crate::tls::{ALPN_HTTP1, ClientIdentity, Connector, Grant, ServerTrust, client_config};

fn heartbeat() -> RangeRequest {
    RangeRequest { key: "cilium/.heartbeat".into(), ..RangeRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_goes_ends_its_watches_and_refuses_its_calls() {
    let world = World::start().await;
    world.link(Some(Grant::Read));
    let (mirror, admin) = (world.channel(&leaf(&world.us, Role::Api)), world.admin());
    let (mut theirs, mut ours) = (Client::open(&mirror), Client::open(&admin));
    for client in [&mut theirs, &mut ours] {
        client.create(state()).await;
        assert!(client.next().await.unwrap().created);
    }
    range(&mirror, heartbeat()).await.unwrap();

    world.link(Some(Grant::None));
    let end = theirs.next().await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::PermissionDenied, "etcdserver: permission denied"));
    // On the same connection.
    assert_eq!(range(&mirror, heartbeat()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(Client::open(&mirror).next().await.unwrap_err().code(), Code::PermissionDenied);

    world.link(Some(Grant::Read));
    range(&mirror, heartbeat()).await.unwrap();
    let mut theirs = Client::open(&mirror);
    theirs.create(state()).await;
    assert!(theirs.next().await.unwrap().created);
    world.link(None);
    assert_eq!(theirs.next().await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(range(&mirror, heartbeat()).await.unwrap_err().code(), Code::PermissionDenied);

    // Others notice nothing of all this.
    world.store.put("cilium/state/a", "1").await.unwrap();
    assert_eq!(ours.next().await.unwrap().events.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_server_does() {
    let world = World::start().await;
    let mut client = Client::open(&world.admin());
    client.create(state()).await;
    assert!(client.next().await.unwrap().created);
    world.stop().await;
    assert!(client.next().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn version_and_health_over_plain_http() {
    let mut world = World::start().await;
    let admin = leaf(&world.eu, Role::Admin("root".to_owned()));
    let trust = ServerTrust::pinned_api(world.eu.pin());
    let config = client_config(&trust, &ClientIdentity::Leaf(&admin), &[ALPN_HTTP1]).unwrap();
    let connector = Connector::new(&[world.address], config);
    let get = async |path: &str| {
        let mut stream = connector.connect(std::time::Duration::from_secs(5)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: mesh\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        within(stream.read_to_string(&mut text)).await.unwrap();
        text
    };
    let real = world.store.status().await.unwrap().version;
    let version = get("/version").await;
    assert!(version.starts_with("HTTP/1.1 200") && version.contains(&format!(r#""etcdserver":"{real}""#)), "{version}");
    assert!(get("/health").await.ends_with(r#"{"health":"true"}"#));
    assert!(get("/v3/kv/range").await.starts_with("HTTP/1.1 404"));
    world.kill_etcd().await;
    within(world.view.status_changes().wait_for(|status| !status.available)).await.unwrap();
    let health = get("/health").await;
    // It may be back already: then it says so.
    assert!(health.contains("503") || health.ends_with(r#"{"health":"true"}"#), "{health}");
    world.stop().await;
}
