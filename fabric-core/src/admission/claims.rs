//! Which node claimed an underlay address or a key first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::{Reason, Refusal};
use crate::key::WireguardPublicKey;
use crate::names::{ClusterName, NodeName};

/// A node of any cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRef {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its name there.
    pub name: NodeName,
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.name)
    }
}

#[derive(Debug, Default)]
struct Held {
    addresses: Vec<IpAddr>,
    key: Option<WireguardPublicKey>,
}

/// Addresses and keys of all nodes that were admitted.
#[derive(Debug, Default)]
pub struct NodeClaims {
    addresses: BTreeMap<IpAddr, NodeRef>,
    keys: BTreeMap<WireguardPublicKey, NodeRef>,
    nodes: BTreeMap<NodeRef, Held>,
}

impl NodeClaims {
    /// Whether the node may have these: nobody else claimed them before.
    ///
    /// # Errors
    /// When another node did.
    pub fn check(&self, node: &NodeRef, addresses: &[IpAddr], key: Option<&WireguardPublicKey>) -> Result<(), Refusal> {
        let other = |holder: Option<&NodeRef>| holder.filter(|holder| *holder != node).cloned();
        for address in addresses {
            if let Some(holder) = other(self.addresses.get(address)) {
                let detail = format_args!("{address} belongs to node {holder}");
                return Err(Refusal::new(Reason::NodeAddressTaken, detail));
            }
        }
        if let Some(holder) = key.and_then(|key| other(self.keys.get(key))) {
            let detail = format_args!("the WireGuard key belongs to node {holder}");
            return Err(Refusal::new(Reason::WireguardKeyTaken, detail));
        }
        Ok(())
    }

    /// Records what an admitted node has, in place of what it had.
    ///
    /// # Errors
    /// As [`Self::check`]; nothing is changed then.
    pub fn claim(
        &mut self,
        node: &NodeRef,
        addresses: Vec<IpAddr>,
        key: Option<WireguardPublicKey>,
    ) -> Result<(), Refusal> {
        self.check(node, &addresses, key.as_ref())?;
        self.release(node);
        for address in &addresses {
            self.addresses.insert(*address, node.clone());
        }
        if let Some(key) = key {
            self.keys.insert(key, node.clone());
        }
        self.nodes.insert(node.clone(), Held { addresses, key });
        Ok(())
    }

    /// Records a node of our own cluster: what nodes of others hold of it is taken from them. Returns those nodes; their
    /// entries are refused from now on. Own nodes hold against own nodes.
    ///
    /// # Errors
    /// When another node of our own cluster has it; nothing is changed then.
    pub fn claim_own(
        &mut self,
        node: &NodeRef,
        addresses: Vec<IpAddr>,
        key: Option<WireguardPublicKey>,
    ) -> Result<BTreeSet<NodeRef>, Refusal> {
        let holders = addresses.iter().filter_map(|address| self.addresses.get(address));
        let holders = holders.chain(key.as_ref().and_then(|key| self.keys.get(key)));
        let displaced: BTreeSet<NodeRef> = holders.filter(|holder| holder.cluster != node.cluster).cloned().collect();
        let own_conflict = |holder: &&NodeRef| holder.cluster == node.cluster && *holder != node;
        if let Some(holder) = addresses.iter().filter_map(|address| self.addresses.get(address)).find(own_conflict) {
            return Err(Refusal::new(Reason::NodeAddressTaken, format_args!("an address belongs to node {holder}")));
        }
        if let Some(holder) = key.as_ref().and_then(|key| self.keys.get(key)).filter(own_conflict) {
            let detail = format_args!("the WireGuard key belongs to node {holder}");
            return Err(Refusal::new(Reason::WireguardKeyTaken, detail));
        }
        for other in &displaced {
            self.release(other);
        }
        self.claim(node, addresses, key)?;
        Ok(displaced)
    }

    /// Forgets a node; one that is not known is fine.
    pub fn release(&mut self, node: &NodeRef) {
        let Some(held) = self.nodes.remove(node) else {
            return;
        };
        for address in held.addresses {
            if self.addresses.get(&address) == Some(node) {
                self.addresses.remove(&address);
            }
        }
        if let Some(key) = held.key
            && self.keys.get(&key) == Some(node)
        {
            self.keys.remove(&key);
        }
    }

    /// Forgets every node of a cluster.
    pub fn release_cluster(&mut self, cluster: &ClusterName) {
        let gone: Vec<NodeRef> = self.nodes.keys().filter(|node| node.cluster == *cluster).cloned().collect();
        for node in gone {
            self.release(&node);
        }
    }

    /// The node that has this underlay address.
    pub fn holder(&self, address: IpAddr) -> Option<&NodeRef> {
        self.addresses.get(&address)
    }

    /// The node that has this key.
    pub fn key_holder(&self, key: &WireguardPublicKey) -> Option<&NodeRef> {
        self.keys.get(key)
    }
}
