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
    let (us_config, _us_directory) = us.stop().await;
    let eu = eu.restart().await;
    assert!(eu.value(&key).is_some());
    assert_eq!(us_config.cluster.name, "us");
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
    let (mut agent, _) =
        (us.agent(&us.leaf(crate::pki::Role::Node(fabric_core::names::NodeName::new("n2").unwrap()))), ());
    let n2 = agent.register_node(super::cluster::node_request("n2", 2)).await.unwrap().into_inner();
    agent.put_endpoint(endpoint("demo/db7", "app=db", address(&n2, 7))).await.unwrap();
    us.admin().revoke_node(proto::RevokeNodeRequest { name: "n1".to_owned() }).await.unwrap();
    let expected = vec![format!("{prefix}{}", address(&n2, 7))];
    eventually("only the new address", || async { (eu.keys(prefix) == expected).then_some(()) }).await;
    eu.stop().await;
    us.stop().await;
}
