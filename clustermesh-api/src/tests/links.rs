//! Two clusters.

use std::time::{Duration, SystemTime};

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::ids::ClusterId;
use tonic::Code;

use super::cluster::{Cluster, address, config, endpoint, eventually, linked, spec};
use crate::pki::{Authority, KeyMaterial, LeafRequest, Role, Validity};
use crate::tls::{ALPN_H2, ClientCertificate, ServerCertificate, TrustedAuthorities, accept, server_config};

#[tokio::test(flavor = "multi_thread")]
async fn state_travels_both_ways_and_goes_with_the_link() {
    let (eu, us) = linked("eu", "us").await;
    let (mut a1, eu1) = eu.node("a1", 1).await;
    let (mut b1, us1) = us.node("b1", 2).await;
    a1.put_endpoint(endpoint("demo/web", "app=web", address(&eu1, 5))).await.unwrap();
    b1.put_endpoint(endpoint("demo/db", "app=db", address(&us1, 6))).await.unwrap();
    let there = format!("cilium/cache/ip/v1/us/{}", address(&us1, 6));
    let back = format!("cilium/cache/ip/v1/eu/{}", address(&eu1, 5));
    eventually("us in eu", || async { eu.value(&there) }).await;
    eventually("eu in us", || async { us.value(&back) }).await;
    eventually("node of us", || async { eu.value("cilium/cache/nodes/v1/us/b1") }).await;
    assert_eq!(eu.keys("cilium/cache/identities/v1/us/id/").len(), 1);
    assert_eq!(
        eu.value("cilium/cluster-config/us").unwrap(),
        format!(
            "{{\"id\":{},\"capabilities\":{{\"syncedCanaries\":true,\"cached\":true,\"maxConnectedClusters\":255}}}}",
            us.config.cluster.id
        )
    );
    assert_eq!(eu.keys("cilium/synced/us/").len(), 4);
    let nodes = eu.admin().list_nodes(proto::ListRequest::default()).await.unwrap().into_inner().nodes;
    assert_eq!(nodes.iter().map(|node| node.cluster.as_str()).collect::<Vec<_>>(), ["eu", "us"]);

    let cut = proto::DeleteLinkRequest { cluster: "us".to_owned(), release: false };
    eu.admin().delete_link(cut).await.unwrap();
    for prefix in ["cilium/cache/", "cilium/synced/us/", "cilium/cluster-config/us"] {
        assert_eq!(eu.keys(prefix), Vec::<String>::new());
    }
    let blocked = eu.link_state("us", proto::LinkState::Blocked).await;
    assert_eq!((blocked.nodes, blocked.endpoints), (0, 0));
    let row = |cluster: &str| {
        let cluster = cluster.to_owned();
        eu.api.rows.select(move |_, row| match row {
            proto::change::Row::Cluster(row) if row.name == cluster => Some(row.clone()),
            _ => None,
        })
    };
    assert!(row("us")[0].blocked, "its prefixes are dropped until the link is released");
    // Nobody reads through a link that is cut.
    eventually("us is refused", || async {
        let links = us.admin().list_links(proto::ListRequest::default()).await.unwrap().into_inner().links;
        links[0].detail.contains("FAB-2304").then_some(())
    })
    .await;

    let release = proto::DeleteLinkRequest { cluster: "us".to_owned(), release: true };
    eu.admin().delete_link(release).await.unwrap();
    eventually("the row goes", || async { row("us").is_empty().then_some(()) }).await;
    eu.link(&us).await;
    eu.link_state("us", proto::LinkState::Synced).await;
    eventually("us in eu again", || async { eu.value(&there) }).await;
    eu.stop().await;
    us.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_links_both_once() {
    let (eu, us, ap) = tokio::join!(Cluster::start("eu"), Cluster::start("us"), Cluster::start("ap"));
    let request = proto::CreateInviteRequest { peer: "us".to_owned(), ttl_s: 60 };
    let invite = eu.admin().create_invite(request).await.unwrap().into_inner().invite;
    let accept = |dry_run| proto::AcceptInviteRequest { invite: invite.clone(), dry_run };
    let wrong = ap.admin().accept_invite(accept(false)).await.unwrap_err();
    assert!(wrong.message().starts_with("FAB-2204"), "{}", wrong.message());
    us.admin().accept_invite(accept(true)).await.unwrap();
    assert!(eu.keys("fabric/links/").is_empty() && us.keys("fabric/links/").is_empty());
    us.admin().accept_invite(accept(false)).await.unwrap();
    tokio::join!(eu.link_state("us", proto::LinkState::Synced), us.link_state("eu", proto::LinkState::Synced));
    let again = us.admin().accept_invite(accept(false)).await.unwrap_err();
    assert!(again.message().starts_with("FAB-2203"), "{}", again.message());
    let broken = proto::AcceptInviteRequest { invite: format!("{}x", &invite[..invite.len() - 9]), dry_run: false };
    let broken = us.admin().accept_invite(broken).await.unwrap_err();
    assert_eq!(broken.code(), Code::InvalidArgument);
    assert!(broken.message().starts_with("FAB-2201"), "{}", broken.message());
    for cluster in [eu, us, ap] {
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_against_a_link_is_named_and_nothing_is_written() {
    let eu = Cluster::start("eu").await;
    let mut same_id = spec("us");
    same_id.id = eu.config.cluster.id;
    let us = Cluster::start_spec(same_id).await;
    let mut admin = eu.admin();
    let mut put = async |peer: proto::LinkOffer| {
        admin.put_link(proto::PutLinkRequest { peer: Some(peer), dry_run: false }).await.unwrap_err()
    };
    let offer = us.offer().await;
    let answer = put(offer.clone()).await;
    assert!(answer.message().starts_with("FAB-2101"), "{}", answer.message());
    let own = put(eu.offer().await).await;
    assert!(own.message().starts_with("FAB-2111"), "{}", own.message());
    let with = |change: &dyn Fn(&mut proto::Cluster)| {
        let mut offer = offer.clone();
        let cluster = offer.cluster.as_mut().unwrap();
        cluster.id = u32::from(ClusterId::MAX.value());
        change(cluster);
        offer
    };
    let overlap = put(with(&|cluster| cluster.prefixes = eu.offer_prefixes())).await;
    assert!(overlap.message().starts_with("FAB-2103"), "{}", overlap.message());
    let routing = put(with(&|cluster| cluster.set_routing(proto::Routing::Geneve))).await;
    assert!(routing.message().starts_with("FAB-2104"), "{}", routing.message());
    let mut nobody = with(&|_| {});
    nobody.mesh_endpoints = vec!["127.0.0.1:1".to_owned()];
    let unreachable = put(nobody).await;
    assert!(unreachable.message().starts_with("FAB-2301"), "{}", unreachable.message());
    // Somebody else answers where us should be.
    let mut stranger = with(&|_| {});
    stranger.mesh_endpoints = eu.offer().await.mesh_endpoints;
    let stranger = put(stranger).await;
    assert!(stranger.message().starts_with("FAB-2302"), "{}", stranger.message());
    assert!(eu.keys("fabric/links/").is_empty());
    eu.stop().await;
    us.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_named_as_such() {
    let eu = Cluster::start("eu").await;
    let directory = tempfile::TempDir::new().unwrap();
    let (now, day) = (SystemTime::now(), Duration::from_hours(24));
    let tomorrow = Validity { now: now + day, lifetime: day };
    let us = spec("us");
    let authority = Authority::open_or_create(directory.path(), &us.name, now).unwrap();
    let request = LeafRequest { role: Role::Api, addresses: Vec::new(), validity: tomorrow };
    let certificate = ServerCertificate::new(&authority.issue(&request, &KeyMaterial::Generate).unwrap()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = proto::LinkOffer {
        cluster: Some(crate::convert::cluster_to_proto(&us)),
        authority_pem: authority.certificate_pem().to_owned(),
        mesh_endpoints: vec![listener.local_addr().unwrap().to_string()],
        ..Default::default()
    };
    let trusted = TrustedAuthorities::new(&us.name, authority.certificate()).unwrap();
    let tls = server_config(&certificate, &trusted, ClientCertificate::Optional, &[ALPN_H2]).unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, &tls, &trusted).await.is_err()
    });
    let put = proto::PutLinkRequest { peer: Some(peer), dry_run: false };
    let refused = eu.admin().put_link(put).await.unwrap_err();
    assert!(refused.message().starts_with("FAB-2303"), "{}", refused.message());
    assert!(server.await.unwrap() && eu.keys("fabric/links/").is_empty());
    eu.stop().await;
}

impl Cluster {
    fn offer_prefixes(&self) -> Vec<String> {
        self.config.cluster.prefixes.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_before_anything_starts() {
    let eu = Cluster::start("eu").await;
    let directory = tempfile::TempDir::new().unwrap();
    let mut second = config(spec("us"), &directory);
    second.api_port = eu.config.api_port;
    let error = crate::run(second, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().starts_with("FAB-4102"), "{error}");
    let mut same_directory = eu.config.clone();
    let ports = config(spec("eu"), &directory);
    (same_directory.api_port, same_directory.mesh_port) = (ports.api_port, ports.mesh_port);
    let error = crate::run(same_directory, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().starts_with("FAB-5107"), "{error}");
    eu.stop().await;
}
