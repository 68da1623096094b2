//! Endpoints: labels become an identity, addresses become entries that every cluster may read.
//!
//! The identity is written before the address. An address that had another identity is withdrawn before it gets the new
//! one, so that nobody sees the new owner under the old name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::admission::member::MAX_ENDPOINTS;
use fabric_core::cluster::{ClusterSpec, Encryption};
use fabric_core::error_code as codes;
use fabric_core::ids::{Identity, KeyIndex};
use fabric_core::labels::{LabelSet, user};
use fabric_core::names::{Namespace, NodeName};
use fabric_core::prefix::Prefix;
use fabric_core::wire::ip::NamedPort;
use fabric_core::wire::{Form, IpEntry, Key, NodeEntry, RowKey};

use super::{Member, address, identity};
use crate::api::Api;
use crate::commit::Plan;
use crate::failure::Failure;
use crate::records::{self, EndpointRecord, MachineGrant, NodeRecord, Stored, key};
use crate::store::{KeyRange, Transaction, View};

/// Longest name of an endpoint, bytes.
const NAME_BYTES: usize = 512;
/// Longest name of a workload, bytes.
const WORKLOAD_BYTES: usize = 253;
/// Most named ports.
const MOST_PORTS: usize = 64;

/// What a node asks for, checked.
#[derive(Debug, Clone)]
struct Request {
    name: String,
    namespace: Namespace,
    labels: LabelSet,
    addresses: Vec<IpAddr>,
    workload: String,
    named_ports: BTreeMap<String, u16>,
}

/// What a node gets.
#[derive(Debug)]
pub struct Published {
    /// The endpoint's identity.
    pub id: Identity,
    /// Its labels.
    pub labels: LabelSet,
    /// The revision that holds it.
    pub revision: i64,
}

/// Publishes an endpoint of the caller's node, or changes it.
///
/// # Errors
/// When the request is not allowed, or the store does not take it.
pub async fn put(api: &Api, member: &Member, request: &proto::PutEndpointRequest) -> Result<Published, Failure> {
    let record = member.registered(&api.view)?;
    let request = check(api, &record.value, request).inspect_err(|refusal| refuse(api, member, refusal))?;
    loop {
        let labels = &request.labels;
        let id = api.commit(|view| identity::plan(view, &api.cluster, labels)).await?.value;
        let step = api.commit(|view| plan(api, view, member, &request, id)).await?;
        match step.value {
            Step::Done => return Ok(Published { id, labels: request.labels, revision: step.revision }),
            // Something stood in the way and is gone now, or the identity went between the two writes.
            Step::Again => {}
        }
    }
}

fn refuse(api: &Api, member: &Member, refusal: &Failure) {
    api.refusals.count(member.name.as_str(), "endpoint", format_args!("node {}: {}", member.name, refusal.message()));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Again,
}

fn check(api: &Api, node: &NodeRecord, request: &proto::PutEndpointRequest) -> Result<Request, Failure> {
    check_text("endpoint name", &request.name, NAME_BYTES)?;
    let workload = if request.workload.is_empty() { request.name.clone() } else { request.workload.clone() };
    check_text("workload name", &workload, WORKLOAD_BYTES.max(request.name.len()))?;
    let mut namespace = crate::convert::namespace(&request.kubernetes_namespace)?;
    let mut texts = request.labels.clone();
    if let Some(grant) = &node.grant {
        (namespace, texts) = granted(grant, request)?;
    }
    let own = user::parse_list(texts.iter().map(String::as_str)).map_err(Failure::invalid)?;
    let labels = LabelSet::of_endpoint(own, &namespace, &api.cluster.name).map_err(Failure::invalid)?;
    let addresses = address::parse_list("endpoint address", &request.addresses)?;
    if addresses.is_empty() {
        return Err(Failure::invalid("endpoint has no address"));
    }
    for address in &addresses {
        let own = |range: &Prefix| range.address() == *address || node.overlay_addresses.contains(address);
        let taken = node.grant.is_none() && node.ranges.iter().any(own);
        if taken || !node.ranges.iter().any(|range| range.contains(*address)) {
            let ranges: Vec<String> = node.ranges.iter().map(ToString::to_string).collect();
            let message =
                format_args!("endpoint address {address} is not one of {} that the node may give", ranges.join(", "));
            return Err(Failure::refused(codes::CLAIM_REFUSED, message));
        }
    }
    Ok(Request {
        name: request.name.clone(),
        namespace,
        labels,
        addresses,
        workload,
        named_ports: named_ports(&request.named_ports)?,
    })
}

