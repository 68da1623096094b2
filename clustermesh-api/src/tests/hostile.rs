//! Garbage in our own store, lies in another cluster's.

use clustermesh_api_proto::fabric::v1 as proto;

use super::cluster::{Cluster, address, endpoint, eventually, linked};

/// A key under every family, with a value that is none.
fn garbage(cluster: &str) -> Vec<String> {
    [
        "fabric/cluster".to_owned(),
        "fabric/nodes/n9".to_owned(),
        "fabric/nodes/NOT A NAME".to_owned(),
        "fabric/claims/nonsense".to_owned(),
        "fabric/revoked/nonsense".to_owned(),
        "fabric/identity/last".to_owned(),
        "fabric/identity/labels/nonsense".to_owned(),
        "fabric/endpoints/n9/x".to_owned(),
        "fabric/endpoints/nonsense".to_owned(),
        "fabric/links/ap".to_owned(),
        "fabric/tokens/nonsense".to_owned(),
        "fabric/invites/nonsense".to_owned(),
        "fabric/objects/NetworkPolicy/demo/x".to_owned(),
        "fabric/objects/Service/demo/x".to_owned(),
        "fabric/objects/Nonsense".to_owned(),
        format!("cilium/cluster-config/{cluster}"),
        "cilium/cluster-config/nobody".to_owned(),
        "cilium/.heartbeat".to_owned(),
        format!("cilium/synced/{cluster}/nonsense"),
        format!("cilium/state/nodes/v1/{cluster}/n9"),
        "cilium/state/nodes/v1/nobody/n9".to_owned(),
        format!("cilium/state/nodes/v1/{cluster}"),
        "cilium/state/identities/v1/id/abc".to_owned(),
        "cilium/state/identities/v1/id/99999999999".to_owned(),
        "cilium/state/ip/v1/default/nonsense".to_owned(),
        "cilium/state/ip/v1/default/10.0.0.1".to_owned(),
        format!("cilium/state/services/v1/{cluster}/demo/x"),
        "cilium/cache/nodes/v1/nobody/n1".to_owned(),
        "cilium/cache/ip/v1/nobody/10.0.0.1".to_owned(),
        "cilium/nonsense".to_owned(),
        "\u{7f}".to_owned(),
    ]
    .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_under_every_key_harms_nobody() {
    let (eu, us) = linked("eu", "us").await;
    for (cluster, name) in [(&eu, "eu"), (&us, "us")] {
        for key in garbage(name) {
            for value in [&b"\xff\x00garbage"[..], b"{}", b"[]", b"null", b""] {
                cluster.api.store.put(key.clone(), value.to_vec()).await.unwrap();
            }
            cluster.api.store.put(key, b"{\"garbage\":\xff".to_vec()).await.unwrap();
        }
    }
    let (mut a1, eu1) = eu.node("a1", 1).await;
    let (mut b1, us1) = us.node("b1", 2).await;
    a1.put_endpoint(endpoint("demo/web", "app=web", address(&eu1, 5))).await.unwrap();
    b1.put_endpoint(endpoint("demo/db", "app=db", address(&us1, 6))).await.unwrap();
    let there = format!("cilium/cache/ip/v1/us/{}", address(&us1, 6));
    let back = format!("cilium/cache/ip/v1/eu/{}", address(&eu1, 5));
    eventually("us in eu", || async { eu.value(&there) }).await;
    eventually("eu in us", || async { us.value(&back) }).await;
    let status = eu.admin().get_status(proto::GetStatusRequest {}).await.unwrap().into_inner();
    assert!(status.refusals.iter().any(|refusal| refusal.reason == "garbage"), "{:?}", status.refusals);
    let link = eu.link_state("us", proto::LinkState::Synced).await;
    assert!(link.refusals.iter().any(|refusal| refusal.reason == "malformed"), "{:?}", link.refusals);
    // A restart meets all of it at once. The cluster's own record is mended on the way.
    let eu = eu.restart().await;
    eu.link_state("us", proto::LinkState::Synced).await;
    assert!(eu.value(&there).is_some());
    eu.stop().await;
    us.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_speaks_only_for_itself() {
    let (eu, us) = linked("eu", "us").await;
    let (_, eu1) = eu.node("a1", 1).await;
    let id = u32::from(us.config.cluster.id.value());
    let (own, foreign) = (id << 16 | 0x123, (id ^ 1) << 16 | 0x123);
    let inside = us.config.cluster.prefixes[0].nth(777).unwrap();
    let ip = |address: &str, identity: u32, host: &str| {
        format!(
            "{{\"IP\":\"{address}\",\"Mask\":null,\"HostIP\":\"{host}\",\"ID\":{identity},\"Key\":255,\"Metadata\":\"\"}}"
        )
    };
    let labels = |cluster: &str| format!("k8s:app=x;k8s:io.cilium.k8s.policy.cluster={cluster};");
    let node = |name: &str, address: &str, range: &str| {
        format!(
            "{{\"Name\":\"{name}\",\"Cluster\":\"us\",\"ClusterID\":{id},\"IPAddresses\":[{{\"Type\":\"InternalIP\",\"IP\":\"{address}\"}}],\"IPv4AllocCIDR\":{{\"IP\":\"{range}\",\"Mask\":\"////AA==\"}}}}"
        )
    };
    let eu_address = address(&eu1, 9).to_string();
    let lies: Vec<(String, String, &str)> = vec![
        (format!("cilium/state/identities/v1/id/{foreign}"), labels("us"), "identity_range"),
        ("cilium/state/identities/v1/id/1".to_owned(), labels("us"), "reserved_identity"),
        (format!("cilium/state/identities/v1/id/{own}"), labels("eu"), "cluster_label"),
        (format!("cilium/state/ip/v1/default/{eu_address}"), ip(&eu_address, own, "192.0.2.9"), "address_prefix"),
        (format!("cilium/state/ip/v1/default/{inside}"), ip(&inside.to_string(), 2, "192.0.2.9"), "reserved_identity"),
        (
            format!("cilium/state/ip/v1/default/{}", us.config.cluster.prefixes[0].nth(778).unwrap()),
            ip(&us.config.cluster.prefixes[0].nth(778).unwrap().to_string(), own, "192.0.2.1"),
            "host_address",
        ),
        ("cilium/state/nodes/v1/us/thief".to_owned(), node("thief", "192.0.2.1", &us_range(&us)), "node_address_taken"),
        ("cilium/state/nodes/v1/us/wide".to_owned(), node("wide", "192.0.2.77", "10.255.0.0"), "address_prefix"),
        ("cilium/state/nodes/v1/eu/n1".to_owned(), node("n1", "192.0.2.78", &us_range(&us)), "cluster_name"),
        (
            "cilium/state/services/v1/us/demo/x".to_owned(),
            format!(
                "{{\"cluster\":\"us\",\"namespace\":\"demo\",\"name\":\"x\",\"backends\":{{\"{eu_address}\":{{}}}},\"shared\":true,\"clusterID\":{id}}}"
            ),
            "backend_address",
        ),
    ];
    for (key, value, _) in &lies {
        us.api.store.put(key.clone(), value.clone()).await.unwrap();
    }
    // One that is true, after all of them: when it is here, they were all judged.
    us.api.store.put(format!("cilium/state/identities/v1/id/{}", own + 1), labels("us")).await.unwrap();
    let good = format!("cilium/cache/identities/v1/us/id/{}", own + 1);
    eventually("the true one", || async { eu.value(&good) }).await;
    let link = eu.link_state("us", proto::LinkState::Synced).await;
    for (key, _, reason) in &lies {
        assert!(link.refusals.iter().any(|refusal| refusal.reason == *reason), "{key} {reason}: {:?}", link.refusals);
    }
    assert_eq!(eu.keys("cilium/cache/"), [good]);
    eu.stop().await;
    us.stop().await;
}

fn us_range(us: &Cluster) -> String {
    us.config.cluster.prefixes[0].subnet(24, 3).unwrap().address().to_string()
}
