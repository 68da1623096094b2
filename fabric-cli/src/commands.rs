//! The command tree. One file per verb or noun; each turns its arguments into calls and the answers into output.

pub mod apply;
pub mod completion;
pub mod connect;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod identity;
pub mod invite;
pub mod join;
pub mod link;
pub mod node;
pub mod observe;
pub mod process;
pub mod reference;
pub mod service;
pub mod status;
pub mod token;
pub mod up;
pub mod workload;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::output::{Format, Story};

/// A mesh and encryption fabric without gateways.
#[derive(Debug, Parser)]
#[command(
    name = "fabric",
    version,
    propagate_version = true,
    before_help = "Examples:\n  fabric up --cluster eu                 a cluster on this machine\n  fabric connect eu us                   join two clusters\n  fabric service share shop/cart         one service in every cluster",
    after_help = "Exit codes: 0 good, 1 failed, 2 usage, 3 degraded, 4 the answer is no, 5 timed out, 130 interrupted."
)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command understands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// How to print the answer.
    #[arg(short = 'o', long = "output", value_enum, default_value_t, global = true)]
    pub output: Format,
    /// Which cluster to talk to; default: the current context.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Say nothing but the answer and failures.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more; twice for even more.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

impl Global {
    /// For the steps of an action.
    pub fn story(&self) -> Story {
        Story::new(self.quiet)
    }
}

/// Where one machine's processes keep their things.
#[derive(Debug, Clone, Args)]
pub struct Dirs {
    /// State that outlives a reboot.
    #[arg(long, env = "FABRIC_STATE_DIR", default_value = "/var/lib/fabric")]
    pub state_dir: PathBuf,
    /// Sockets and process ids.
    #[arg(long, env = "FABRIC_RUN_DIR", default_value = "/run/fabric")]
    pub run_dir: PathBuf,
}

/// Where this machine's agent listens.
#[derive(Debug, Clone, Args)]
pub struct RunDir {
    /// Sockets and process ids.
    #[arg(long, env = "FABRIC_RUN_DIR", default_value = "/run/fabric")]
    pub run_dir: PathBuf,
}

/// The verbs and nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster on this machine, its first.
    Up(up::UpArgs),
    /// Connect two clusters, or redeem an invite.
    Connect(connect::ConnectArgs),
    /// Disconnect a cluster; its prefixes are dropped until they are released.
    Disconnect(connect::DisconnectArgs),
    /// Make an invite that another cluster's owner redeems.
    Invite(invite::InviteArgs),
    /// Join this machine to a cluster with a token.
    Join(join::JoinArgs),
    /// Take this machine out of its cluster.
    Leave(join::LeaveArgs),
    /// Show the mesh as this cluster sees it.
    Status(status::StatusArgs),
    /// Show flows and drops as they happen.
    Observe(observe::ObserveArgs),
    /// Services that several clusters share.
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Apply Kubernetes YAML: Service, NetworkPolicy, CiliumNetworkPolicy, ClusterLink.
    Apply(apply::ApplyArgs),
    /// List or print applied objects.
    Get(apply::GetArgs),
    /// Delete an applied object.
    Delete(apply::DeleteArgs),
    /// Tokens that enrol nodes and machines.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Nodes and machines.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Links to other clusters.
    #[command(subcommand)]
    Link(link::LinkCommand),
    /// Identities and their labels.
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// Workloads of this machine.
    #[command(subcommand)]
    Workload(workload::WorkloadCommand),
    /// Two clusters and a VM on this machine, with a tour.
    Demo(demo::DemoArgs),
    /// Say what this machine has of all that a node needs.
    Doctor(doctor::DoctorArgs),
    /// What a code such as FAB-2001 means, and what to do.
    Explain(explain::ExplainArgs),
    /// Print a completion script.
    Completion(completion::CompletionArgs),
    /// Keep this machine's processes running, where no systemd does.
    #[command(hide = true)]
    Supervise(process::ProcessArgs),
    /// The node's process.
    #[command(hide = true)]
    Agent(process::ProcessArgs),
    /// The cluster's server.
    #[command(hide = true)]
    Api(process::ProcessArgs),
    /// The WireGuard engine.
    #[command(hide = true)]
    Wireguard(process::ProcessArgs),
    /// Print `docs/cli.md`.
    #[command(hide = true)]
    Reference,
    /// The CNI plugin.
    #[command(hide = true)]
    Cni,
}
