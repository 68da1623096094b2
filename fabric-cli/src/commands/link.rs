//! `fabric link list`.

use clap::Subcommand;
use clustermesh_api_proto::fabric::v1 as proto;
use serde::Serialize;

use super::Global;
use super::status::{age, state_name};
use crate::client;
use crate::failure::Outcome;
use crate::output::{self, Row};

/// Links to other clusters.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// List this cluster's links, with what each remote may claim.
    List,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkRow {
    cluster: String,
    id: u32,
    state: &'static str,
    sync_age_ms: i64,
    prefixes: Vec<String>,
    mesh_endpoints: Vec<String>,
    pin: String,
    detail: String,
}

impl From<proto::Link> for LinkRow {
    fn from(link: proto::Link) -> Self {
        let state = state_name(link.state());
        let peer = link.peer.unwrap_or_default();
        let cluster = peer.cluster.unwrap_or_default();
        Self {
            cluster: cluster.name,
            id: cluster.id,
            state,
            sync_age_ms: link.sync_age_ms,
            prefixes: cluster.prefixes,
            mesh_endpoints: peer.mesh_endpoints,
            pin: link.pin,
            detail: link.detail,
        }
    }
}

impl Row for LinkRow {
    const KIND: &'static str = "Link";
    const HEADS: &'static [&'static str] =
        &["CLUSTER", "ID", "STATE", "SYNC AGE", "PREFIXES", "ENDPOINTS", "PIN", "DETAIL"];
    const NARROW: usize = 5;

    fn cells(&self) -> Vec<String> {
        vec![
            self.cluster.clone(),
            self.id.to_string(),
            self.state.to_owned(),
            age(self.sync_age_ms),
            self.prefixes.join(","),
            self.mesh_endpoints.join(","),
            self.pin.clone(),
            self.detail.clone(),
        ]
    }

    fn name(&self) -> String {
        self.cluster.clone()
    }
}

/// Runs the command.
///
/// # Errors
/// What the API refuses.
pub async fn run(global: &Global, command: &LinkCommand) -> Outcome {
    let LinkCommand::List = command;
    let mut admin = client::admin(global.context.as_deref()).await?;
    let links = admin.list_links(proto::ListRequest::default()).await?.into_inner().links;
    let rows: Vec<LinkRow> = links.into_iter().map(Into::into).collect();
    output::list(global.output, &rows)
}
