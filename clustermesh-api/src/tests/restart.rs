//! What outlives the process.

use clustermesh_api_proto::fabric::v1 as proto;
use futures::StreamExt as _;

use super::cluster::{Cluster, address, endpoint, eventually, linked};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_and_an_agent_resumes() {
    let eu = Cluster::start("eu").await;
    let leaf = eu.leaf(crate::pki::Role::Node(fabric_core::names::NodeName::new("n1").unwrap()));
    let mut agent = eu.agent(&leaf);
    let n1 = agent.register_node(super::cluster::node_request("n1", 1)).await.unwrap().into_inner();
    let request = endpoint("demo/web", "app=web", address(&n1, 5));
    let id = agent.put_endpoint(request.clone()).await.unwrap().into_inner().identity.unwrap().id;
    eventually("presence is written", || async { eu.value("cilium/synced/eu/cilium/state/services/v1") }).await;
    let mut stream = agent.sync(proto::SyncRequest::default()).await.unwrap().into_inner();
    let list = stream.next().await.unwrap().unwrap();
    assert!(list.list_end);
    let eu = eu.restart().await;
    let mut agent = eu.agent(&leaf);
    let again = agent.register_node(super::cluster::node_request("n1", 1)).await.unwrap().into_inner();
    assert_eq!(again.node, n1.node);
    let put = agent.put_endpoint(request).await.unwrap().into_inner();
    assert_eq!(put.identity.unwrap().id, id);
    let known = proto::SyncRequest { generation: list.generation, revision: put.revision };
    let mut stream = agent.sync(known).await.unwrap().into_inner();
    let first = stream.next().await.unwrap().unwrap();
    assert!(!first.list_begin, "the agent is at {}, the store at {}", put.revision, first.revision);
    eu.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_remote_stays_while_it_is_away() {
    let (eu, us) = linked("eu", "us").await;
    let (mut agent, n1) = us.node("n1", 1).await;
    agent.put_endpoint(endpoint("demo/db", "app=db", address(&n1, 5))).await.unwrap();
    let key = format!("cilium/cache/ip/v1/us/{}", address(&n1, 5));
    eventually("the address arrives", || async { eu.value(&key) }).await;
    us.stop().await;
    eu.link_state("us", proto::LinkState::Silent).await;
    let eu = eu.restart().await;
    assert!(eu.value(&key).is_some());
    let link = eu.link_state("us", proto::LinkState::Connecting).await;
    assert_eq!((link.nodes, link.endpoints, link.identities), (1, 1, 1));
    eu.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_comes_back_is_in_step_again() {
    let (eu, us) = linked("eu", "us").await;
    let (mut agent, n1) = us.node("n1", 1).await;
    for number in [5u8, 6] {
        let request = endpoint(&format!("demo/db{number}"), "app=db", address(&n1, u128::from(number)));
        agent.put_endpoint(request).await.unwrap();
    }
    let prefix = "cilium/cache/ip/v1/us/";
    eventually("both addresses", || async { (eu.keys(prefix).len() == 2).then_some(()) }).await;
    let us = us.restart().await;
    let (mut agent, n2) = us.node("n2", 2).await;
    agent.put_endpoint(endpoint("demo/db7", "app=db", address(&n2, 7))).await.unwrap();
    us.admin().revoke_node(proto::RevokeNodeRequest { name: "n1".to_owned() }).await.unwrap();
    let expected = vec![format!("{prefix}{}", address(&n2, 7))];
    eventually("only the new address", || async { (eu.keys(prefix) == expected).then_some(()) }).await;
    eu.stop().await;
    us.stop().await;
}

/// The etcd that has its data below this directory.
fn etcd_pid(directory: &std::path::Path) -> Option<i32> {
    let directory = directory.to_str().unwrap();
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let mut parts = command.split('\0');
        let is_etcd = parts.next()?.ends_with("etcd") && parts.any(|part| part.contains(directory));
        is_etcd.then_some(pid)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_etcd_stops_writes_and_nothing_else() {
    let (eu, us) = linked("eu", "us").await;
    let (mut agent, n1) = eu.node("n1", 1).await;
    agent.put_endpoint(endpoint("demo/web", "app=web", address(&n1, 5))).await.unwrap();
    let mut stream = agent.sync(proto::SyncRequest::default()).await.unwrap().into_inner();
    let list = stream.next().await.unwrap().unwrap();
    assert!(list.list_end && !list.store_unavailable);

    let pid = etcd_pid(&eu.config.etcd_dir()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut told = false;
    while !told {
        let message = stream.next().await.unwrap().unwrap();
        assert!(!message.list_begin);
        told = message.store_unavailable;
    }
    // A new agent still gets everything that is known.
    let mut other = agent.sync(proto::SyncRequest::default()).await.unwrap().into_inner();
    assert_eq!(other.next().await.unwrap().unwrap().changes.len(), list.changes.len());
    eventually("writes again", || async {
        let mut agent = agent.clone();
        agent.put_endpoint(endpoint("demo/web2", "app=web", address(&n1, 6))).await.ok()
    })
    .await;
    let mut seen = false;
    while !seen {
        let message = stream.next().await.unwrap().unwrap();
        assert!(!message.list_begin, "the stream goes on where it was");
        seen = message.changes.len() == 1;
    }
    let key = format!("cilium/cache/ip/v1/eu/{}", address(&n1, 6));
    eventually("us hears of it", || async { us.value(&key) }).await;
    eu.stop().await;
    us.stop().await;
}
