//! `fabric demo`.

use clap::{Args, Subcommand, ValueEnum};

use super::Global;
use crate::demo::{self, Plan};
use crate::failure::Outcome;

/// How packets travel between the demo's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoutingArg {
    /// VXLAN, the default.
    Vxlan,
    /// Geneve.
    Geneve,
    /// No overlay.
    Native,
}

impl RoutingArg {
    /// As it is written in flags and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Native => "native",
        }
    }
}

/// Arguments of `fabric demo`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  sudo fabric demo                  build it, print the tour, stay until Ctrl-C\n  sudo fabric demo --once           run the tour, check each step, tear down\n  sudo fabric demo --once -o json   the same for a program"
)]
pub struct DemoArgs {
    /// Run the tour, check each step, tear down; exit code 0 only if all held.
    #[arg(long)]
    once: bool,
    /// Leave everything in place at the end.
    #[arg(long)]
    keep: bool,
    /// How many clusters.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=4))]
    clusters: u8,
    /// How many nodes each.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    nodes: u8,
    /// How packets travel between nodes.
    #[arg(long, value_enum, default_value = "vxlan")]
    routing: RoutingArg,
    /// Leave packets between nodes in clear.
    #[arg(long)]
    no_encryption: bool,
    /// Remove what earlier demos left (`--keep`, or killed), and do nothing else.
    #[arg(long)]
    clean: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The demo's own workload, so that it needs no other program.
#[derive(Debug, Subcommand)]
enum Part {
    /// Serve one text over HTTP.
    #[command(hide = true)]
    Serve {
        /// Port on all addresses.
        #[arg(long)]
        port: u16,
        /// What every answer says.
        #[arg(long)]
        text: String,
    },
    /// Fetch one text over HTTP.
    #[command(hide = true)]
    Get {
        /// `address:port`.
        address: std::net::SocketAddr,
        /// How often, each over a new connection.
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// How long one may take, in milliseconds.
        #[arg(long, default_value_t = 2000)]
        within_ms: u64,
    },
}

/// Runs the command.
///
/// # Errors
/// When a step does not hold.
pub async fn run(global: &Global, args: &DemoArgs) -> Outcome {
    match &args.part {
        Some(Part::Serve { port, text }) => return demo::serve(*port, text).await,
        Some(Part::Get { address, count, within_ms }) => return demo::get(*address, *count, *within_ms).await,
        None => {}
    }
    if args.clean {
        let removed = crate::lab::remove_dead();
        global.story().done("demo", &format!("{removed} left-over laboratories removed"));
        return Ok(());
    }
    let plan = Plan {
        clusters: args.clusters,
        nodes: args.nodes,
        routing: args.routing.name(),
        encryption: !args.no_encryption,
        keep: args.keep,
    };
    if args.once { demo::once(global, &plan).await } else { demo::stay(global, &plan).await }
}