/// A machine is the workload that its token made it, nothing else.
fn granted(grant: &MachineGrant, request: &proto::PutEndpointRequest) -> Result<(Namespace, Vec<String>), Failure> {
    let asked: BTreeSet<&str> = request.labels.iter().map(String::as_str).collect();
    let given: BTreeSet<&str> = grant.labels.iter().map(String::as_str).collect();
    if !asked.is_empty() && asked != given {
        let message = format_args!("labels of a machine are fixed by its token: {}", grant.labels.join(", "));
        return Err(Failure::refused(codes::CLAIM_REFUSED, message));
    }
    Ok((grant.namespace.clone(), grant.labels.clone()))
}

fn check_text(what: &str, text: &str, most: usize) -> Result<(), Failure> {
    if text.is_empty() || text.len() > most || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Failure::invalid(format_args!("{what} must have 1 to {most} characters without spaces")));
    }
    Ok(())
}

fn named_ports(ports: &std::collections::HashMap<String, u32>) -> Result<BTreeMap<String, u16>, Failure> {
    if ports.len() > MOST_PORTS {
        return Err(Failure::invalid(format_args!("{} named ports, at most {MOST_PORTS} are allowed", ports.len())));
    }
    let check = |(name, port): (&String, &u32)| {
        check_text("port name", name, 63)?;
        let port = u16::try_from(*port).ok().filter(|port| *port != 0);
        Ok((name.clone(), port.ok_or_else(|| Failure::invalid(format_args!("port {name} is not 1 to 65535")))?))
    };
    ports.iter().map(check).collect()
}

fn plan(api: &Api, view: &View, member: &Member, request: &Request, id: Identity) -> Result<Plan<Step>, Failure> {
    let node = member.registered(view)?;
    let label_key = key::identity_labels(&request.labels);
    let Some(label_kv) = view.get(label_key.as_bytes()) else { return Ok(Plan::nothing(Step::Again)) };
    let own = Own { node: &member.name, request };
    let fence =
        Transaction::new().unchanged(node.key.clone(), node.mod_revision).unchanged(label_key, label_kv.mod_revision);
    if let Some(transaction) = make_room(api, view, &own, id, fence.clone()) {
        return Ok(Plan { transaction, value: Step::Again });
    }
    let record = EndpointRecord {
        identity: id,
        labels: request.labels.to_wire(),
        addresses: request.addresses.clone(),
        namespace: request.namespace.clone(),
        workload: request.workload.clone(),
        named_ports: request.named_ports.clone(),
    };
    let host = host_of(view, &api.cluster, &member.name)?;
    let endpoint_key = key::endpoint(&member.name, &request.name);
    let old = view.get(endpoint_key.as_bytes());
    let present = view.list(&KeyRange::prefix(key::endpoints_of(&member.name))).kvs.len();
    if old.is_none() && present >= MAX_ENDPOINTS {
        let message = format_args!("node {} has {present} endpoints, no more are allowed", member.name);
        return Err(Failure::refused(codes::CLAIM_REFUSED, message));
    }
    let mut transaction = fence;
    let writes = std::iter::once((endpoint_key.clone(), records::encode(&record)?))
        .chain(request.addresses.iter().map(|address| entry(api, &record, *address, host)));
    for (key, value) in writes {
        if view.get(key.as_bytes()).is_none_or(|kv| kv.value != value) {
            transaction = transaction.put(key, value);
        }
    }
    let old = old.and_then(|kv| records::decode::<EndpointRecord>(&kv).ok());
    let gone = old.map(|old| old.value.addresses).unwrap_or_default();
    for address in gone.into_iter().filter(|address| !request.addresses.contains(address)) {
        transaction = transaction.delete(ip_key(api, address));
    }
    if transaction.is_empty() { Ok(Plan::nothing(Step::Done)) } else { Ok(Plan { transaction, value: Step::Done }) }
}

/// An endpoint that a node publishes.
struct Own<'a> {
    node: &'a NodeName,
    request: &'a Request,
}

