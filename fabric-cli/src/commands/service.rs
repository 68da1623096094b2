//! `fabric service share|unshare|list`.

use clap::{Args, Subcommand, ValueEnum};
use clustermesh_api_proto::fabric::v1 as proto;
use serde::Serialize;

use super::Global;
use crate::client;
use crate::context::{self, Contexts};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{self, Row};
use fabric_core::error_code;

/// Services.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Declare a service global: one name, backends in every cluster that has it.
    Share(ShareArgs),
    /// Take it back: this mesh's clusters serve it each for themselves.
    Unshare(UnshareArgs),
    /// List services with their backends.
    List,
}

/// Which backends come first.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Prefer {
    /// Those of the client's own cluster; others when none of them is left.
    Local,
    /// Those of other clusters; own ones when none of them is left.
    Remote,
    /// All alike.
    None,
}

impl Prefer {
    fn affinity(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::None => "none",
        }
    }
}

/// Arguments of `fabric service share`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric service share shop/cart\n  fabric service share shop/cart --prefer local\n  fabric service share cart --dry-run"
)]
pub struct ShareArgs {
    /// `namespace/name`, or a name in the namespace `default`.
    service: String,
    /// Which backends come first; without it, as it is.
    #[arg(long, value_enum)]
    prefer: Option<Prefer>,
    /// Only in the current context's cluster, not in every cluster that a context is at hand for.
    #[arg(long)]
    only: bool,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `fabric service unshare`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric service unshare shop/cart\n  fabric service unshare shop/cart --only\n  fabric service unshare cart --dry-run"
)]
pub struct UnshareArgs {
    /// `namespace/name`, or a name in the namespace `default`.
    service: String,
    /// Only in the current context's cluster.
    #[arg(long)]
    only: bool,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceRow {
    namespace: String,
    name: String,
    addresses: Vec<String>,
    ports: Vec<String>,
    global: bool,
    shared: bool,
    affinity: String,
    backends: Vec<Backend>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Backend {
    cluster: String,
    address: String,
    port: u32,
    protocol: String,
}

impl From<proto::Service> for ServiceRow {
    fn from(s: proto::Service) -> Self {
        let port = |p: &proto::ServicePort| {
            let name = if p.name.is_empty() { String::new() } else { format!("{}:", p.name) };
            format!("{name}{}/{}", p.port, p.protocol)
        };
        let backend = |b: proto::ServiceBackend| Backend {
            cluster: b.cluster,
            address: b.address,
            port: b.port,
            protocol: b.protocol,
        };
        Self {
            namespace: s.kubernetes_namespace,
            name: s.name,
            addresses: s.frontends,
            ports: s.ports.iter().map(port).collect(),
            global: s.global,
            shared: s.shared,
            affinity: s.affinity,
            backends: s.backends.into_iter().map(backend).collect(),
        }
    }
}

impl Row for ServiceRow {
    const KIND: &'static str = "Service";
    const HEADS: &'static [&'static str] =
        &["NAMESPACE", "NAME", "ADDRESSES", "PORTS", "GLOBAL", "PREFER", "BACKENDS", "WHERE"];
    const NARROW: usize = 7;

    fn cells(&self) -> Vec<String> {
        let mut clusters: Vec<&str> = self.backends.iter().map(|b| b.cluster.as_str()).collect();
        clusters.sort_unstable();
        clusters.dedup();
        let count = |c: &str| self.backends.iter().filter(|b| b.cluster == c).count();
        let per_cluster: Vec<String> = clusters.iter().map(|c| format!("{c}:{}", count(c))).collect();
        let places: Vec<String> = self.backends.iter().map(|b| format!("{}:{}", b.address, b.port)).collect();
        vec![
            self.namespace.clone(),
            self.name.clone(),
            self.addresses.join(","),
            self.ports.join(","),
            if self.global { "yes" } else { "no" }.to_owned(),
            self.affinity.clone(),
            per_cluster.join(" "),
            places.join(","),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Runs the command.
///
/// # Errors
/// What an API refuses, or when no cluster has the service.
pub async fn run(global: &Global, command: &ServiceCommand) -> Outcome {
    match command {
        ServiceCommand::Share(args) => {
            let change = Change { shared: true, prefer: args.prefer, dry_run: args.dry_run };
            everywhere(global, &args.service, args.only, &change).await
        }
        ServiceCommand::Unshare(args) => {
            let change = Change { shared: false, prefer: None, dry_run: args.dry_run };
            everywhere(global, &args.service, args.only, &change).await
        }
        ServiceCommand::List => {
            let mut admin = client::admin(global.context.as_deref()).await?;
            let services = admin.list_services(proto::ListRequest::default()).await?.into_inner().services;
            let rows: Vec<ServiceRow> = services.into_iter().map(Into::into).collect();
            output::list(global.output, &rows)
        }
    }
}

struct Change {
    shared: bool,
    prefer: Option<Prefer>,
    dry_run: bool,
}

/// In every cluster that a context is at hand for: a service is global when each of its clusters says so.
async fn everywhere(global: &Global, service: &str, only: bool, change: &Change) -> Outcome {
    let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
    let all = Contexts::load(&context::path())?;
    let picked = all.pick(global.context.as_deref())?;
    let contexts: Vec<&context::Context> = if only { vec![picked] } else { all.contexts.iter().collect() };
    let story = global.story();
    let mut found = 0;
    for context in contexts {
        let request = proto::ShareServiceRequest {
            kubernetes_namespace: namespace.to_owned(),
            name: name.to_owned(),
            shared: change.shared,
            affinity: change.prefer.map_or(String::new(), |p| p.affinity().to_owned()),
            dry_run: change.dry_run,
        };
        let mut admin = client::admin_of(context).await?;
        match admin.share_service(request).await?.into_inner().service {
            Some(service) => {
                found += 1;
                let row = ServiceRow::from(service);
                let state = if row.global { "global" } else { "not global" };
                story
                    .done(&context.name, &format!("{state}, prefer {}, {} backends", row.affinity, row.backends.len()));
            }
            None => story.warn(&context.name, "has no such service"),
        }
    }
    if found == 0 {
        return Err(Failure::new(format!("no cluster has a service {namespace}/{name}"))
            .exit(Exit::No)
            .code(error_code::SERVICE_MISSING)
            .next("fabric apply -f SERVICE.yaml, in each cluster that shall serve it"));
    }
    let undo = if change.shared { "unshare" } else { "share" };
    story.line(&format!("Undo: fabric service {undo} {service}"));
    Ok(())
}
