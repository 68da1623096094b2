//! What `fabric status` shows of this cluster.

use std::time::SystemTime;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::wire::heartbeat::rfc3339;
use fabric_core::wire::{Form, Kind};
use proto::change::Row;

use crate::api::Api;
use crate::links;
use crate::records::key;
use crate::store::KeyRange;

/// A node silent for longer has a problem.
const SILENT_S: i64 = 15;

/// Everything.
pub fn cluster(api: &Api, now: SystemTime) -> proto::ClusterStatus {
    let view = api.view.status();
    let own = api.cluster.name.to_string();
    let nodes = api.rows.select(|_, row| match row {
        Row::Node(node) if node.cluster == own => Some(node_status(api, node, now)),
        _ => None,
    });
    let cluster = api.rows.select(|_, row| match row {
        Row::Cluster(cluster) if cluster.local => Some(cluster.clone()),
        _ => None,
    });
    let cluster = cluster.into_iter().next().unwrap_or_else(|| crate::convert::cluster_to_proto(&api.cluster));
    let count = |prefix: String| u32::try_from(api.view.list(&KeyRange::prefix(prefix)).kvs.len()).unwrap_or(u32::MAX);
    proto::ClusterStatus {
        cluster: Some(cluster),
        nodes,
        links: links::list(api),
        endpoints: count(key::ENDPOINTS.to_owned()),
        identities: count(Kind::Identities.rows_prefix(Form::State, &api.cluster.name)),
        services: count(format!("{}Service/", key::OBJECTS)),
        refusals: api.refusals.to_proto(),
        store_available: view.available,
        revision: view.header.revision,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn node_status(api: &Api, node: &proto::Node, now: SystemTime) -> proto::NodeStatus {
    let report = api.nodes.get(&node.name);
    let silent_s = report.as_ref().map_or(-1, |report| {
        now.duration_since(report.heard).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    });
    let (peers, drops, mut problems) = match report {
        Some(report) => (report.report.peers, report.report.drops, report.report.problems),
        None => Default::default(),
    };
    if silent_s > SILENT_S {
        problems.push(format!("its agent was not heard for {silent_s} s"));
    } else if silent_s < 0 {
        problems.push("its agent was not heard since this API started".to_owned());
    }
    proto::NodeStatus { node: Some(with_last_seen(api, node.clone())), problems, silent_s, peers, drops }
}

/// The row with the moment at which its agent was last heard.
pub fn with_last_seen(api: &Api, mut node: proto::Node) -> proto::Node {
    if node.cluster == api.cluster.name.as_str()
        && let Some(report) = api.nodes.get(&node.name)
    {
        node.last_seen = rfc3339(report.heard);
    }
    node
}
