//! `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy` of `cilium.io/v2`: the part on layers 3 and 4.
//!
//! Source of the semantics: Cilium's documentation, "Layer 3 Policies", "Layer 4 Policies", "Deny Policies",
//! "Policy Enforcement Modes".

use super::error::Problem;
use super::field::{Field, Map, Refusal};
use super::ports;
use super::selector;
use crate::labels::{KeySyntax, LabelSelector};
use crate::names::Namespace;
use crate::policy::{CidrBlock, Direction, Entity, PortMatch};

/// `spec` and `specs` of a Cilium policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CiliumPolicy {
    /// One for `spec`, then one for each of `specs`.
    pub specs: Vec<CiliumSpec>,
}

/// One rule object, with its own selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CiliumSpec {
    /// Index in `specs`; `None` = it is `spec`.
    pub index: Option<usize>,
    /// Endpoints that it selects.
    pub endpoints: LabelSelector,
    /// What may reach them, or must not.
    pub ingress: CiliumSections,
    /// What they may reach, or must not.
    pub egress: CiliumSections,
}

/// The rules of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CiliumSections {
    /// What no rule allows is denied.
    pub default_deny: bool,
    /// Rules that allow.
    pub allow: Vec<CiliumRule>,
    /// Rules that deny; they win over all that allow.
    pub deny: Vec<CiliumRule>,
}

/// One rule: a peer and a port must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CiliumRule {
    /// Who.
    pub peers: CiliumPeers,
    /// Any of these; none at all = every protocol and port.
    pub ports: Vec<PortMatch>,
}

/// Who is meant. An empty list means nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CiliumPeers {
    /// Nothing was said of peers: everybody if ports were named, nobody otherwise (`- {}` only turns on default deny).
    Unnamed,
    /// Endpoints by their labels.
    Endpoints(Vec<LabelSelector>),
    /// Groups with a name.
    Entities(Vec<Entity>),
    /// Addresses outside the mesh.
    Cidrs(Vec<CidrBlock>),
}

/// Reads `spec` and `specs` of the document.
pub(super) fn read(document: &mut Map<'_>, namespace: Option<&Namespace>) -> Result<CiliumPolicy, Refusal> {
    let mut specs = Vec::new();
    if let Some(field) = document.optional("spec")? {
        specs.push(spec(&field, None, namespace)?);
    }
    if let Some(field) = document.optional("specs")? {
        for (index, item) in field.list()?.enumerate() {
            specs.push(spec(&item, Some(index), namespace)?);
        }
    }
    if specs.is_empty() {
        return Err(document.missing("spec", "write spec or specs with an endpointSelector"));
    }
    Ok(CiliumPolicy { specs })
}

fn spec(field: &Field<'_>, index: Option<usize>, namespace: Option<&Namespace>) -> Result<CiliumSpec, Refusal> {
    let mut map = field.map()?;
    map.unsupported(&[("nodeSelector", "policy on nodes themselves is not enforced; use endpointSelector")])?;
    let endpoints = map.required("endpointSelector", "write {} to select every endpoint of the namespace")?;
    let endpoints = selector::read_subject(&endpoints, namespace)?;
    let defaults = map.optional("enableDefaultDeny")?;
    let [mut ingress, mut egress] =
        [Direction::Ingress, Direction::Egress].map(|direction| sections(&mut map, direction));
    map.tolerate(&["description", "labels"]);
    map.finish()?;
    if let Some(defaults) = defaults {
        let mut map = defaults.map()?;
        for (name, sections) in [("ingress", &mut ingress), ("egress", &mut egress)] {
            if let (Some(field), Ok(sections)) = (map.optional(name)?, sections.as_mut()) {
                sections.default_deny = field.bool()?;
            }
        }
        map.finish()?;
    }
    Ok(CiliumSpec { index, endpoints, ingress: ingress?, egress: egress? })
}

fn sections(map: &mut Map<'_>, direction: Direction) -> Result<CiliumSections, Refusal> {
    let (allow, deny) = match direction {
        Direction::Ingress => ("ingress", "ingressDeny"),
        Direction::Egress => ("egress", "egressDeny"),
    };
    let mut read = |name| match map.optional(name)? {
        Some(field) => field.each(|item| rule(item, direction)),
        None => Ok(Vec::new()),
    };
    let (allow, deny) = (read(allow)?, read(deny)?);
    Ok(CiliumSections { default_deny: !(allow.is_empty() && deny.is_empty()), allow, deny })
}

