//! A node or machine says who and where it is; the cluster gives it its ranges.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::admission::member::{MemberGrant, Scope, Workload};
use fabric_core::admission::{NodeRef, Reason, Refusal};
use fabric_core::cluster::{Encryption, allot};
use fabric_core::error_code as codes;
use fabric_core::ids::Mtu;
use fabric_core::key::WireguardPublicKey;
use fabric_core::names::{Namespace, NodeName};
use fabric_core::prefix::Prefix;
use fabric_core::token::MemberKind;
use fabric_core::wire::node::{AddressKind, NodeAddress};
use fabric_core::wire::{Form, Key, Kind, NodeEntry, RowKey};
use tonic::Code;

use super::{Member, address, endpoint};
use crate::api::Api;
use crate::commit::Plan;
use crate::failure::Failure;
use crate::mirror::admit::node_claim;
use crate::records::{self, NodeRecord, key};
use crate::store::{KeyRange, Transaction, View};

/// An agent that was not heard for so long does not run.
const SILENT: Duration = Duration::from_mins(1);
/// Longest of the short texts that a node says of itself.
const TEXT_BYTES: usize = 128;

/// What a node says of itself, checked.
#[derive(Debug, Clone)]
struct Claim {
    addresses: Vec<IpAddr>,
    wireguard: Option<WireguardPublicKey>,
    mtu: Option<Mtu>,
    observer_address: String,
    agent_version: String,
}

/// Publishes the caller's node and allots what it lacks.
///
/// # Errors
/// When the claim is not allowed, nothing is left to allot, or the store does not take it.
pub async fn register(
    api: &Api,
    member: &Member,
    request: &proto::RegisterNodeRequest,
) -> Result<proto::RegisterNodeResponse, Failure> {
    let node = request.node.as_ref().ok_or_else(|| Failure::invalid("node is missing"))?;
    let claim = check(api, member, node).inspect_err(|refusal| {
        api.refusals.count(member.name.as_str(), "node", format_args!("node {}: {}", member.name, refusal.message()));
    })?;
    let done = api.commit(|view| plan(api, view, member, &claim)).await?;
    let (record, entry) = done.value;
    if done.changed {
        endpoint::rewrite_hosts(api, &member.name).await?;
    }
    Ok(response(api, &record, &entry))
}

fn check(api: &Api, member: &Member, node: &proto::Node) -> Result<Claim, Failure> {
    if !node.name.is_empty() && node.name != member.name.as_str() {
        let message = format_args!("the certificate is node {}'s, not {}'s", member.name, node.name);
        return Err(Failure::forbidden(message));
    }
    let addresses = address::parse_list("node address", &node.addresses)?;
    if addresses.is_empty() {
        return Err(Failure::invalid(format_args!("node {} has no address", member.name)));
    }
    address::outside_mesh(&api.view, &api.cluster, member.name.as_str(), &addresses)?;
    let wireguard = match &node.wireguard_public_key[..] {
        [] => None,
        key => Some(WireguardPublicKey::from_slice(key).map_err(Failure::invalid)?),
    };
    if api.cluster.encryption == Encryption::Wireguard && wireguard.is_none() {
        return Err(Failure::invalid(format_args!(
            "node {} has no WireGuard key, but the cluster encrypts",
            member.name
        )));
    }
    let mtu = match node.underlay_mtu {
        0 => None,
        mtu => Some(Mtu::new(mtu).map_err(Failure::invalid)?),
    };
    for text in [&node.observer_address, &node.agent_version] {
        if text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
            return Err(Failure::invalid("observer address and agent version must be short texts"));
        }
    }
    Ok(Claim {
        addresses,
        wireguard,
        mtu,
        observer_address: node.observer_address.clone(),
        agent_version: node.agent_version.clone(),
    })
}

