//! `fabric identity list`.

use clap::Subcommand;
use clustermesh_api_proto::fabric::v1 as proto;
use serde::Serialize;

use super::Global;
use crate::client;
use crate::failure::Outcome;
use crate::output::{self, Row};

/// Identities.
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// List the identities of all clusters: the number is what packets carry.
    List,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct IdentityRow {
    id: u32,
    cluster: String,
    labels: Vec<String>,
}

impl Row for IdentityRow {
    const KIND: &'static str = "Identity";
    const HEADS: &'static [&'static str] = &["ID", "CLUSTER", "LABELS"];
    const NARROW: usize = 3;

    fn cells(&self) -> Vec<String> {
        vec![self.id.to_string(), self.cluster.clone(), self.labels.join(" ")]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

/// Runs the command.
///
/// # Errors
/// What the API refuses.
pub async fn run(global: &Global, command: &IdentityCommand) -> Outcome {
    let IdentityCommand::List = command;
    let mut admin = client::admin(global.context.as_deref()).await?;
    let identities = admin.list_identities(proto::ListRequest::default()).await?.into_inner().identities;
    let row = |i: proto::Identity| IdentityRow { id: i.id, cluster: i.cluster, labels: i.labels };
    let rows: Vec<IdentityRow> = identities.into_iter().map(row).collect();
    output::list(global.output, &rows)
}