/// Takes an address away from who had it before, and an entry with another identity out of sight.
fn make_room(api: &Api, view: &View, own: &Own<'_>, id: Identity, mut transaction: Transaction) -> Option<Transaction> {
    let Own { node, request } = own;
    let own_key = key::endpoint(node, &request.name);
    for other in records::read_all::<EndpointRecord>(view, &key::endpoints_of(node)) {
        let shared = other.value.addresses.iter().any(|address| request.addresses.contains(address));
        if other.key == own_key || !shared {
            continue;
        }
        // The node gave the address to somebody new: the old endpoint is gone, whatever else it had with it.
        transaction = transaction.unchanged(other.key.clone(), other.mod_revision).delete(other.key.clone());
        for address in other.value.addresses {
            transaction = transaction.delete(ip_key(api, address));
        }
    }
    if transaction.is_empty() {
        for address in &request.addresses {
            let key = ip_key(api, *address);
            let Some(kv) = view.get(key.as_bytes()) else { continue };
            if IpEntry::decode(&kv.value).is_ok_and(|entry| entry.identity == id) {
                continue;
            }
            transaction = transaction.delete(key);
        }
    }
    (!transaction.is_empty()).then_some(transaction)
}

/// The key under which everybody reads an address.
pub fn ip_key(api: &Api, address: IpAddr) -> String {
    Key::row(Form::State, &api.cluster.name, RowKey::Ip(Prefix::host(address))).to_string()
}

/// The key index of everything of this cluster.
pub fn key_index(encryption: Encryption) -> KeyIndex {
    match encryption {
        Encryption::None => KeyIndex::NONE,
        Encryption::Wireguard => KeyIndex::WIREGUARD,
    }
}

fn entry(api: &Api, record: &EndpointRecord, address: IpAddr, host: IpAddr) -> (String, Vec<u8>) {
    let named_ports = record
        .named_ports
        .iter()
        .map(|(name, port)| NamedPort { name: name.clone(), port: *port, protocol: "TCP".to_owned() })
        .collect();
    let entry = IpEntry {
        namespace: record.namespace.to_string(),
        name: record.workload.clone(),
        named_ports,
        ..IpEntry::new(Prefix::host(address), record.identity, Some(host), key_index(api.cluster.encryption))
    };
    (ip_key(api, address), entry.encode())
}

fn host_of(view: &View, cluster: &ClusterSpec, node: &NodeName) -> Result<IpAddr, Failure> {
    let key = Key::row(Form::State, &cluster.name, RowKey::Node(node.clone())).to_string();
    let entry = view.get(key.as_bytes()).and_then(|kv| NodeEntry::decode(&kv.value).ok());
    entry
        .and_then(|entry| entry.underlay_address(true).or_else(|| entry.underlay_address(false)))
        .ok_or_else(|| Failure::refused(codes::NOT_FOUND, format_args!("node {node} has not registered yet")))
}

/// Withdraws an endpoint; one that is not there does no harm.
///
/// # Errors
/// The store's.
pub async fn delete(api: &Api, member: &Member, name: &str) -> Result<(), Failure> {
    check_text("endpoint name", name, NAME_BYTES)?;
    let endpoint_key = key::endpoint(&member.name, name);
    api.commit(|view| {
        let Some(kv) = view.get(endpoint_key.as_bytes()) else { return Ok(Plan::nothing(())) };
        let transaction = Transaction::new().unchanged(endpoint_key.clone(), kv.mod_revision);
        Ok(Plan { transaction: without(api, &endpoint_key, records::decode(&kv).ok(), transaction), value: () })
    })
    .await?;
    Ok(())
}

/// The transaction with the deletion of an endpoint and its addresses.
pub fn without(
    api: &Api,
    endpoint_key: &str,
    record: Option<Stored<EndpointRecord>>,
    transaction: Transaction,
) -> Transaction {
    let addresses = record.map(|record| record.value.addresses).unwrap_or_default();
    addresses
        .into_iter()
        .fold(transaction, |transaction, address| transaction.delete(ip_key(api, address)))
        .delete(endpoint_key.to_owned())
}

/// Rewrites the entries of a node whose own address changed.
///
/// # Errors
/// The store's.
pub async fn rewrite_hosts(api: &Api, node: &NodeName) -> Result<(), Failure> {
    let prefix = key::endpoints_of(node);
    let endpoints = api.view.list(&KeyRange::prefix(prefix)).kvs;
    for kv in endpoints {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        api.commit(|view| {
            let Some(kv) = view.get(key.as_bytes()) else { return Ok(Plan::nothing(())) };
            let Ok(record) = records::decode::<EndpointRecord>(&kv) else { return Ok(Plan::nothing(())) };
            let host = host_of(view, &api.cluster, node)?;
            let mut transaction = Transaction::new().unchanged(key.clone(), kv.mod_revision);
            for address in record.value.addresses.clone() {
                let (key, value) = entry(api, &record.value, address, host);
                if view.get(key.as_bytes()).is_none_or(|kv| kv.value != value) {
                    transaction = transaction.put(key, value);
                }
            }
            Ok(Plan { transaction, value: () })
        })
        .await?;
    }
    Ok(())
}