fn plan(api: &Api, view: &View, member: &Member, claim: &Claim) -> Result<Plan<(NodeRecord, NodeEntry)>, Failure> {
    let node_key = key::node(&member.name);
    let stored = member.record(view)?;
    let mut transaction = match &stored {
        Some(stored) => Transaction::new().unchanged(node_key.clone(), stored.mod_revision),
        None => Transaction::new().absent(node_key.clone()),
    };
    let mut record = match &stored {
        Some(stored) => stored.value.clone(),
        // The first node's certificate was issued before there was a store: this is its first word.
        None => NodeRecord::new(member.kind, member.key.to_string()),
    };
    record.observer_address.clone_from(&claim.observer_address);
    record.agent_version.clone_from(&claim.agent_version);
    if record.ranges.is_empty() {
        transaction = allot(api, view, member, &mut record, transaction)?;
    }
    let entry = entry(api, member, claim, &record);
    for key in take_claims(api, member, &record, &entry)? {
        transaction = transaction.delete(key);
    }
    let wire_key = Key::row(Form::State, &api.cluster.name, RowKey::Node(member.name.clone())).to_string();
    let bytes = entry.encode();
    if view.get(wire_key.as_bytes()).is_none_or(|kv| kv.value != bytes) {
        transaction = transaction.put(wire_key, bytes);
    }
    if stored.is_none_or(|stored| stored.value != record) {
        transaction = transaction.put(node_key, records::encode(&record)?);
    }
    Ok(Plan { transaction, value: (record, entry) })
}

/// Picks free ranges or addresses and claims them: of two that picked the same, one succeeds.
fn allot(
    api: &Api,
    view: &View,
    member: &Member,
    record: &mut NodeRecord,
    transaction: Transaction,
) -> Result<Transaction, Failure> {
    let claims = view.list(&KeyRange::prefix(key::CLAIMS)).kvs;
    let taken: BTreeSet<Prefix> = claims
        .iter()
        .filter_map(|kv| std::str::from_utf8(&kv.key).ok()?.strip_prefix(key::CLAIMS)?.parse().ok())
        .collect();
    let exhausted = |error| {
        Failure::new(
            codes::NO_ADDRESSES_LEFT,
            Code::ResourceExhausted,
            format_args!("cluster {}: {error}", api.cluster.name),
        )
    };
    match record.kind {
        MemberKind::Node => {
            let allotment = allot::node(&api.cluster, &taken).map_err(exhausted)?;
            record.ranges = allotment.ranges;
            record.overlay_addresses = allotment.overlay_addresses;
        }
        MemberKind::Machine => {
            let taken = taken.iter().filter(|prefix| prefix.is_host()).map(Prefix::address).collect();
            let addresses = allot::machine(&api.cluster, &taken).map_err(exhausted)?;
            record.ranges = addresses.into_iter().map(Prefix::host).collect();
        }
    }
    let name = records::encode(&member.name)?;
    Ok(record.ranges.iter().fold(transaction, |transaction, range| {
        transaction.absent(key::claim(range)).put(key::claim(range), name.clone())
    }))
}

fn entry(api: &Api, member: &Member, claim: &Claim, record: &NodeRecord) -> NodeEntry {
    let mut entry = NodeEntry::new(api.cluster.name.clone(), api.cluster.id, member.name.clone());
    let underlay = claim.addresses.iter().map(|address| (AddressKind::InternalIp, address));
    let overlay = record.overlay_addresses.iter().map(|address| (AddressKind::CiliumInternalIp, address));
    entry.addresses = underlay.chain(overlay).map(|(kind, address)| NodeAddress { kind, address: *address }).collect();
    // A machine's addresses are entries of their own; as ranges they would stand for "anything behind this node".
    if record.kind == MemberKind::Node {
        entry.set_ranges(record.ranges.iter().copied());
    }
    entry.set_machine(record.kind == MemberKind::Machine);
    entry.set_underlay_mtu(claim.mtu);
    entry.encryption_key = endpoint::key_index(api.cluster.encryption);
    entry.wireguard_public_key = claim.wireguard;
    entry
}