/// Names of the fields that differ by direction.
struct Names {
    endpoints: &'static str,
    entities: &'static str,
    cidr: &'static str,
    cidr_set: &'static str,
    unsupported: &'static [(&'static str, &'static str)],
}

const REQUIRES: &str = "extra requirements are not kept; put the labels into the selectors of the rule";
const GROUPS: &str = "groups of cloud providers are not known; use CIDRs";
const NODES: &str = "nodes are not told apart by labels; use the entities host and remote-node, or CIDRs";
const AUTHENTICATION: &str = "mutual authentication of workloads is not done";

const INGRESS: Names = Names {
    endpoints: "fromEndpoints",
    entities: "fromEntities",
    cidr: "fromCIDR",
    cidr_set: "fromCIDRSet",
    unsupported: &[
        ("fromRequires", REQUIRES),
        ("fromGroups", GROUPS),
        ("fromNodes", NODES),
        ("authentication", AUTHENTICATION),
    ],
};

const EGRESS: Names = Names {
    endpoints: "toEndpoints",
    entities: "toEntities",
    cidr: "toCIDR",
    cidr_set: "toCIDRSet",
    unsupported: &[
        ("toRequires", REQUIRES),
        ("toGroups", GROUPS),
        ("toNodes", NODES),
        ("toServices", "services are not followed in policies; select the endpoints behind them with toEndpoints"),
        ("toFQDNs", "names are not resolved in policies; use toCIDR"),
        ("authentication", AUTHENTICATION),
    ],
};

fn rule(field: &Field<'_>, direction: Direction) -> Result<CiliumRule, Refusal> {
    let names = match direction {
        Direction::Ingress => &INGRESS,
        Direction::Egress => &EGRESS,
    };
    let mut map = field.map()?;
    map.unsupported(names.unsupported)?;
    let peers = peers(&mut map, names)?;
    let ports = map.optional("toPorts")?;
    let icmps = map.optional("icmps")?;
    map.finish()?;
    let ports = match (ports, icmps) {
        (Some(_), Some(icmps)) => {
            return Err(icmps.refuse(Problem::Conflict { other: "toPorts", hint: "write two rules" }));
        }
        (Some(ports), None) => ports::of_cilium(&ports)?,
        (None, Some(icmps)) => ports::of_icmps(&icmps)?,
        (None, None) => Vec::new(),
    };
    Ok(CiliumRule { peers, ports })
}

fn peers(map: &mut Map<'_>, names: &Names) -> Result<CiliumPeers, Refusal> {
    let endpoints = map.optional(names.endpoints)?;
    let entities = map.optional(names.entities)?;
    let cidr = map.optional(names.cidr)?;
    let cidr_set = map.optional(names.cidr_set)?;
    let given: Vec<(&'static str, &Field<'_>)> = [
        (names.endpoints, endpoints.as_ref()),
        (names.entities, entities.as_ref()),
        (names.cidr, cidr.as_ref()),
        (names.cidr_set, cidr_set.as_ref()),
    ]
    .into_iter()
    .filter_map(|(name, field)| field.map(|field| (name, field)))
    .collect();
    if let [(first, _), (_, second), ..] = given.as_slice() {
        return Err(second.refuse(Problem::Conflict { other: first, hint: "write two rules" }));
    }
    if let Some(field) = endpoints {
        return Ok(CiliumPeers::Endpoints(field.each(|item| selector::read(item, KeySyntax::Cilium))?));
    }
    if let Some(field) = entities {
        return Ok(CiliumPeers::Entities(field.each(|item| item.one_of(&Entity::NAMES))?));
    }
    if let Some(field) = cidr {
        let block = |item: &Field<'_>| Ok(CidrBlock { cidr: ports::prefix(item)?, except: Vec::new() });
        return Ok(CiliumPeers::Cidrs(field.each(block)?));
    }
    if let Some(field) = cidr_set {
        return Ok(CiliumPeers::Cidrs(field.each(|item| ports::cidr_block(item.map()?))?));
    }
    Ok(CiliumPeers::Unnamed)
}
