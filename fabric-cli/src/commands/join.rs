//! `fabric join` and `fabric leave`: a machine becomes a node of a cluster, or a workload of it, and stops being one.

use std::time::SystemTime;

use clap::Args;
use clustermesh_api::pki::Pin;
use clustermesh_api_proto::fabric::v1::{self as proto, NodeKind};
use fabric_core::cluster::{ClusterSpec, Encryption, Routing};
use fabric_core::config::MemberKind;
use fabric_core::error_code;
use fabric_core::names::NodeName;
use fabric_core::token::JoinToken;
use rcgen::{CertificateParams, KeyPair};

use super::up::{PlaceArgs, write_membership, write_yaml};
use super::{Dirs, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::{client, machine};

/// Arguments of `fabric join`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  sudo fabric join TOKEN                       as what the token says\n  sudo fabric join TOKEN --name eu3            a node with a name of its own\n  sudo fabric join - < token.txt"
)]
pub struct JoinArgs {
    /// What `fabric token create` printed, or `-` for standard input.
    token: String,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Arguments of `fabric leave`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  sudo fabric leave                 a node or machine\n  sudo fabric leave --yes           also where this machine runs the cluster's only API\n  sudo fabric leave --state-dir DIR"
)]
pub struct LeaveArgs {
    /// Also where this machine runs the cluster's API: the cluster ends with it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    dirs: Dirs,
}

/// `fabric join`.
///
/// # Errors
/// When the token is refused, or this machine cannot be a node.
pub async fn run(global: &Global, args: &JoinArgs) -> Outcome {
    let token = token(&args.token)?;
    let state = &args.place.dirs.state_dir;
    if state.join("node.yaml").exists() {
        return Err(Failure::new(format!("{} already holds a membership", state.display()))
            .exit(Exit::No)
            .code(error_code::ALREADY_JOINED)
            .next("fabric leave"));
    }
    let wanted = match (token.kind, &token.name) {
        (_, Some(name)) => name.clone(),
        (_, None) => args.place.node_name()?,
    };
    // All that can be checked here is checked before the token is spent.
    let draft = ClusterSpec::from_name(token.cluster.clone());
    let mut node = args.place.node_config(&draft, wanted.clone(), args.place.addresses()?);
    node.api_endpoints.clone_from(&token.api);
    node.validate().map_err(|e| Failure::usage(e.to_string()).code(error_code::CONFIG_INVALID))?;
    machine::require(&node)?;
    let key = KeyPair::generate().map_err(|e| Failure::new(e.to_string()))?;
    let answer = redeem(&token, &key, &wanted).await?;
    let cluster = answer.cluster.clone().unwrap_or_default();
    node.name =
        NodeName::new(&answer.name).map_err(|e| Failure::new(format!("the API answered with a bad name: {e}")))?;
    node.kind = if answer.kind() == NodeKind::Machine { MemberKind::Machine } else { MemberKind::Node };
    node.routing = routing(cluster.routing());
    node.encryption = encryption(cluster.encryption());
    let told: Vec<_> = answer.api_endpoints.iter().filter_map(|e| e.parse().ok()).collect();
    if !told.is_empty() {
        node.api_endpoints = told;
    }
    write_membership(&node, &answer.certificate_pem, &key.serialize_pem(), &answer.authority_pem)?;
    write_yaml(&state.join("node.yaml"), &node)?;
    let story = global.story();
    story.done(node.name.as_str(), &format!("{} of cluster {}", node.kind, node.cluster));
    machine::start(global, &args.place, &node).await?;
    story.line("Next: fabric status --local     Undo: fabric leave");
    Ok(())
}

fn token(text: &str) -> Result<JoinToken, Failure> {
    let text = if text == "-" { std::io::read_to_string(std::io::stdin().lock())? } else { text.to_owned() };
    let token = JoinToken::parse(text.trim())
        .map_err(|e| Failure::usage(format!("token: {e}")).code(JoinToken::error_code(&e)))?;
    if token.is_expired(SystemTime::now()) {
        return Err(Failure::new("the token has expired, by this machine's clock")
            .exit(Exit::No)
            .code(error_code::TOKEN_EXPIRED)
            .next("fabric token create, for another one"));
    }
    Ok(token)
}

async fn redeem(token: &JoinToken, key: &KeyPair, name: &NodeName) -> Result<proto::JoinResponse, Failure> {
    let params = CertificateParams::default();
    let csr = params.serialize_request(key).map_err(|e| Failure::new(e.to_string()))?;
    let pin: Pin = token.pin.to_string().parse().map_err(|_| Failure::usage("token: its fingerprint is not one"))?;
    let mut enrol = client::enrol(&machine::servers(&token.api), pin).await?;
    let request = proto::JoinRequest {
        secret: token.secret.reveal().to_string(),
        csr: csr.der().to_vec(),
        name: if token.name.is_some() { String::new() } else { name.to_string() },
    };
    Ok(enrol.join(request).await?.into_inner())
}

fn routing(routing: proto::Routing) -> Routing {
    match routing {
        proto::Routing::Geneve => Routing::Geneve,
        proto::Routing::Native => Routing::Native,
        proto::Routing::Vxlan | proto::Routing::Unspecified => Routing::Vxlan,
    }
}

/// Only a clear "none" switches it off.
fn encryption(encryption: proto::Encryption) -> Encryption {
    match encryption {
        proto::Encryption::None => Encryption::None,
        proto::Encryption::Wireguard | proto::Encryption::Unspecified => Encryption::Wireguard,
    }
}

/// `fabric leave`.
///
/// # Errors
/// When this machine is no member, or the cluster would end with it.
pub async fn leave(global: &Global, args: &LeaveArgs) -> Outcome {
    let state = &args.dirs.state_dir;
    let node: fabric_core::config::NodeConfig = machine::read_yaml(&state.join("node.yaml"))?;
    if state.join("api.yaml").exists() && !args.yes {
        return Err(Failure::new(format!(
            "this machine runs the API of cluster {}; the cluster would end",
            node.cluster
        ))
        .exit(Exit::No)
        .next("fabric leave --yes"));
    }
    if let Ok(mut agent) = client::local(&args.dirs.run_dir).await {
        // Withdrawn at once where the API can be reached; else its owner revokes the node.
        drop(agent.leave(proto::LeaveRequest {}).await);
    }
    let (state, run) = (state.clone(), args.dirs.run_dir.clone());
    let done = tokio::task::spawn_blocking(move || machine::forget(&state, &run));
    done.await.map_err(|e| Failure::new(format!("leaving ended: {e}")))??;
    global.story().done(node.name.as_str(), &format!("left cluster {}", node.cluster));
    Ok(())
}
