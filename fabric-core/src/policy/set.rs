//! What is compiled from: the policies of a cluster, the identities of the mesh.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{CidrBlock, Direction, Peer, Peers, Policy, Rule};
use crate::ids::Identity;
use crate::labels::LabelSet;
use crate::manifest::ObjectKey;
use crate::prefix::Prefix;

/// The policies of a cluster, in order of key, so that results do not depend on the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySet {
    policies: BTreeMap<ObjectKey, Policy>,
}

impl PolicySet {
    /// Adds a policy; gives back the one that it replaces.
    pub fn insert(&mut self, policy: Policy) -> Option<Policy> {
        self.policies.insert((*policy.key).clone(), policy)
    }

    /// Takes a policy away.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Policy> {
        self.policies.remove(key)
    }

    /// In order of key.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Rules that select an endpoint with these labels.
    pub fn selecting<'a>(&'a self, labels: &'a LabelSet) -> impl Iterator<Item = (&'a Policy, &'a Rule)> {
        self.policies
            .values()
            .flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)))
            .filter(|(_, rule)| rule.subject.matches(labels))
    }

    /// Every prefix that a rule names, exceptions included: those that need an identity of their own on each node.
    pub fn cidr_prefixes(&self) -> BTreeSet<Prefix> {
        let blocks = self.policies.values().flat_map(Policy::cidr_blocks);
        blocks.flat_map(|block| std::iter::once(block.cidr).chain(block.except.iter().copied())).collect()
    }
}

impl Policy {
    /// Every block of addresses that a rule names.
    fn cidr_blocks(&self) -> impl Iterator<Item = &CidrBlock> {
        let directions = self.rules.iter().flat_map(|rule| Direction::BOTH.map(|direction| rule.direction(direction)));
        let peer_rules = directions.flat_map(|direction| direction.allow.iter().chain(&direction.deny));
        let peers = peer_rules.flat_map(|rule| match &rule.peers {
            Peers::All => &[][..],
            Peers::AnyOf(peers) => peers.as_slice(),
        });
        peers.filter_map(|peer| match peer {
            Peer::Cidr(block) => Some(block),
            Peer::Endpoints(_) | Peer::Reserved(_) | Peer::World => None,
        })
    }

    /// Blocks that lie inside the mesh's own prefixes and so match nothing: worth a warning when the policy is applied.
    pub fn cidrs_without_effect(&self, owned: &[Prefix]) -> BTreeSet<Prefix> {
        let blocks = self.cidr_blocks().map(|block| block.cidr);
        blocks.filter(|cidr| owned.iter().any(|own| own.covers(cidr))).collect()
    }
}

impl FromIterator<Policy> for PolicySet {
    fn from_iter<I: IntoIterator<Item = Policy>>(policies: I) -> Self {
        let mut set = Self::default();
        for policy in policies {
            set.insert(policy);
        }
        set
    }
}

/// Identities of endpoints that are known, of all clusters of the mesh, with their labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentityTable {
    identities: BTreeMap<Identity, LabelSet>,
}

impl IdentityTable {
    /// Adds an identity; gives back the labels that it had.
    ///
    /// Numbers below 256 and those local to a node are not taken: what they mean is not told by labels.
    pub fn insert(&mut self, identity: Identity, labels: LabelSet) -> Option<LabelSet> {
        let allocated = (Identity::MIN_ALLOCATED..Identity::LOCAL_CIDR).contains(&identity.value());
        if allocated { self.identities.insert(identity, labels) } else { None }
    }

    /// Takes an identity away.
    pub fn remove(&mut self, identity: Identity) -> Option<LabelSet> {
        self.identities.remove(&identity)
    }

    /// Its labels.
    pub fn get(&self, identity: Identity) -> Option<&LabelSet> {
        self.identities.get(&identity)
    }

    /// In order of number.
    pub fn iter(&self) -> impl Iterator<Item = (Identity, &LabelSet)> {
        self.identities.iter().map(|(&identity, labels)| (identity, labels))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.identities.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }
}

impl FromIterator<(Identity, LabelSet)> for IdentityTable {
    fn from_iter<I: IntoIterator<Item = (Identity, LabelSet)>>(identities: I) -> Self {
        let mut table = Self::default();
        for (identity, labels) in identities {
            table.insert(identity, labels);
        }
        table
    }
}
