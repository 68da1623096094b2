//! `fabric invite`: half of connecting two clusters that have two owners.

use clap::Args;
use clustermesh_api_proto::fabric::v1 as proto;
use serde::Serialize;

use super::Global;
use crate::client;
use crate::duration::Span;
use crate::failure::Outcome;
use crate::output::{self, Format};

/// Arguments of `fabric invite`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric invite --peer us > eu.invite\n  fabric invite --peer us --ttl 15m > eu.invite\n  fabric invite --peer us --context eu -o json"
)]
pub struct InviteArgs {
    /// The only cluster that may redeem it.
    #[arg(long)]
    peer: String,
    /// How long it can be redeemed.
    #[arg(long, default_value = "15m")]
    ttl: Span,
}

#[derive(Serialize)]
struct Invite {
    invite: String,
    expires: String,
}

/// Runs the command.
///
/// # Errors
/// What the API refuses.
pub async fn run(global: &Global, args: &InviteArgs) -> Outcome {
    let mut admin = client::admin(global.context.as_deref()).await?;
    let request = proto::CreateInviteRequest { peer: args.peer.clone(), ttl_s: args.ttl.seconds()? };
    let answer = admin.create_invite(request).await?.into_inner();
    match global.output {
        Format::Table | Format::Wide | Format::Name => output::print(&answer.invite),
        format => {
            let body = Invite { invite: answer.invite, expires: answer.expires.clone() };
            output::document(format, "Invite", &body)?;
        }
    }
    let story = global.story();
    story.line(&format!("For cluster {} alone, once, until {}. It holds a secret.", args.peer, answer.expires));
    story.line("Next: fabric connect FILE   by the owner of the other cluster");
    Ok(())
}
