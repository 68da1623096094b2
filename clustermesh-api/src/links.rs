//! Links to other clusters: what stands against one, making it, cutting it.

use std::net::SocketAddr;
use std::time::Duration;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::cluster::conflict::{self, Side};
use fabric_core::error_code as codes;
use fabric_core::names::{ClusterName, NodeName};
use fabric_core::wire::cluster_config::DEFAULT_MAX_CLUSTERS;
use fabric_core::wire::{Form, Kind, NodeEntry};
use rustls_pki_types::CertificateDer;
use tonic::Code;

use crate::api::Api;
use crate::commit::Plan;
use crate::convert::{Offer, offer_of_record};
use crate::failure::Failure;
use crate::link_probe;
use crate::mirror::writer;
use crate::pki::{Pin, Role};
use crate::records::{self, LinkMode, LinkRecord, key};
use crate::store::{KeyRange, Transaction, View};
use crate::tls::{ALPN_H2, ClientIdentity, ServerTrust, client_config};

/// How long a cut link's rows may take to go.
const DRAIN: Duration = Duration::from_secs(20);

/// Whether a change is made, or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// Only looked at.
    Yes,
    /// Made.
    No,
}

impl From<bool> for DryRun {
    fn from(dry_run: bool) -> Self {
        if dry_run { Self::Yes } else { Self::No }
    }
}

/// Checks an offer and stores the link. The same offer again changes nothing.
///
/// # Errors
/// What stands against the link, each reason with its own code; nothing is changed then.
pub async fn put(api: &Api, offer: &Offer, dry_run: DryRun) -> Result<proto::Link, Failure> {
    check(api, &api.view, offer)?;
    let tls = client_tls(api, &offer.authority, offer.pin, &offer.cluster.name)?;
    link_probe::probe(offer.cluster.name.as_str(), &offer.mesh_endpoints, &tls).await?;
    let record = offer.to_record();
    if dry_run == DryRun::Yes {
        return Ok(to_proto(api, &record));
    }
    api.commit(|view| {
        check(api, view, offer)?;
        plan(view, &record, Transaction::new())
    })
    .await?;
    Ok(to_proto(api, &record))
}

/// The transaction that stores a link, on top of others' conditions and writes.
///
/// # Errors
/// When the record does not encode.
pub fn plan(view: &View, record: &LinkRecord, transaction: Transaction) -> Result<Plan<()>, Failure> {
    let link_key = key::link(&record.cluster.name);
    let value = records::encode(record)?;
    let transaction = match view.get(link_key.as_bytes()) {
        Some(kv) if kv.value == value && transaction.is_empty() => return Ok(Plan::nothing(())),
        Some(kv) => transaction.unchanged(link_key.clone(), kv.mod_revision),
        None => transaction.absent(link_key.clone()),
    };
    Ok(Plan { transaction: transaction.put(link_key, value), value: () })
}

/// What our side looks like to the collision check.
fn own_side(api: &Api, view: &View) -> Side {
    let range = KeyRange::prefix(Kind::Nodes.rows_prefix(Form::State, &api.cluster.name));
    let nodes = view
        .list(&range)
        .kvs
        .iter()
        .filter_map(|kv| NodeEntry::decode(&kv.value).ok())
        .flat_map(|node| {
            let name: NodeName = node.name.clone();
            node.underlay_addresses().map(|address| (name.clone(), address)).collect::<Vec<_>>()
        })
        .collect();
    let endpoints = view.list(&KeyRange::prefix(key::ENDPOINTS)).kvs.len();
    Side { spec: api.cluster.clone(), nodes, endpoints: u32::try_from(endpoints).unwrap_or(u32::MAX) }
}

/// Everything that can be said without asking the other side.
///
/// # Errors
/// The worst that stands against the link.
pub fn check(api: &Api, view: &View, offer: &Offer) -> Result<(), Failure> {
    let name = &offer.cluster.name;
    if offer.pin == api.authority.pin() {
        let message = format_args!("the offer is cluster {}'s own", api.cluster.name);
        return Err(Failure::refused(codes::CANNOT_CONNECT_SELF, message));
    }
    if offer.max_connected_clusters != 0 && offer.max_connected_clusters != DEFAULT_MAX_CLUSTERS {
        let message = format_args!(
            "cluster {name} is of a mesh of up to {} clusters, {} of one of up to {DEFAULT_MAX_CLUSTERS}",
            offer.max_connected_clusters, api.cluster.name
        );
        return Err(Failure::refused(codes::MESH_SIZE_MISMATCH, message));
    }
    if offer.mesh_endpoints.is_empty() {
        return Err(Failure::invalid(format_args!("cluster {name} offers no address of its mesh endpoint")));
    }
    let theirs = Side { spec: offer.cluster.clone(), nodes: Vec::new(), endpoints: u32::MAX };
    collide(&own_side(api, view), &theirs)?;
    for link in records::read_all::<LinkRecord>(view, key::LINKS) {
        let known = link.value;
        if known.cluster.name == *name {
            same_cluster(&known, offer)?;
            continue;
        }
        if known.pin == offer.pin.to_string() {
            let message = format_args!("cluster {name} has the authority of the linked cluster {}", known.cluster.name);
            return Err(Failure::refused(codes::WRONG_AUTHORITY, message));
        }
        let third = Side { spec: known.cluster, nodes: Vec::new(), endpoints: u32::MAX };
        collide(&third, &theirs)?;
    }
    Ok(())
}

