//! Policies of all kinds in one form, with every default written out.

use std::fmt;
use std::sync::Arc;

use super::ports::PortMatch;
use crate::ids::Identity;
use crate::labels::LabelSelector;
use crate::manifest::ObjectKey;
use crate::prefix::Prefix;

/// As seen by the endpoint that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// A policy, ready to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What names it; shared with every entry that it leads to.
    pub key: Arc<ObjectKey>,
    /// One for each `spec`.
    pub rules: Vec<Rule>,
}

/// One `spec`: whom it selects, and what holds for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Index in `specs`; `None` = it is `spec`.
    pub spec: Option<usize>,
    /// Endpoints that it selects; names their cluster, always the own one.
    pub subject: LabelSelector,
    /// What may reach them.
    pub ingress: DirectionRules,
    /// What they may reach.
    pub egress: DirectionRules,
}

/// What one `spec` says of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectionRules {
    /// What no rule allows is denied.
    pub default_deny: bool,
    /// Rules that allow.
    pub allow: Vec<PeerRule>,
    /// Rules that deny.
    pub deny: Vec<PeerRule>,
}

/// A peer and a port that must both match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRule {
    /// Who.
    pub peers: Peers,
    /// Any of these.
    pub ports: Vec<PortMatch>,
}

/// Who is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Everybody, those not known included.
    All,
    /// Any of these; none = nobody.
    AnyOf(Vec<Peer>),
}

/// One sort of peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Endpoints of any cluster of the mesh by their labels. Never matches reserved or CIDR identities.
    Endpoints(LabelSelector),
    /// One reserved identity.
    Reserved(Identity),
    /// Everything outside the mesh, CIDR identities included.
    World,
    /// Addresses outside the mesh.
    Cidr(CidrBlock),
}

/// Addresses of a prefix without those of some prefixes inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CidrBlock {
    /// The whole.
    pub cidr: Prefix,
    /// What is taken out.
    pub except: Vec<Prefix>,
}

/// A group of peers with a name, as Cilium knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// Everybody.
    All,
    /// Nobody.
    None,
    /// Everything outside the mesh.
    World,
    /// The endpoints of the policy's own cluster, and nodes and other reserved identities of the whole mesh. Endpoints
    /// of other clusters are *not* meant: they are named by a selector with their cluster's name.
    Cluster,
    /// The endpoint's own node.
    Host,
    /// All other nodes of the mesh.
    RemoteNode,
    /// Nodes that run the Kubernetes API.
    KubeApiserver,
    /// Health endpoints.
    Health,
    /// Endpoints whose labels are not yet known.
    Init,
    /// Workloads that are not managed.
    Unmanaged,
    /// Ingress proxies.
    Ingress,
}

/// Which list of a `spec` a rule stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `ingress`.
    Ingress,
    /// `ingressDeny`.
    IngressDeny,
    /// `egress`.
    Egress,
    /// `egressDeny`.
    EgressDeny,
}

/// The place of one rule, for explanations: `CiliumNetworkPolicy demo/web spec.ingressDeny[0]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef {
    /// The policy.
    pub policy: Arc<ObjectKey>,
    /// Index in `specs`; `None` = it is `spec`.
    pub spec: Option<usize>,
    /// Which list.
    pub section: Section,
    /// Position in the list.
    pub index: usize,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As flows and tables spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl Rule {
    /// What it says of one direction.
    pub const fn direction(&self, direction: Direction) -> &DirectionRules {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl DirectionRules {
    /// Whether it says anything: then policy is enforced for the endpoints selected.
    pub const fn speaks(&self) -> bool {
        self.default_deny || !self.allow.is_empty() || !self.deny.is_empty()
    }
}

impl CidrBlock {
    /// Whether an address is meant.
    pub fn holds(&self, address: std::net::IpAddr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|hole| hole.contains(address))
    }

    /// Whether all of a prefix is meant. Decides for each address inside only if the prefix is the longest of the table
    /// that holds the address; see [`mod@super::cidr`].
    pub fn covers(&self, prefix: &Prefix) -> bool {
        self.cidr.covers(prefix) && !self.except.iter().any(|hole| hole.covers(prefix))
    }
}

impl Entity {
    /// As policies write them.
    pub const NAMES: [(&'static str, Self); 11] = [
        ("all", Self::All),
        ("none", Self::None),
        ("world", Self::World),
        ("cluster", Self::Cluster),
        ("host", Self::Host),
        ("remote-node", Self::RemoteNode),
        ("kube-apiserver", Self::KubeApiserver),
        ("health", Self::Health),
        ("init", Self::Init),
        ("unmanaged", Self::Unmanaged),
        ("ingress", Self::Ingress),
    ];
}

impl Section {
    /// As documents spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::IngressDeny => "ingressDeny",
            Self::Egress => "egress",
            Self::EgressDeny => "egressDeny",
        }
    }

    /// The list of a direction's allowing or denying rules.
    pub const fn of(direction: Direction, denies: bool) -> Self {
        match (direction, denies) {
            (Direction::Ingress, false) => Self::Ingress,
            (Direction::Ingress, true) => Self::IngressDeny,
            (Direction::Egress, false) => Self::Egress,
            (Direction::Egress, true) => Self::EgressDeny,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.policy)?;
        match self.spec {
            None => f.write_str("spec")?,
            Some(index) => write!(f, "specs[{index}]")?,
        }
        write!(f, ".{}[{}]", self.section.as_str(), self.index)
    }
}