/// Takes addresses and key for this node. Our own nodes come before other clusters'; of our own the one that was there
/// first, unless it has been silent: then the machine was probably replaced. Returns the keys of entries that give way.
fn take_claims(api: &Api, member: &Member, record: &NodeRecord, entry: &NodeEntry) -> Result<Vec<String>, Failure> {
    let scope = match record.kind {
        MemberKind::Node => Scope::Node { ranges: record.ranges.clone() },
        MemberKind::Machine => Scope::Machine(Workload {
            namespace: Namespace::default_namespace(),
            name: crate::convert::object_name(member.name.as_str())?,
            labels: Vec::new(),
            addresses: record.ranges.iter().map(Prefix::address).collect(),
        }),
    };
    let (cluster, name) = (api.cluster.name.clone(), member.name.clone());
    let grant = MemberGrant { cluster: cluster.clone(), cluster_id: api.cluster.id, name: name.clone(), scope };
    let owned = api.owned.load();
    let (addresses, key) = node_claim(entry);
    let mut claims = api.claims.lock().unwrap_or_else(PoisonError::into_inner);
    let mut displaced = BTreeSet::new();
    let own = NodeRef { cluster, name };
    for holder in addresses.iter().filter_map(|address| claims.holder(*address).cloned()).collect::<BTreeSet<_>>() {
        if holder.cluster == own.cluster && holder != own && is_silent(api, &holder.name) {
            claims.release(&holder);
            displaced.insert(holder);
        }
    }
    grant.admit_node(entry, &owned, &claims).map_err(|refusal| refused(&refusal))?;
    displaced.extend(claims.claim_own(&own, addresses, key).map_err(|refusal| refused(&refusal))?);
    drop(claims);
    let key_of = |node: &NodeRef| {
        let form = if node.cluster == own.cluster { Form::State } else { Form::Cache };
        tracing::warn!(node = %own, other = %node, "a node's address or key is another's now");
        Key::row(form, &node.cluster, RowKey::Node(node.name.clone())).to_string()
    };
    Ok(displaced.iter().map(key_of).collect())
}

fn refused(refusal: &Refusal) -> Failure {
    let code = match refusal.reason {
        Reason::NodeAddressTaken => codes::SAME_NODE_ADDRESS,
        Reason::NodeAddress => codes::NODE_INSIDE_PREFIX,
        reason => reason.error_code(),
    };
    Failure::refused(code, refusal)
}

fn is_silent(api: &Api, node: &NodeName) -> bool {
    let heard = api.nodes.get(node.as_str()).map(|report| report.heard);
    heard.and_then(|heard| heard.elapsed().ok()).is_none_or(|since| since > SILENT)
}

/// Remembers what nodes hold that were published before this process began: our own first, then the earlier claim.
pub fn remember_claims(api: &Api) {
    let own = KeyRange::prefix(Kind::Nodes.rows_prefix(Form::State, &api.cluster.name));
    let others = KeyRange::prefix(format!("{}/", Kind::Nodes.base(Form::Cache)));
    let mut claims = api.claims.lock().unwrap_or_else(PoisonError::into_inner);
    for range in [own, others] {
        let mut kvs = api.view.list(&range).kvs;
        kvs.sort_by_key(|kv| kv.create_revision);
        for entry in kvs.iter().filter_map(|kv| NodeEntry::decode(&kv.value).ok()) {
            let (addresses, key) = node_claim(&entry);
            let node = NodeRef { cluster: entry.cluster.clone(), name: entry.name.clone() };
            if let Err(refusal) = claims.claim(&node, addresses, key) {
                tracing::debug!(%node, %refusal, "an earlier claim stands");
            }
        }
    }
}

fn response(api: &Api, record: &NodeRecord, entry: &NodeEntry) -> proto::RegisterNodeResponse {
    let node = proto::Node {
        ranges: record.ranges.iter().map(ToString::to_string).collect(),
        observer_address: record.observer_address.clone(),
        agent_version: record.agent_version.clone(),
        ..crate::sync_server::rows::node_row(entry)
    };
    let machine = record.grant.as_ref().map(|grant| proto::MachineGrant {
        kubernetes_namespace: grant.namespace.to_string(),
        name: grant.name.clone(),
        labels: grant.labels.clone(),
        addresses: record.ranges.iter().map(|range| range.address().to_string()).collect(),
    });
    let cluster = proto::Cluster { local: true, ..crate::convert::cluster_to_proto(&api.cluster) };
    proto::RegisterNodeResponse {
        node: Some(node),
        cluster: Some(cluster),
        machine,
        api_endpoints: api.api_endpoints(),
    }
}

/// The name of a node that may be given away: nobody has it.
///
/// # Errors
/// When somebody does.
pub fn free_name(view: &View, name: &NodeName) -> Result<(), Failure> {
    if view.get(key::node(name).as_bytes()).is_none() {
        return Ok(());
    }
    let message = format_args!("node {name} exists already; choose another name, or: fabric node revoke {name}");
    Err(Failure::new(codes::NAME_TAKEN, Code::AlreadyExists, message))
}
