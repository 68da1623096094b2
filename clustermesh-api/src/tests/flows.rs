//! The relay of flows is served, knows the nodes of the cluster, and forgets those that go.

use clustermesh_api_proto::observer::observer_client::ObserverClient;
use clustermesh_api_proto::observer::{GetNodesRequest, Node};
use clustermesh_api_proto::relay::NodeState;
use fabric_core::token::MemberKind;

use super::cluster::{Cluster, eventually};
use crate::pki::Role;
use crate::records::{NodeRecord, encode};
use crate::store::Transaction;
use crate::tls::ClientIdentity;

async fn nodes(cluster: &Cluster) -> Vec<Node> {
    let leaf = cluster.leaf(Role::Admin("root".to_owned()));
    let mut observer = ObserverClient::new(cluster.channel(&ClientIdentity::Leaf(&leaf)));
    observer.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes
}

/// A port of loopback that nobody listens on.
fn closed() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_asks_the_nodes_of_the_cluster() {
    let eu = Cluster::start("eu").await;
    assert_eq!(nodes(&eu).await, []);
    // Members may not be on loopback, and nothing else may be called here: the store is written as registering does it.
    let address = closed();
    let record = NodeRecord { observer_address: address.clone(), ..NodeRecord::new(MemberKind::Node, String::new()) };
    let ip = r#"[{"Type":"InternalIP","IP":"127.0.0.1"}]"#;
    let entry = format!(r#"{{"Name":"n1","Cluster":"eu","ClusterID":{},"IPAddresses":{ip}}}"#, eu.config.cluster.id);
    let (entry_key, record_key) = ("cilium/state/nodes/v1/eu/n1", "fabric/nodes/n1");
    let written = Transaction::new().put(record_key, encode(&record).unwrap()).put(entry_key, entry);
    assert!(eu.api.store.transact(written).await.unwrap().done().is_some());
    let known = eventually("a node is asked", || async { nodes(&eu).await.pop() }).await;
    assert_eq!((known.name.as_str(), known.address.as_str()), ("eu/n1", address.as_str()));
    assert_eq!(known.state(), NodeState::NodeUnavailable);

    let gone = Transaction::new().delete(record_key).delete(entry_key);
    assert!(eu.api.store.transact(gone).await.unwrap().done().is_some());
    eventually("a node that is gone is forgotten", || async { nodes(&eu).await.is_empty().then_some(()) }).await;
    eu.stop().await;
}
