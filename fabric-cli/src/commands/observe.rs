//! `fabric observe`: flows and drops of the whole cluster, over Hubble's API; filters as Hubble's own tool has them.

mod filter;
mod show;

use clap::{Args, ValueEnum};
use clustermesh_api_proto::flow::Verdict;
use clustermesh_api_proto::observer::GetFlowsRequest;
use clustermesh_api_proto::observer::get_flows_response::ResponseTypes;
use clustermesh_api_proto::observer::observer_client::ObserverClient;

use super::Global;
use crate::client;
use crate::duration::Span;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum VerdictArg {
    /// Passed.
    Forwarded,
    /// Dropped.
    Dropped,
    /// Would have been dropped.
    Audit,
    /// Address translated at the socket.
    Translated,
}

impl From<VerdictArg> for Verdict {
    fn from(v: VerdictArg) -> Self {
        match v {
            VerdictArg::Forwarded => Self::Forwarded,
            VerdictArg::Dropped => Self::Dropped,
            VerdictArg::Audit => Self::Audit,
            VerdictArg::Translated => Self::Translated,
        }
    }
}

/// Arguments of `fabric observe`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric observe --follow\n  fabric observe --verdict DROPPED --last 50\n  fabric observe --from-pod shop/web --to-label app=db -o jsonl"
)]
pub struct ObserveArgs {
    /// Go on as flows happen.
    #[arg(short, long)]
    follow: bool,
    /// How many of the newest.
    #[arg(long, default_value_t = 20)]
    last: u64,
    /// Only flows of this long ago or newer.
    #[arg(long)]
    since: Option<Span>,
    /// Only these verdicts.
    #[arg(long, value_enum, ignore_case = true)]
    verdict: Vec<VerdictArg>,
    /// Either side is this workload: `namespace/prefix`.
    #[arg(long)]
    pod: Vec<String>,
    /// The source is this workload.
    #[arg(long)]
    from_pod: Vec<String>,
    /// The destination is this workload.
    #[arg(long)]
    to_pod: Vec<String>,
    /// Either side has these labels.
    #[arg(short, long)]
    label: Vec<String>,
    /// The source has these labels.
    #[arg(long)]
    from_label: Vec<String>,
    /// The destination has these labels.
    #[arg(long)]
    to_label: Vec<String>,
    /// Either side has this address or range.
    #[arg(long)]
    ip: Vec<String>,
    /// The source has this address or range.
    #[arg(long)]
    from_ip: Vec<String>,
    /// The destination has this address or range.
    #[arg(long)]
    to_ip: Vec<String>,
    /// Either side has this identity.
    #[arg(long)]
    identity: Vec<u32>,
    /// The source has this identity.
    #[arg(long)]
    from_identity: Vec<u32>,
    /// The destination has this identity.
    #[arg(long)]
    to_identity: Vec<u32>,
    /// Either side is of this cluster.
    #[arg(long)]
    cluster: Vec<String>,
    /// `tcp`, `udp`, `icmpv4`, `icmpv6`.
    #[arg(long)]
    protocol: Vec<String>,
    /// Either port.
    #[arg(long)]
    port: Vec<u16>,
    /// The source's port.
    #[arg(long)]
    from_port: Vec<u16>,
    /// The destination's port.
    #[arg(long)]
    to_port: Vec<u16>,
    /// Seen by this node.
    #[arg(long)]
    node_name: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// What the API refuses.
pub async fn run(global: &Global, args: &ObserveArgs) -> Outcome {
    let channel = client::admin_channel(global.context.as_deref()).await?;
    let mut observer = ObserverClient::new(channel);
    let since = args.since.map(|s| std::time::SystemTime::now() - s.0);
    let request = GetFlowsRequest {
        // With a start in time, all from then on.
        number: if since.is_some() { u64::MAX } else { args.last },
        follow: args.follow,
        whitelist: filter::whitelist(args),
        since: since.map(Into::into),
        ..GetFlowsRequest::default()
    };
    let mut stream = observer.get_flows(request).await?.into_inner();
    loop {
        let next = tokio::select! {
            next = stream.message() => next?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(response) = next else { return Ok(()) };
        match response.response_types {
            Some(ResponseTypes::Flow(flow)) => match global.output {
                Format::Table | Format::Wide => output::print(&show::line(&flow)),
                Format::Json | Format::Jsonl => output::print(&show::json(&flow, &response.node_name).to_string()),
                Format::Yaml => {
                    let value = show::json(&flow, &response.node_name);
                    let text = serde_yaml_ng::to_string(&value).map_err(|e| Failure::new(e.to_string()))?;
                    output::print(&format!("---\n{}", text.trim_end()));
                }
                Format::Name => output::print(&flow.uuid),
            },
            Some(ResponseTypes::LostEvents(lost)) => {
                global
                    .story()
                    .warn("flows", &format!("{} were lost: more happened than could be kept", lost.num_events_lost));
            }
            Some(ResponseTypes::NodeStatus(status)) => {
                global.story().warn("nodes", &format!("{} ({})", status.node_names.join(", "), status.message));
            }
            None => {}
        }
    }
}
