//! From documents to the one model: every default is written out here, and nowhere else.

use std::sync::Arc;

use super::model::{Direction, DirectionRules, Entity, Peer, PeerRule, Peers, Policy, Rule};
use super::ports::PortMatch;
use crate::ids::Identity;
use crate::labels::well_known::{
    CLUSTER, NAMESPACE, NAMESPACE_LABELS_PREFIX, NAMESPACE_NAME_LABEL, SOURCE_K8S, SOURCE_RESERVED,
};
use crate::labels::{LabelKey, LabelSelector, LabelSet, MatchOperator, Requirement};
use crate::manifest::{
    CiliumPeers, CiliumPolicy, CiliumRule, CiliumSections, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyRule, Object,
    Spec,
};
use crate::names::{ClusterName, Namespace};

/// Reserved identities that rules can match, each with its names. Source: `wire.md` 3.2.
pub(super) const RESERVED: [(Identity, &[&str]); 10] = [
    (Identity::HOST, &["host"]),
    (Identity::WORLD, &["world"]),
    (Identity::UNMANAGED, &["unmanaged"]),
    (Identity::HEALTH, &["health"]),
    (Identity::INIT, &["init"]),
    (Identity::REMOTE_NODE, &["remote-node"]),
    (Identity::KUBE_APISERVER, &["kube-apiserver", "remote-node"]),
    (Identity::INGRESS, &["ingress"]),
    (Identity::WORLD_IPV4, &["world-ipv4"]),
    (Identity::WORLD_IPV6, &["world-ipv6"]),
];

/// Where a policy lives.
#[derive(Clone, Copy)]
struct Home<'a> {
    cluster: &'a ClusterName,
    namespace: Option<&'a Namespace>,
}

/// Brings a policy document to the model; `None` when the object is no policy.
///
/// `cluster` is the cluster that the policy was applied in: what its selectors mean unless they name another.
pub fn resolve(object: &Object, cluster: &ClusterName) -> Option<Policy> {
    let home = Home { cluster, namespace: object.metadata.namespace.as_ref() };
    let rules = match &object.spec {
        Spec::NetworkPolicy(policy) => vec![network_policy(policy, home)],
        Spec::CiliumNetworkPolicy(policy) | Spec::CiliumClusterwideNetworkPolicy(policy) => cilium(policy, home),
        Spec::Service(_) | Spec::ClusterLink(_) => return None,
    };
    Some(Policy { key: Arc::new(object.key()), rules })
}

fn network_policy(policy: &NetworkPolicy, home: Home<'_>) -> Rule {
    let subject = LabelSelector::new(policy.pods.requirements().iter().cloned().chain(home.own()));
    let direction = |rules: &Option<Vec<NetworkPolicyRule>>| match rules {
        Some(rules) => DirectionRules {
            default_deny: true,
            allow: rules.iter().map(|rule| network_policy_rule(rule, home)).collect(),
            deny: Vec::new(),
        },
        None => DirectionRules::default(),
    };
    Rule { spec: None, subject, ingress: direction(&policy.ingress), egress: direction(&policy.egress) }
}

fn network_policy_rule(rule: &NetworkPolicyRule, home: Home<'_>) -> PeerRule {
    // An empty list of peers means everybody here; in Cilium's policies it means nobody.
    let peers = if rule.peers.is_empty() {
        Peers::All
    } else {
        Peers::AnyOf(rule.peers.iter().map(|peer| network_policy_peer(peer, home)).collect())
    };
    PeerRule { peers, ports: ports(&rule.ports) }
}

