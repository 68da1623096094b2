//! `fabric connect` and `fabric disconnect`.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use clustermesh_api_proto::fabric::v1::{self as proto, LinkState};
use serde::Serialize;

use super::Global;
use crate::client::{self, Admin};
use crate::context::{self, Contexts};
use crate::duration::Span;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;

/// Arguments of `fabric connect`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric connect eu us                      both contexts at hand\n  fabric connect eu.invite                  an invite of the other cluster's owner\n  fabric connect eu us --dry-run -o yaml    the two ClusterLink objects, for review or GitOps"
)]
pub struct ConnectArgs {
    /// A cluster (context), or a file with an invite, or `-`.
    first: String,
    /// The other cluster (context).
    second: Option<String>,
    /// Check everything, print the objects that would be written, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long to wait until both sides are in sync.
    #[arg(long, default_value = "60s")]
    wait: Span,
}

/// Arguments of `fabric disconnect`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  fabric disconnect us             both sides, where both contexts are at hand\n  fabric disconnect us --release   also lift the drop of its prefixes\n  fabric disconnect us --context eu"
)]
pub struct DisconnectArgs {
    /// The cluster to disconnect from the current context's.
    cluster: String,
    /// Also lift the drop of its prefixes; traffic to them then takes whatever route there is.
    #[arg(long)]
    release: bool,
}

/// `fabric connect`.
///
/// # Errors
/// When the clusters cannot be connected; then nothing was changed.
pub async fn connect(global: &Global, args: &ConnectArgs) -> Outcome {
    match &args.second {
        Some(second) => connect_contexts(global, args, second).await,
        None => redeem(global, args).await,
    }
}

async fn connect_contexts(global: &Global, args: &ConnectArgs, second: &str) -> Outcome {
    let started = Instant::now();
    let story = global.story();
    let all = Contexts::load(&context::path())?;
    let mut left = client::admin_of(all.pick(Some(&args.first))?).await?;
    let mut right = client::admin_of(all.pick(Some(second))?).await?;
    let of_left = offer(&mut left, &args.first).await?;
    let of_right = offer(&mut right, second).await?;
    // Both sides judge before either writes: a refusal leaves nothing behind.
    let link_right = put(&mut left, &of_right, true).await?;
    let link_left = put(&mut right, &of_left, true).await?;
    if args.dry_run {
        return print_links(global, &[(args.first.as_str(), &link_right), (second, &link_left)]);
    }
    for (name, own) in [(&args.first, &of_left), (&second.to_owned(), &of_right)] {
        story.done(name, &describe(own));
    }
    put(&mut left, &of_right, false).await?;
    if let Err(failure) = put(&mut right, &of_left, false).await {
        let request = proto::DeleteLinkRequest { cluster: name_of(&of_right), release: true };
        drop(left.delete_link(request).await);
        return Err(failure);
    }
    story.done(
        "trust",
        &format!("{} ⇄ {} pinned {} ⇄ {}", args.first, second, short(&link_left.pin), short(&link_right.pin)),
    );
    let deadline = started + args.wait.0;
    let there = synced(&mut left, &name_of(&of_right), deadline).await?;
    let back = synced(&mut right, &name_of(&of_left), deadline).await?;
    story.done("sync", &counts(&[&there, &back]));
    finish(global, started, &args.first, second);
    Ok(())
}

async fn redeem(global: &Global, args: &ConnectArgs) -> Outcome {
    let started = Instant::now();
    let invite = read_invite(&args.first)?;
    let mut admin = client::admin(global.context.as_deref()).await?;
    let request = proto::AcceptInviteRequest { invite, dry_run: args.dry_run };
    let link = admin.accept_invite(request).await?.into_inner();
    let peer = link.peer.as_ref().map(name_of).unwrap_or_default();
    if args.dry_run {
        return print_links(global, &[("this cluster", &link)]);
    }
    let story = global.story();
    story.done("trust", &format!("{peer} pinned {}", short(&link.pin)));
    let link = synced(&mut admin, &peer, started + args.wait.0).await?;
    story.done("sync", &counts(&[&link]));
    finish(global, started, "this cluster", &peer);
    Ok(())
}

fn finish(global: &Global, started: Instant, first: &str, second: &str) {
    let story = global.story();
    let took = started.elapsed().as_secs_f32();
    story.line(&format!(
        "Connected {first} and {second} in {took:.1} s.   Next: fabric service share NAME     Undo: fabric disconnect {second}"
    ));
}

fn read_invite(from: &str) -> Result<String, Failure> {
    const MAX_BYTES: u64 = 64 << 10;
    use std::io::Read as _;
    let mut text = String::new();
    let cannot = |e: std::io::Error| {
        Failure::usage(format!("{from:?} is neither a readable invite nor followed by a second cluster: {e}"))
            .next("fabric connect FIRST SECOND, or fabric connect FILE")
    };
    if from == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text).map_err(cannot)?;
    } else {
        let file = std::fs::File::open(Path::new(from)).map_err(cannot)?;
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(cannot)?;
    }
    Ok(text.trim().to_owned())
}

