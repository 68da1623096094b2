//! `fabric status`: the mesh as one cluster sees it.

use clap::Args;
use clustermesh_api_proto::fabric::v1::{self as proto, LinkState};
use serde::Serialize;

use super::connect::{encryption_name, routing_name};
use super::{Global, RunDir};
use crate::client;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{self, Format, Table};

/// Arguments of `fabric status`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric status\n  fabric status -o wide      each node with its drops\n  fabric status --local      this machine's agent alone"
)]
pub struct StatusArgs {
    /// Ask this machine's agent instead of the API.
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    dir: RunDir,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    cluster: String,
    id: u32,
    healthy: bool,
    version: String,
    revision: i64,
    store_available: bool,
    encryption: &'static str,
    routing: &'static str,
    nodes: Vec<Node>,
    endpoints: u32,
    identities: u32,
    services: u32,
    links: Vec<Link>,
    refused: Vec<Refused>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    name: String,
    kind: &'static str,
    silent_seconds: i64,
    problems: Vec<String>,
    drops: Vec<Drop>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Drop {
    reason: u32,
    direction: String,
    packets: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    cluster: String,
    id: u32,
    state: &'static str,
    detail: String,
    encryption: &'static str,
    sync_age_ms: i64,
    nodes: u32,
    endpoints: u32,
    identities: u32,
    services: u32,
    refused: Vec<Refused>,
    pin: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    reason: String,
    count: u64,
    example: String,
}

impl From<proto::Refusal> for Refused {
    fn from(r: proto::Refusal) -> Self {
        Self { reason: r.reason, count: r.count, example: r.example }
    }
}

impl From<proto::Link> for Link {
    fn from(l: proto::Link) -> Self {
        let state = state_name(l.state());
        let cluster = l.peer.and_then(|p| p.cluster).unwrap_or_default();
        Self {
            encryption: encryption_name(cluster.encryption()),
            id: cluster.id,
            cluster: cluster.name,
            state,
            detail: l.detail,
            sync_age_ms: l.sync_age_ms,
            nodes: l.nodes,
            endpoints: l.endpoints,
            identities: l.identities,
            services: l.services,
            refused: l.refusals.into_iter().map(Into::into).collect(),
            pin: l.pin,
        }
    }
}

impl From<proto::NodeStatus> for Node {
    fn from(n: proto::NodeStatus) -> Self {
        let drop = |d: proto::DropReport| Drop { reason: d.reason, direction: d.direction, packets: d.packets };
        let node = n.node.unwrap_or_default();
        Self {
            kind: client::kind_name(node.kind()),
            name: node.name,
            silent_seconds: n.silent_s,
            problems: n.problems,
            drops: n.drops.into_iter().map(drop).collect(),
        }
    }
}

/// As users read it.
pub(super) fn state_name(state: LinkState) -> &'static str {
    match state {
        LinkState::Unspecified => "unknown",
        LinkState::Connecting => "connecting",
        LinkState::Synced => "synced",
        LinkState::Silent => "silent",
        LinkState::StoreDown => "store down",
        LinkState::Refused => "refused",
        LinkState::Blocked => "disconnected, dropped",
    }
}

/// An agent reports every few seconds; after this it is news.
const SILENT_AFTER_S: i64 = 30;

impl Status {
    fn new(status: proto::ClusterStatus) -> Self {
        let cluster = status.cluster.unwrap_or_default();
        let mut all = Self {
            encryption: encryption_name(cluster.encryption()),
            routing: routing_name(cluster.routing()),
            cluster: cluster.name,
            id: cluster.id,
            healthy: true,
            version: status.version,
            revision: status.revision,
            store_available: status.store_available,
            nodes: status.nodes.into_iter().map(Into::into).collect(),
            endpoints: status.endpoints,
            identities: status.identities,
            services: status.services,
            links: status.links.into_iter().map(Into::into).collect(),
            refused: status.refusals.into_iter().map(Into::into).collect(),
            problems: Vec::new(),
        };
        all.problems = all.find_problems();
        all.healthy = all.problems.is_empty();
        all
    }