fn network_policy_peer(peer: &NetworkPolicyPeer, home: Home<'_>) -> Peer {
    match peer {
        // The cluster's name has no part in this: a block of addresses is not a selector.
        NetworkPolicyPeer::Block(block) => Peer::Cidr(block.clone()),
        NetworkPolicyPeer::Pods { namespaces, pods } => {
            let pods = pods.iter().flat_map(|pods| pods.requirements().iter().cloned());
            let place: Vec<Requirement> = match namespaces {
                None => home.own().collect(),
                Some(namespaces) => namespaces
                    .requirements()
                    .iter()
                    .map(of_namespace)
                    .chain([exists(NAMESPACE), home.own_cluster()])
                    .collect(),
            };
            Peer::Endpoints(LabelSelector::new(pods.chain(place)))
        }
    }
}

/// A condition on a namespace's label, as one on its endpoints.
fn of_namespace(requirement: &Requirement) -> Requirement {
    let key = format!("{NAMESPACE_LABELS_PREFIX}{}", requirement.key.key);
    canonical(&Requirement { key: k8s_key(&key), operator: requirement.operator.clone() })
}

fn cilium(policy: &CiliumPolicy, home: Home<'_>) -> Vec<Rule> {
    let subject = |selector: &LabelSelector| {
        let written = selector.requirements().iter().map(canonical);
        LabelSelector::new(written.chain(home.own()))
    };
    policy
        .specs
        .iter()
        .map(|spec| Rule {
            spec: spec.index,
            subject: subject(&spec.endpoints),
            ingress: cilium_sections(&spec.ingress, home),
            egress: cilium_sections(&spec.egress, home),
        })
        .collect()
}

fn cilium_sections(sections: &CiliumSections, home: Home<'_>) -> DirectionRules {
    let resolve = |rules: &[CiliumRule]| rules.iter().map(|rule| cilium_rule(rule, home)).collect();
    DirectionRules {
        default_deny: sections.default_deny,
        allow: resolve(&sections.allow),
        deny: resolve(&sections.deny),
    }
}

fn cilium_rule(rule: &CiliumRule, home: Home<'_>) -> PeerRule {
    let peers = match &rule.peers {
        CiliumPeers::Unnamed if rule.ports.is_empty() => Peers::AnyOf(Vec::new()),
        CiliumPeers::Unnamed => Peers::All,
        CiliumPeers::Entities(entities) if entities.contains(&Entity::All) => Peers::All,
        CiliumPeers::Entities(entities) => Peers::AnyOf(entities.iter().flat_map(|one| entity(*one, home)).collect()),
        CiliumPeers::Endpoints(selectors) => {
            Peers::AnyOf(selectors.iter().flat_map(|selector| cilium_peer(selector, home)).collect())
        }
        CiliumPeers::Cidrs(blocks) => Peers::AnyOf(blocks.iter().cloned().map(Peer::Cidr).collect()),
    };
    PeerRule { peers, ports: ports(&rule.ports) }
}

fn entity(entity: Entity, home: Home<'_>) -> Vec<Peer> {
    let reserved = |names: &[Identity]| names.iter().copied().map(Peer::Reserved).collect();
    match entity {
        // `All` as part of a list was seen before.
        Entity::All | Entity::None => Vec::new(),
        Entity::World => vec![Peer::World],
        Entity::Host => reserved(&[Identity::HOST]),
        Entity::RemoteNode => reserved(&[Identity::REMOTE_NODE, Identity::KUBE_APISERVER]),
        Entity::KubeApiserver => reserved(&[Identity::KUBE_APISERVER]),
        Entity::Health => reserved(&[Identity::HEALTH]),
        Entity::Init => reserved(&[Identity::INIT]),
        Entity::Unmanaged => reserved(&[Identity::UNMANAGED]),
        Entity::Ingress => reserved(&[Identity::INGRESS]),
        Entity::Cluster => {
            let mut peers: Vec<Peer> = reserved(&[
                Identity::HOST,
                Identity::REMOTE_NODE,
                Identity::KUBE_APISERVER,
                Identity::HEALTH,
                Identity::INIT,
                Identity::UNMANAGED,
                Identity::INGRESS,
            ]);
            peers.push(Peer::Endpoints(LabelSelector::new([home.own_cluster()])));
            peers
        }
    }
}

