//! `fabric node list|revoke`.

use clap::{Args, Subcommand};
use clustermesh_api_proto::fabric::v1 as proto;
use serde::Serialize;

use super::Global;
use crate::client;
use crate::failure::Outcome;
use crate::output::{self, Row};

/// Nodes and machines.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes and machines of all clusters.
    List,
    /// Remove one with all it published; its certificate is refused from then on.
    Revoke(RevokeArgs),
}

/// Arguments of `fabric node revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// A node or machine of this cluster.
    name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    cluster: String,
    name: String,
    kind: &'static str,
    addresses: Vec<String>,
    ranges: Vec<String>,
    overlay_addresses: Vec<String>,
    wireguard_public_key: String,
    last_seen: String,
    version: String,
}

impl From<proto::Node> for NodeRow {
    fn from(n: proto::Node) -> Self {
        Self {
            kind: client::kind_name(n.kind()),
            cluster: n.cluster,
            name: n.name,
            addresses: n.addresses,
            ranges: n.ranges,
            overlay_addresses: n.overlay_addresses,
            wireguard_public_key: client::base64(&n.wireguard_public_key),
            last_seen: n.last_seen,
            version: n.agent_version,
        }
    }
}

impl Row for NodeRow {
    const KIND: &'static str = "Node";
    const HEADS: &'static [&'static str] =
        &["CLUSTER", "NAME", "KIND", "ADDRESSES", "RANGES", "LAST SEEN", "OVERLAY", "KEY", "VERSION"];
    const NARROW: usize = 6;

    fn cells(&self) -> Vec<String> {
        vec![
            self.cluster.clone(),
            self.name.clone(),
            self.kind.to_owned(),
            self.addresses.join(","),
            self.ranges.join(","),
            self.last_seen.clone(),
            self.overlay_addresses.join(","),
            self.wireguard_public_key.clone(),
            self.version.clone(),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.cluster, self.name)
    }
}

/// Runs the command.
///
/// # Errors
/// What the API refuses.
pub async fn run(global: &Global, command: &NodeCommand) -> Outcome {
    let mut admin = client::admin(global.context.as_deref()).await?;
    match command {
        NodeCommand::List => {
            let nodes = admin.list_nodes(proto::ListRequest::default()).await?.into_inner().nodes;
            let rows: Vec<NodeRow> = nodes.into_iter().map(Into::into).collect();
            output::list(global.output, &rows)
        }
        NodeCommand::Revoke(args) => {
            admin.revoke_node(proto::RevokeNodeRequest { name: args.name.clone() }).await?;
            let story = global.story();
            story.done(&args.name, "revoked: withdrawn everywhere, its certificate is refused");
            story.line("To have it back: fabric token create, then fabric join on the machine");
            Ok(())
        }
    }
}
