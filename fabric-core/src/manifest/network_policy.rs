//! `NetworkPolicy` of `networking.k8s.io/v1`.
//!
//! Source of the semantics: Kubernetes, "Network Policies", and the API reference of NetworkPolicySpec.

use super::error::Problem;
use super::field::{Field, Refusal};
use super::ports;
use super::selector;
use crate::labels::{KeySyntax, LabelSelector};
use crate::policy::{CidrBlock, PortMatch};

/// `spec` of a NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Endpoints of the policy's namespace that it selects.
    pub pods: LabelSelector,
    /// What may reach them; `None` = the policy does not speak of ingress.
    pub ingress: Option<Vec<NetworkPolicyRule>>,
    /// What they may reach; `None` = the policy does not speak of egress.
    pub egress: Option<Vec<NetworkPolicyRule>>,
}

/// One rule: a peer and a port must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicyRule {
    /// Any of these; none at all = every peer.
    pub peers: Vec<NetworkPolicyPeer>,
    /// Any of these; none at all = every protocol and port.
    pub ports: Vec<PortMatch>,
}

/// Who is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkPolicyPeer {
    /// Endpoints of the own cluster. Without `namespaces` those of the policy's namespace.
    Pods {
        /// Which namespaces, by their labels.
        namespaces: Option<LabelSelector>,
        /// Which endpoints in them; `None` = all.
        pods: Option<LabelSelector>,
    },
    /// Addresses outside the mesh.
    Block(CidrBlock),
}

/// Reads `spec`.
pub(super) fn read(field: &Field<'_>) -> Result<NetworkPolicy, Refusal> {
    let mut map = field.map()?;
    let pods = map.required("podSelector", "write {} to select every pod of the namespace")?;
    let pods = selector::read(&pods, KeySyntax::Kubernetes)?;
    let types = match map.optional("policyTypes")? {
        Some(field) => field.each(|item| item.one_of(&[("Ingress", true), ("Egress", false)]))?,
        None => Vec::new(),
    };
    let ingress = map.optional("ingress")?.map(|field| field.each(|item| rule(item, "from"))).transpose()?;
    let egress = map.optional("egress")?.map(|field| field.each(|item| rule(item, "to"))).transpose()?;
    map.finish()?;
    // Without policyTypes: ingress always, egress if there are rules for it (API reference, policyTypes).
    let egress_counts = egress.as_ref().is_some_and(|rules| !rules.is_empty());
    let speaks_of_ingress = types.is_empty() || types.contains(&true);
    let speaks_of_egress = if types.is_empty() { egress_counts } else { types.contains(&false) };
    Ok(NetworkPolicy {
        pods,
        ingress: speaks_of_ingress.then(|| ingress.unwrap_or_default()),
        egress: speaks_of_egress.then(|| egress.unwrap_or_default()),
    })
}

fn rule(field: &Field<'_>, peers: &'static str) -> Result<NetworkPolicyRule, Refusal> {
    let mut map = field.map()?;
    let peers = map.optional(peers)?.map(|field| field.each(peer)).transpose()?;
    let ports = map.optional("ports")?.map(|field| ports::of_network_policy(&field)).transpose()?;
    map.finish()?;
    Ok(NetworkPolicyRule { peers: peers.unwrap_or_default(), ports: ports.unwrap_or_default() })
}

fn peer(field: &Field<'_>) -> Result<NetworkPolicyPeer, Refusal> {
    let mut map = field.map()?;
    let block = map.optional("ipBlock")?;
    let pods = map.optional("podSelector")?;
    let namespaces = map.optional("namespaceSelector")?;
    map.finish()?;
    match (block, pods, namespaces) {
        (Some(block), None, None) => Ok(NetworkPolicyPeer::Block(ports::cidr_block(block.map()?)?)),
        (Some(block), _, _) => {
            Err(block.refuse(Problem::Conflict { other: "podSelector or namespaceSelector", hint: "write two peers" }))
        }
        (None, None, None) => Err(field.refuse(Problem::Missing {
            hint: "name podSelector, namespaceSelector or ipBlock; to mean everybody, leave the whole list out",
        })),
        (None, pods, namespaces) => {
            let read = |field: Field<'_>| selector::read(&field, KeySyntax::Kubernetes);
            Ok(NetworkPolicyPeer::Pods {
                namespaces: namespaces.map(read).transpose()?,
                pods: pods.map(read).transpose()?,
            })
        }
    }
}