/// A selector of peers: by reserved labels, or by labels of endpoints in the policy's namespace and cluster unless it
/// names others.
fn cilium_peer(selector: &LabelSelector, home: Home<'_>) -> Vec<Peer> {
    let is_reserved = |one: &Requirement| one.key.source.as_deref() == Some(SOURCE_RESERVED);
    if selector.requirements().iter().any(is_reserved) {
        return reserved_peers(selector);
    }
    let mut requirements: Vec<Requirement> = selector.requirements().iter().map(canonical).collect();
    let names = |requirements: &[Requirement], wanted: &dyn Fn(&str) -> bool| {
        requirements.iter().any(|one| one.key.source.as_deref() == Some(SOURCE_K8S) && wanted(&one.key.key))
    };
    if !names(&requirements, &|key| key == NAMESPACE || key.starts_with(NAMESPACE_LABELS_PREFIX)) {
        requirements.push(home.namespace.map_or_else(|| exists(NAMESPACE), |own| equals(NAMESPACE, own.as_str())));
    }
    if !names(&requirements, &|key| key == CLUSTER) {
        requirements.push(home.own_cluster());
    }
    vec![Peer::Endpoints(LabelSelector::new(requirements))]
}

fn reserved_peers(selector: &LabelSelector) -> Vec<Peer> {
    let matches = |names: &[&str]| {
        let labels = names.iter().map(|name| format!("{SOURCE_RESERVED}:{name}")).collect::<Vec<String>>();
        LabelSet::parse(labels.iter().map(String::as_str)).is_ok_and(|labels| selector.matches(&labels))
    };
    let fitting = RESERVED.iter().filter(|(_, names)| matches(names));
    fitting
        .map(|&(identity, _)| if identity == Identity::WORLD { Peer::World } else { Peer::Reserved(identity) })
        .collect()
}

/// Keys of the system have source `k8s`, whatever was written: a label of another source and the same key, which a
/// workload might bring along, must not pass for the namespace or the cluster. The namespace's name is one thing under
/// two keys.
fn canonical(requirement: &Requirement) -> Requirement {
    let source = requirement.key.source.as_deref();
    let key = &*requirement.key.key;
    if source.is_some_and(|source| source != SOURCE_K8S) {
        return requirement.clone();
    }
    let label_of_namespace = key.strip_prefix(NAMESPACE_LABELS_PREFIX);
    let key = match label_of_namespace {
        Some(NAMESPACE_NAME_LABEL) => k8s_key(NAMESPACE),
        Some(_) => k8s_key(key),
        None if key == NAMESPACE || key == CLUSTER => k8s_key(key),
        None => requirement.key.clone(),
    };
    Requirement { key, operator: requirement.operator.clone() }
}

fn k8s_key(key: &str) -> LabelKey {
    LabelKey { source: Some(SOURCE_K8S.into()), key: key.into() }
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: k8s_key(key), operator: MatchOperator::In(vec![value.into()]) }
}

fn exists(key: &str) -> Requirement {
    Requirement { key: k8s_key(key), operator: MatchOperator::Exists }
}

fn ports(ports: &[PortMatch]) -> Vec<PortMatch> {
    if ports.is_empty() { vec![PortMatch::ALL] } else { ports.to_vec() }
}

impl Home<'_> {
    fn own_cluster(self) -> Requirement {
        equals(CLUSTER, self.cluster.as_str())
    }

    /// The own cluster, and the own namespace for what lives in one.
    fn own(self) -> impl Iterator<Item = Requirement> {
        let namespace = self.namespace.map(|own| equals(NAMESPACE, own.as_str()));
        namespace.into_iter().chain([self.own_cluster()])
    }
}

/// The two directions of a rule list, for callers that walk both.
impl Rule {
    /// Whether it says anything of one direction.
    pub const fn speaks_of(&self, direction: Direction) -> bool {
        self.direction(direction).speaks()
    }
}
