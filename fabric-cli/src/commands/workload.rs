//! `fabric workload add|list|delete`, on the machine that the workload runs on.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use clustermesh_api_proto::fabric::v1 as proto;
use serde::Serialize;

use super::{Global, RunDir};
use crate::client;
use crate::failure::Outcome;
use crate::output::{self, Format, Row};

/// Workloads.
#[derive(Debug, Subcommand)]
pub enum WorkloadCommand {
    /// Give a network namespace an interface, an address and an identity.
    Add(AddArgs),
    /// List this machine's workloads.
    List(ListArgs),
    /// Take it back.
    Delete(DeleteArgs),
}

/// Arguments of `fabric workload add`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric workload add web -n shop --labels app=web --netns /run/netns/web\n  fabric workload add db --labels app=db,tier=data --netns /proc/1234/ns/net\n  fabric workload add web --netns /run/netns/web -o json"
)]
pub struct AddArgs {
    /// Name, unique in its namespace on this machine.
    name: String,
    /// Namespace of its labels.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Labels.
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
    /// Its network namespace.
    #[arg(long)]
    netns: PathBuf,
    /// Name of the interface inside.
    #[arg(long, default_value = "eth0")]
    interface: String,
    #[command(flatten)]
    dir: RunDir,
}

/// Arguments of `fabric workload list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    dir: RunDir,
}

/// Arguments of `fabric workload delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Its name.
    name: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    dir: RunDir,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadRow {
    id: String,
    namespace: String,
    name: String,
    addresses: Vec<String>,
    identity: u32,
    labels: Vec<String>,
    interface: String,
    host_interface: String,
    mtu: u32,
    netns: String,
    problem: String,
}

impl From<proto::Workload> for WorkloadRow {
    fn from(w: proto::Workload) -> Self {
        Self {
            id: w.id,
            namespace: w.kubernetes_namespace,
            name: w.name,
            addresses: w.addresses,
            identity: w.identity,
            labels: w.labels,
            interface: w.interface,
            host_interface: w.host_interface,
            mtu: w.mtu,
            netns: w.netns,
            problem: w.problem,
        }
    }
}

impl Row for WorkloadRow {
    const KIND: &'static str = "Workload";
    const HEADS: &'static [&'static str] =
        &["NAMESPACE", "NAME", "ADDRESSES", "IDENTITY", "LABELS", "STATE", "DEVICE", "MTU", "NETNS"];
    const NARROW: usize = 6;

    fn cells(&self) -> Vec<String> {
        let state = if self.problem.is_empty() { "ready".to_owned() } else { self.problem.clone() };
        vec![
            self.namespace.clone(),
            self.name.clone(),
            self.addresses.join(","),
            self.identity.to_string(),
            self.labels.join(","),
            state,
            self.host_interface.clone(),
            self.mtu.to_string(),
            self.netns.clone(),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Runs the command.
///
/// # Errors
/// What the agent refuses.
pub async fn run(global: &Global, command: &WorkloadCommand) -> Outcome {
    match command {
        WorkloadCommand::Add(args) => add(global, args).await,
        WorkloadCommand::List(args) => {
            let mut local = client::local(&args.dir.run_dir).await?;
            let workloads = local.list_workloads(proto::ListWorkloadsRequest {}).await?.into_inner().workloads;
            let rows: Vec<WorkloadRow> = workloads.into_iter().map(Into::into).collect();
            output::list(global.output, &rows)
        }
        WorkloadCommand::Delete(args) => {
            let id = format!("{}/{}", args.namespace, args.name);
            client::local(&args.dir.run_dir)
                .await?
                .delete_workload(proto::DeleteWorkloadRequest { id: id.clone() })
                .await?;
            global.story().done(&id, "deleted");
            Ok(())
        }
    }
}

async fn add(global: &Global, args: &AddArgs) -> Outcome {
    let request = proto::AddWorkloadRequest {
        id: String::new(),
        kubernetes_namespace: args.namespace.clone(),
        name: args.name.clone(),
        labels: args.labels.clone(),
        netns: absolute(&args.netns),
        interface: args.interface.clone(),
    };
    let workload = client::local(&args.dir.run_dir).await?.add_workload(request).await?.into_inner();
    let row = WorkloadRow::from(workload);
    match global.output {
        Format::Table | Format::Wide => output::list(global.output, &[row])?,
        format => output::document(format, WorkloadRow::KIND, &row)?,
    }
    global.story().line(&format!("Undo: fabric workload delete {} -n {}", args.name, args.namespace));
    Ok(())
}

/// The agent has another working folder than we.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}