/// `fabric disconnect`.
///
/// # Errors
/// When there is no such link.
pub async fn disconnect(global: &Global, args: &DisconnectArgs) -> Outcome {
    let all = Contexts::load(&context::path())?;
    let here = all.pick(global.context.as_deref())?;
    let story = global.story();
    let mut own = client::admin_of(here).await?;
    let request = proto::DeleteLinkRequest { cluster: args.cluster.clone(), release: args.release };
    own.delete_link(request).await?;
    let drop_stays = if args.release { "its prefixes are released" } else { "its prefixes are dropped until released" };
    story.done(&here.name, &format!("disconnected from {}; {drop_stays}", args.cluster));
    if let Some(other) = all.contexts.iter().find(|c| c.name == args.cluster) {
        let mut peer = client::admin_of(other).await?;
        let request = proto::DeleteLinkRequest { cluster: here.name.clone(), release: args.release };
        match peer.delete_link(request).await {
            Ok(_) => story.done(&other.name, &format!("disconnected from {}", here.name)),
            Err(status) if status.code() == tonic::Code::NotFound => story.warn(&other.name, "was not connected"),
            Err(status) => return Err(status.into()),
        }
    } else {
        story.warn(&args.cluster, "no context here: its owner disconnects the other side");
    }
    story.line(&format!("Undo: fabric connect {} {}", here.name, args.cluster));
    Ok(())
}

async fn offer(admin: &mut Admin, name: &str) -> Result<proto::LinkOffer, Failure> {
    let offer = admin.get_offer(proto::GetOfferRequest {}).await?.into_inner();
    if offer.cluster.is_none() {
        return Err(Failure::new(format!("{name} did not say who it is")));
    }
    Ok(offer)
}

async fn put(admin: &mut Admin, peer: &proto::LinkOffer, dry_run: bool) -> Result<proto::Link, Failure> {
    let request = proto::PutLinkRequest { peer: Some(peer.clone()), dry_run };
    Ok(admin.put_link(request).await?.into_inner())
}

/// Waits until a link has all of its remote's state.
async fn synced(admin: &mut Admin, cluster: &str, deadline: Instant) -> Result<proto::Link, Failure> {
    loop {
        let links = admin.list_links(proto::ListRequest::default()).await?.into_inner().links;
        let link = links.into_iter().find(|l| l.peer.as_ref().is_some_and(|p| name_of(p) == cluster));
        let link = link.ok_or_else(|| Failure::new(format!("the link to {cluster} is gone again")))?;
        match link.state() {
            LinkState::Synced => return Ok(link),
            LinkState::Refused => {
                return Err(Failure::new(format!("link to {cluster}: {}", link.detail)).exit(Exit::No));
            }
            LinkState::Unspecified
            | LinkState::Connecting
            | LinkState::Silent
            | LinkState::StoreDown
            | LinkState::Blocked => {}
        }
        if Instant::now() >= deadline {
            let why = if link.detail.is_empty() { "no reason known".to_owned() } else { link.detail };
            return Err(Failure::new(format!("the link to {cluster} is not in sync yet: {why}"))
                .exit(Exit::TimedOut)
                .next("fabric status"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn name_of(offer: &proto::LinkOffer) -> String {
    offer.cluster.as_ref().map(|c| c.name.clone()).unwrap_or_default()
}

fn describe(offer: &proto::LinkOffer) -> String {
    let Some(cluster) = &offer.cluster else { return String::new() };
    format!("id {}, {}", cluster.id, cluster.prefixes.join(" "))
}

/// Enough of a fingerprint for two people to compare by voice.
fn short(pin: &str) -> String {
    let (a, b) = (pin.get(..4).unwrap_or(pin), pin.get(4..8).unwrap_or_default());
    format!("{a}-{b}…").to_uppercase()
}

fn counts(links: &[&proto::Link]) -> String {
    let sum = |f: fn(&proto::Link) -> u32| links.iter().map(|l| f(l)).sum::<u32>();
    let (nodes, endpoints) = (sum(|l| l.nodes), sum(|l| l.endpoints));
    let (identities, services) = (sum(|l| l.identities), sum(|l| l.services));
    format!("nodes {nodes}, endpoints {endpoints}, identities {identities}, services {services}")
}

/// A link as an object that `fabric apply` takes: public keys only.
#[derive(Serialize)]
struct ClusterLink<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    cluster: SpecCluster<'a>,
    authority_pem: &'a str,
    mesh_endpoints: &'a [String],
    api_endpoints: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpecCluster<'a> {
    name: &'a str,
    id: u32,
    prefixes: &'a [String],
    routing: &'static str,
    encryption: &'static str,
}

/// One document per side, each headed by the cluster that it is to be applied in.
fn print_links(_global: &Global, links: &[(&str, &proto::Link)]) -> Outcome {
    for (side, link) in links {
        let Some(peer) = &link.peer else { continue };
        let Some(cluster) = &peer.cluster else { continue };
        let object = ClusterLink {
            api_version: "fabric.io/v1alpha1",
            kind: "ClusterLink",
            metadata: Metadata { name: &cluster.name },
            spec: Spec {
                cluster: SpecCluster {
                    name: &cluster.name,
                    id: cluster.id,
                    prefixes: &cluster.prefixes,
                    routing: routing_name(cluster.routing()),
                    encryption: encryption_name(cluster.encryption()),
                },
                authority_pem: &peer.authority_pem,
                mesh_endpoints: &peer.mesh_endpoints,
                api_endpoints: &peer.api_endpoints,
            },
        };
        let text = serde_yaml_ng::to_string(&object).map_err(|e| Failure::new(e.to_string()))?;
        output::print(&format!("# to be applied in {side}\n---\n{}", text.trim_end()));
    }
    Ok(())
}

/// As users write it.
pub fn routing_name(routing: proto::Routing) -> &'static str {
    match routing {
        proto::Routing::Unspecified => "unknown",
        proto::Routing::Vxlan => "vxlan",
        proto::Routing::Geneve => "geneve",
        proto::Routing::Native => "native",
    }
}

/// As users write it.
pub fn encryption_name(encryption: proto::Encryption) -> &'static str {
    match encryption {
        proto::Encryption::Unspecified => "unknown",
        proto::Encryption::None => "none",
        proto::Encryption::Wireguard => "wireguard",
    }
}