    fn find_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.store_available {
            problems.push(format!(
                "{}: its store is down; what is known goes on working, nothing can be written",
                self.cluster
            ));
        }
        for node in &self.nodes {
            problems.extend(node.problems.iter().map(|p| format!("{}: {p}", node.name)));
            if node.silent_seconds < 0 || node.silent_seconds > SILENT_AFTER_S {
                problems.push(format!("{}: its agent is silent", node.name));
            }
        }
        for link in &self.links {
            let detail = if link.detail.is_empty() { String::new() } else { format!(": {}", link.detail) };
            match link.state {
                "synced" | "disconnected, dropped" => {}
                state => problems.push(format!("link to {}: {state}{detail}", link.cluster)),
            }
        }
        problems
    }

    fn tables(&self, wide: bool) -> String {
        let head = if self.healthy { "HEALTHY" } else { "DEGRADED" };
        let clusters = self.links.len() + 1;
        let (machines, nodes): (Vec<_>, Vec<_>) = self.nodes.iter().partition(|n| n.kind == "machine");
        let mut text = format!(
            "mesh: {clusters} clusters   {} nodes   {} machines   {} endpoints here      {head}\n",
            nodes.len() + self.links.iter().map(|l| l.nodes as usize).sum::<usize>(),
            machines.len(),
            self.endpoints,
        );
        let mut table = Table::new([
            "CLUSTER",
            "ID",
            "NODES",
            "LINK",
            "ENCRYPTION",
            "SYNC AGE",
            "ENDPOINTS",
            "SERVICES",
            "REFUSED",
        ]);
        let refused = |r: &[Refused]| r.iter().map(|r| r.count).sum::<u64>().to_string();
        table.row([
            format!("{} *", self.cluster),
            self.id.to_string(),
            self.nodes.len().to_string(),
            String::new(),
            self.encryption.to_owned(),
            String::new(),
            self.endpoints.to_string(),
            self.services.to_string(),
            refused(&self.refused),
        ]);
        for l in &self.links {
            table.row([
                l.cluster.clone(),
                l.id.to_string(),
                l.nodes.to_string(),
                l.state.to_owned(),
                l.encryption.to_owned(),
                age(l.sync_age_ms),
                l.endpoints.to_string(),
                l.services.to_string(),
                refused(&l.refused),
            ]);
        }
        text.push_str(&table.to_string());
        if wide {
            text = format!("{text}\n\n{}", self.node_table());
        }
        for problem in &self.problems {
            text = format!("{text}\n! {problem}");
        }
        text
    }

    fn node_table(&self) -> Table {
        let mut table = Table::new(["NODE", "KIND", "HEARD", "DROPS (REASON x PACKETS)", "PROBLEMS"]);
        for n in &self.nodes {
            let drops: Vec<String> =
                n.drops.iter().map(|d| format!("{} {} x {}", d.direction, d.reason, d.packets)).collect();
            let heard = if n.silent_seconds < 0 { "never".to_owned() } else { format!("{} s ago", n.silent_seconds) };
            table.row([n.name.clone(), n.kind.to_owned(), heard, drops.join(", "), n.problems.join("; ")]);
        }
        table
    }
}

/// How long ago, as users read it.
pub(super) fn age(ms: i64) -> String {
    match ms {
        ..0 => "never".to_owned(),
        0..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min", ms / 60_000),
    }
}

/// Runs the command; exit code 3 when degraded.
///
/// # Errors
/// When the API cannot be asked, or something is unhealthy.
pub async fn run(global: &Global, args: &StatusArgs) -> Outcome {
    if args.local {
        return local(global, args).await;
    }
    let mut admin = client::admin(global.context.as_deref()).await?;
    let status = Status::new(admin.get_status(proto::GetStatusRequest {}).await?.into_inner());
    match global.output {
        Format::Table | Format::Wide => output::print(&status.tables(global.output == Format::Wide)),
        Format::Name => output::print(&status.cluster),
        format => output::document(format, "MeshStatus", &status)?,
    }
    if status.healthy {
        return Ok(());
    }
    Err(Failure::new(format!("degraded: {}", status.problems.join("; "))).exit(Exit::Degraded))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Local {
    cluster: String,
    node: String,
    addresses: Vec<String>,
    ranges: Vec<String>,
    synced: bool,
    problem: String,
    revision: i64,
    tables: std::collections::BTreeMap<String, u64>,
    maps: std::collections::BTreeMap<String, u64>,
    drops: Vec<Drop>,
    peers: Vec<Peer>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    cluster: String,
    node: String,
    handshake_age_s: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

impl From<proto::AgentStatus> for Local {
    fn from(s: proto::AgentStatus) -> Self {
        let node = s.node.unwrap_or_default();
        let drop = |d: proto::DropReport| Drop { reason: d.reason, direction: d.direction, packets: d.packets };
        let peer = |p: proto::PeerReport| Peer {
            cluster: p.cluster,
            node: p.node,
            handshake_age_s: p.last_handshake_age_s,
            received_bytes: p.rx_bytes,
            sent_bytes: p.tx_bytes,
        };
        Self {
            cluster: s.cluster.unwrap_or_default().name,
            node: node.name,
            addresses: node.addresses,
            ranges: node.ranges,
            synced: s.synced,
            problem: s.problem,
            revision: s.revision,
            tables: s.tables.into_iter().collect(),
            maps: s.maps.into_iter().collect(),
            drops: s.drops.into_iter().map(drop).collect(),
            peers: s.peers.into_iter().map(peer).collect(),
        }
    }
}

/// This machine's agent; exit code 3 while it is not in step with its API.
async fn local(global: &Global, args: &StatusArgs) -> Outcome {
    let mut agent = client::local(&args.dir.run_dir).await?;
    let status = Local::from(agent.get_agent_status(proto::GetAgentStatusRequest {}).await?.into_inner());
    let format = if global.output == Format::Table { Format::Yaml } else { global.output };
    if !(global.quiet && global.output == Format::Table) {
        output::document(format, "AgentStatus", &status)?;
    }
    if status.synced {
        return Ok(());
    }
    Err(Failure::new(format!("{} is not in step with its API: {}", status.node, status.problem)).exit(Exit::Degraded))
}
