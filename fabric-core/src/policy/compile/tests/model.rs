//! A small mesh to try policies in.

use std::net::IpAddr;

use crate::ids::{ClusterId, Identity};
use crate::labels::LabelSet;
use crate::manifest::parse;
use crate::names::ClusterName;
use crate::policy::reference::{Judgement, Other, Packet, evaluate};
use crate::policy::{CidrTable, Compiler, Decision, Direction, IdentityTable, PolicySet, resolve};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// The mesh as the cluster `eu` sees it.
pub(super) struct Mesh {
    pub(super) policies: PolicySet,
    pub(super) identities: IdentityTable,
    pub(super) cidrs: CidrTable,
    names: Vec<(&'static str, Identity)>,
}

/// Name, cluster, number in it, namespace, labels.
const ENDPOINTS: [(&str, &str, u16, &str, &[&str]); 9] = [
    ("web", "eu", 256, "demo", &["k8s:app=web", "k8s:tier=front"]),
    ("db", "eu", 257, "demo", &["k8s:app=db", "k8s:tier=back"]),
    ("ops", "eu", 258, "ops", &["k8s:app=web", "k8s:io.cilium.k8s.namespace.labels.team=blue"]),
    ("us-web", "us", 256, "demo", &["k8s:app=web", "k8s:tier=front"]),
    ("us-db", "us", 257, "demo", &["k8s:app=db"]),
    // Names that begin like the own cluster's, and labels that pretend.
    ("e-web", "e", 256, "demo", &["k8s:app=web"]),
    ("eu2-web", "eu2", 256, "demo", &["k8s:app=web"]),
    ("default-web", "us", 300, "default", &["k8s:app=web"]),
    ("other-source", "eu", 301, "demo", &["container:app=web"]),
];

impl Mesh {
    /// With the policies of a text of documents, applied in `eu`.
    pub(super) fn new(documents: &str) -> Self {
        let own = ClusterName::new("eu").unwrap();
        let objects = parse(documents).unwrap_or_else(|error| panic!("{error}"));
        let policies: PolicySet = objects.iter().map(|object| resolve(object, &own).unwrap()).collect();
        let mut cidrs = CidrTable::default();
        cidrs.update(&policies.cidr_prefixes());
        let mut names = Vec::new();
        let mut identities = IdentityTable::default();
        for (name, cluster, number, namespace, labels) in ENDPOINTS {
            let id = ["eu", "us", "e", "eu2"].iter().position(|known| *known == cluster).unwrap();
            let identity = Identity::of_cluster(ClusterId::new(i64::try_from(id).unwrap() + 1).unwrap(), number);
            let cluster = format!("k8s:io.cilium.k8s.policy.cluster={cluster}");
            let namespace = format!("k8s:io.kubernetes.pod.namespace={namespace}");
            let labels = labels.iter().copied().chain([cluster.as_str(), namespace.as_str()]);
            identities.insert(identity, LabelSet::parse(labels).unwrap());
            names.push((name, identity));
        }
        Self { policies, identities, cidrs, names }
    }

    pub(super) fn compiler(&self) -> Compiler<'_> {
        Compiler { policies: &self.policies, identities: &self.identities, cidrs: &self.cidrs }
    }

    pub(super) fn identity(&self, name: &str) -> Identity {
        self.names.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}")).1
    }

    pub(super) fn labels(&self, name: &str) -> &LabelSet {
        self.identities.get(self.identity(name)).unwrap()
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().map(|(name, _)| *name)
    }

    /// A peer by name of an endpoint, `@` and a reserved name, or an address outside the mesh.
    fn peer<'a>(&'a self, peer: &str) -> (Identity, Other<'a>) {
        if let Some(name) = peer.strip_prefix('@') {
            let identity = Identity::from_reserved_name(name).unwrap();
            return (identity, if identity == Identity::UNKNOWN { Other::Unknown } else { Other::Reserved(identity) });
        }
        match peer.parse::<IpAddr>() {
            Ok(address) => {
                let identity = self.cidrs.lookup(address).map_or(Identity::WORLD, |(_, identity)| identity);
                (identity, Other::Outside(address))
            }
            Err(_) => (self.identity(peer), Other::Endpoint(self.labels(peer))),
        }
    }

    /// The verdict, after it was found to be what the reference says: `allow`, `deny`, `default` or `open`.
    pub(super) fn judge(
        &self,
        subject: &str,
        direction: Direction,
        peer: &str,
        protocol: u8,
        port: u16,
    ) -> &'static str {
        let (identity, other) = self.peer(peer);
        let labels = self.labels(subject);
        let compiled = self.compiler().compile(self.identity(subject), labels);
        let decision = compiled.decide(direction, identity, protocol, port);
        let packet = Packet { direction, other, protocol, port };
        let judgement = evaluate(self.policies.iter(), labels, packet);
        assert_agree(decision, &judgement, &format!("{subject} {direction} {peer} {protocol} {port}"));
        match judgement {
            Judgement::Open => "open",
            Judgement::Allowed(_) => "allow",
            Judgement::Denied(_) => "deny",
            Judgement::DeniedByDefault => "default",
        }
    }

    pub(super) fn ingress(&self, subject: &str, peer: &str, port: u16) -> &'static str {
        self.judge(subject, Direction::Ingress, peer, TCP, port)
    }

    pub(super) fn egress(&self, subject: &str, peer: &str, port: u16) -> &'static str {
        self.judge(subject, Direction::Egress, peer, TCP, port)
    }

    /// All endpoints that may reach a port of the subject, and reserved identities and addresses among `others`.
    pub(super) fn who_reaches(&self, subject: &str, port: u16, others: &[&'static str]) -> Vec<&'static str> {
        let peers = self.endpoints().chain(others.iter().copied());
        peers.filter(|peer| ["allow", "open"].contains(&self.ingress(subject, peer, port))).collect()
    }
}

/// Same verdict, and the rule named is one that says so.
pub(super) fn assert_agree(decision: Decision<'_>, judgement: &Judgement, context: &str) {
    use crate::policy::Origin;
    let agree = match (decision, judgement) {
        (Decision::NotEnforced | Decision::Allowed(Origin::NoDefaultDeny | Origin::OwnNode), Judgement::Open)
        | (Decision::DeniedByDefault, Judgement::DeniedByDefault) => true,
        // The entry that opens a direction without default deny hides rules that say the same.
        (Decision::Allowed(Origin::NoDefaultDeny), Judgement::Allowed(_)) => true,
        (Decision::Allowed(Origin::Rule(rule)), Judgement::Allowed(rules))
        | (Decision::Denied(Origin::Rule(rule)), Judgement::Denied(rules)) => rules.contains(rule),
        _ => false,
    };
    assert!(agree, "{context}: {decision:?}, but {judgement:?}");
}
