//! Nodes and endpoints.

use std::collections::BTreeSet;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::names::NodeName;
use futures::StreamExt as _;
use proto::change::Row;
use tonic::Code;

use super::cluster::{Cluster, address, endpoint, eventually, node_request};
use crate::pki::Role;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_ranges_and_its_endpoints_identities() {
    let eu = Cluster::start("eu").await;
    let (mut agent, n1) = eu.node("n1", 1).await;
    let (_, n2) = eu.node("n2", 2).await;
    let (first, second) = (n1.node.clone().unwrap(), n2.node.unwrap());
    assert_eq!((first.ranges.len(), first.overlay_addresses.len()), (2, 2));
    assert!(first.ranges.iter().all(|range| !second.ranges.contains(range)));

    let request = endpoint("demo/web", "app=web", address(&n1, 5));
    let put = agent.put_endpoint(request.clone()).await.unwrap().into_inner();
    let identity = put.identity.unwrap();
    assert_eq!(identity.id >> 16, u32::from(eu.config.cluster.id.value()));
    assert_eq!(
        identity.labels,
        ["k8s:app=web", "k8s:io.cilium.k8s.policy.cluster=eu", "k8s:io.kubernetes.pod.namespace=demo"]
    );
    let key = format!("cilium/state/ip/v1/default/{}", address(&n1, 5));
    let expected = format!(
        "{{\"IP\":\"{}\",\"Mask\":null,\"HostIP\":\"192.0.2.1\",\"ID\":{},\"Key\":255,\"Metadata\":\"\",\"K8sNamespace\":\"demo\",\"K8sPodName\":\"demo/web\"}}",
        address(&n1, 5),
        identity.id
    );
    assert_eq!(eu.value(&key).unwrap(), expected);
    assert_eq!(
        eu.value(&format!("cilium/state/identities/v1/id/{}", identity.id)).unwrap(),
        "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=eu;k8s:io.kubernetes.pod.namespace=demo;"
    );
    let again = agent.put_endpoint(request).await.unwrap().into_inner();
    assert_eq!(again.identity.unwrap().id, identity.id);

    agent.delete_endpoint(proto::DeleteEndpointRequest { name: "demo/web".to_owned() }).await.unwrap();
    assert_eq!(eu.value(&key), None);
    eu.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_endpoints_with_the_same_labels_share_one_identity() {
    let eu = Cluster::start("eu").await;
    let (agent, n1) = eu.node("n1", 1).await;
    let puts = (0..24u32).map(|number| {
        let mut agent = agent.clone();
        let label = if number % 2 == 0 { "app=even" } else { "app=odd" };
        let request = endpoint(&format!("demo/w{number}"), label, address(&n1, 10 + u128::from(number)));
        async move { agent.put_endpoint(request).await.unwrap().into_inner().identity.unwrap() }
    });
    let identities: BTreeSet<(Vec<String>, u32)> =
        futures::future::join_all(puts).await.into_iter().map(|identity| (identity.labels, identity.id)).collect();
    assert_eq!(identities.len(), 2, "{identities:?}");
    assert_eq!(eu.keys("cilium/state/identities/v1/id/").len(), 2);
    assert_eq!(eu.keys("cilium/state/ip/v1/default/").len(), 24);
    eu.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_only_for_itself() {
    let eu = Cluster::start("eu").await;
    let (mut agent, n1) = eu.node("n1", 1).await;
    let (_, n2) = eu.node("n2", 2).await;
    let code = |result: Result<tonic::Response<_>, tonic::Status>| {
        result.map(|_: tonic::Response<proto::PutEndpointResponse>| ()).unwrap_err()
    };
    let foreign = code(agent.put_endpoint(endpoint("x", "app=x", address(&n2, 9))).await);
    assert_eq!(foreign.code(), Code::FailedPrecondition);
    assert!(foreign.message().starts_with("FAB-5106"), "{}", foreign.message());
    let own = code(agent.put_endpoint(endpoint("x", "app=x", address(&n1, 1))).await);
    assert!(own.message().contains("FAB-5106"), "the node's own address: {}", own.message());
    let system = code(agent.put_endpoint(endpoint("x", "io.cilium.k8s.policy.cluster=us", address(&n1, 9))).await);
    assert_eq!(system.code(), Code::InvalidArgument);

    let other = agent.register_node(node_request("n2", 1)).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    let mut inside = node_request("n1", 1);
    inside.node.as_mut().unwrap().addresses = vec![address(&n2, 7).to_string()];
    assert!(agent.register_node(inside).await.unwrap_err().message().starts_with("FAB-2106"));
    let mut stolen = node_request("n1", 1);
    stolen.node.as_mut().unwrap().wireguard_public_key = vec![2; 32];
    assert!(agent.register_node(stolen).await.unwrap_err().message().starts_with("FAB-5106"));

    // Another certificate with another key for a name that is taken.
    let twin = eu.leaf(Role::Node(NodeName::new("n1").unwrap()));
    let refused = eu.agent(&twin).register_node(node_request("n1", 7)).await.unwrap_err();
    assert!(refused.message().starts_with("FAB-3104"), "{}", refused.message());
    let admin = eu.admin().get_status(proto::GetStatusRequest {}).await.unwrap().into_inner();
    assert!(!admin.refusals.is_empty());
    let denied = eu.agent(&eu.leaf(Role::Admin("root".to_owned()))).register_node(node_request("n3", 3)).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    eu.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_lists_follows_and_ends_with_the_node() {
    let eu = Cluster::start("eu").await;
    let (mut watcher, _) = eu.node("n1", 1).await;
    let (mut agent, n2) = eu.node("n2", 2).await;
    let mut stream = watcher.sync(proto::SyncRequest::default()).await.unwrap().into_inner();
    let list = stream.next().await.unwrap().unwrap();
    assert!(list.list_begin && list.list_end && list.revision > 0 && list.generation != 0);
    let kinds: Vec<&str> = list.changes.iter().map(kind).collect();
    assert_eq!(kinds.first(), Some(&"cluster"));

    agent.put_endpoint(endpoint("demo/web", "app=web", address(&n2, 5))).await.unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&"ip") {
        let message = stream.next().await.unwrap().unwrap();
        seen.extend(message.changes.iter().map(kind));
    }
    assert!(seen.iter().position(|kind| *kind == "identity") < seen.iter().position(|kind| *kind == "ip"), "{seen:?}");

    eu.admin().revoke_node(proto::RevokeNodeRequest { name: "n1".to_owned() }).await.unwrap();
    let end = loop {
        match stream.next().await.unwrap() {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::PermissionDenied);
    assert!(end.message().starts_with("FAB-3105"), "{}", end.message());
    assert_eq!(eu.value("cilium/state/nodes/v1/eu/n1"), None);
    let again = watcher.register_node(node_request("n1", 1)).await.unwrap_err();
    assert!(again.message().starts_with("FAB-3105"), "{}", again.message());
    eu.stop().await;
}

fn kind(change: &proto::Change) -> &'static str {
    match change.row.as_ref().unwrap() {
        Row::Cluster(_) => "cluster",
        Row::Node(_) => "node",
        Row::Identity(_) => "identity",
        Row::Ip(_) => "ip",
        Row::Service(_) => "service",
        Row::Policy(_) => "policy",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_without_endpoints_go_and_come_back_the_same_if_taken_up_in_time() {
    let eu = Cluster::start("eu").await;
    let (mut agent, n1) = eu.node("n1", 1).await;
    let request = endpoint("demo/web", "app=web", address(&n1, 5));
    let id = agent.put_endpoint(request.clone()).await.unwrap().into_inner().identity.unwrap().id;
    agent.delete_endpoint(proto::DeleteEndpointRequest { name: "demo/web".to_owned() }).await.unwrap();
    let mut idle = std::collections::BTreeMap::new();
    let now = std::time::SystemTime::now();
    let collect = crate::controllers::collector::pass;
    collect(&eu.api, &mut idle, std::time::Duration::from_mins(10), now).await.unwrap();
    assert_eq!(agent.put_endpoint(request.clone()).await.unwrap().into_inner().identity.unwrap().id, id);
    agent.delete_endpoint(proto::DeleteEndpointRequest { name: "demo/web".to_owned() }).await.unwrap();
    collect(&eu.api, &mut idle, std::time::Duration::ZERO, now).await.unwrap();
    eventually("the identity goes", || async { eu.keys("cilium/state/identities/").is_empty().then_some(()) }).await;
    let next = agent.put_endpoint(request).await.unwrap().into_inner().identity.unwrap().id;
    assert_ne!(next, id, "a number rests before it is used again");
    eu.stop().await;
}