fn collide(first: &Side, second: &Side) -> Result<(), Failure> {
    match conflict::check(first, second).into_iter().next() {
        None => Ok(()),
        Some(conflict) => {
            let message = format!("{}; to cure it: {}", conflict.what(), conflict.fix());
            Err(Failure::refused(conflict.code(), message))
        }
    }
}

/// A cluster that is linked already may move, not become another.
fn same_cluster(known: &LinkRecord, offer: &Offer) -> Result<(), Failure> {
    let name = &offer.cluster.name;
    if known.pin != offer.pin.to_string() {
        let message = format_args!(
            "cluster {name} is pinned to another authority; if it was made anew: fabric disconnect {name} --release"
        );
        return Err(Failure::refused(codes::WRONG_AUTHORITY, message));
    }
    if known.mode == LinkMode::Active && known.cluster.id != offer.cluster.id {
        let message =
            format_args!("cluster {name} is linked with id {}, the offer says {}", known.cluster.id, offer.cluster.id);
        return Err(Failure::refused(codes::SAME_CLUSTER_NAME, message));
    }
    Ok(())
}

/// TLS of a client of another cluster's mesh endpoint: its authority pinned, our own leaf shown.
///
/// # Errors
/// When our leaf does not fit.
pub fn client_tls(
    api: &Api,
    authority: &CertificateDer<'static>,
    pin: Pin,
    cluster: &ClusterName,
) -> Result<std::sync::Arc<rustls::ClientConfig>, Failure> {
    let trust =
        ServerTrust { pin, authority: Some(authority.clone()), role: Some(Role::Api), cluster: Some(cluster.clone()) };
    let leaf = api.leaf.load();
    client_config(&trust, &ClientIdentity::Leaf(&leaf), &[ALPN_H2]).map_err(Failure::internal)
}

/// Cuts a link: first the drop of its prefixes, then its rows. `release` lifts the drop afterwards.
///
/// # Errors
/// When there is no such link, the store does not take it, or rows do not go in time.
pub async fn delete(api: &Api, cluster: &ClusterName, release: bool) -> Result<(), Failure> {
    let link_key = key::link(cluster);
    let mode = if release { LinkMode::Released } else { LinkMode::Blocked };
    api.commit(|view| {
        let Some(stored) = records::read::<LinkRecord>(view, &link_key)? else {
            return Err(Failure::not_found(format_args!("there is no link to cluster {cluster}")));
        };
        if stored.value.mode == mode {
            return Ok(Plan::nothing(()));
        }
        let record = LinkRecord { mode, ..stored.value };
        let transaction = Transaction::new()
            .unchanged(link_key.clone(), stored.mod_revision)
            .put(link_key.clone(), records::encode(&record)?);
        Ok(Plan { transaction, value: () })
    })
    .await?;
    // The mirrors' keeper does the rest, also when this call ends early.
    let gone = async {
        let mut changes = api.view.status_changes();
        while !is_drained(&api.view, cluster, release) {
            if changes.changed().await.is_err() {
                break;
            }
        }
    };
    if tokio::time::timeout(DRAIN, gone).await.is_err() {
        let message =
            format_args!("cluster {cluster} is cut off, but its rows are not all gone after {} s", DRAIN.as_secs());
        return Err(Failure::new(codes::STORE_UNAVAILABLE, Code::DeadlineExceeded, message));
    }
    Ok(())
}

fn is_drained(view: &View, cluster: &ClusterName, release: bool) -> bool {
    let record = view.get(key::link(cluster).as_bytes());
    (!release || record.is_none()) && writer::ranges_of(cluster).iter().all(|range| view.list(range).kvs.is_empty())
}

/// All links, as seen from here.
pub fn list(api: &Api) -> Vec<proto::Link> {
    let mut links: Vec<proto::Link> = records::read_all::<LinkRecord>(&api.view, key::LINKS)
        .into_iter()
        .map(|link| to_proto(api, &link.value))
        .collect();
    links.sort_by_key(|link| link.peer.as_ref().and_then(|peer| Some(peer.cluster.as_ref()?.name.clone())));
    links
}

/// One link, as seen from here.
pub fn to_proto(api: &Api, record: &LinkRecord) -> proto::Link {
    let name = &record.cluster.name;
    let report = api.links.get(name);
    let count = |kind: Kind| {
        let range = KeyRange::prefix(kind.rows_prefix(Form::Cache, name));
        u32::try_from(api.view.list(&range).kvs.len()).unwrap_or(u32::MAX)
    };
    let (state, detail) = match record.mode {
        LinkMode::Active => (report.state, report.detail),
        LinkMode::Blocked | LinkMode::Released => {
            (proto::LinkState::Blocked, "disconnected; its prefixes are dropped".to_owned())
        }
    };
    proto::Link {
        peer: Some(offer_of_record(record)),
        pin: record.pin.clone(),
        state: state.into(),
        detail,
        sync_age_ms: report.heard.map_or(-1, |at| i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)),
        nodes: count(Kind::Nodes),
        endpoints: count(Kind::Ip),
        identities: count(Kind::Identities),
        services: count(Kind::Services),
        refusals: report.refusals.to_proto(),
    }
}

/// Addresses of a record, those that parse.
pub fn mesh_addresses(record: &LinkRecord) -> Vec<SocketAddr> {
    record.mesh_endpoints.iter().filter_map(|text| text.parse().ok()).collect()
}
