//! Why two clusters cannot be connected. Each reason says what, where, why and the exact command that cures it.

mod recreate;

use std::net::IpAddr;

use super::{ClusterSpec, Encryption, Routing};
use crate::error_code::{self, ErrorCode, Problem};
use crate::ids::ClusterId;
use crate::names::{ClusterName, NodeName};
use crate::prefix::Prefix;

/// One side of a connection, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// What it is.
    pub spec: ClusterSpec,
    /// Its nodes' underlay addresses.
    pub nodes: Vec<(NodeName, IpAddr)>,
    /// How many endpoints it has: the emptier side is the one to re-create.
    pub endpoints: u32,
}

/// One reason. `first` and `second` are the names of the two sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Both have the same name.
    SameName,
    /// Both have the same id.
    SameId(ClusterId),
    /// A workload prefix of each share addresses.
    Prefixes {
        /// Of the first.
        first: Prefix,
        /// Of the second.
        second: Prefix,
    },
    /// A service range shares addresses with the other's workload prefix.
    ServiceRange {
        /// Whose service range.
        of: ClusterName,
        /// It.
        service: Prefix,
        /// The other's workload prefix.
        prefix: Prefix,
    },
    /// Packets travel in different ways.
    Routing {
        /// Of the first.
        first: Routing,
        /// Of the second.
        second: Routing,
    },
    /// One encrypts, one does not.
    Encryption {
        /// Of the first.
        first: Encryption,
        /// Of the second.
        second: Encryption,
    },
    /// A node's own address lies in a workload prefix of either side.
    NodeInsidePrefix {
        /// Whose node.
        of: ClusterName,
        /// Which node.
        node: NodeName,
        /// Its address.
        address: IpAddr,
        /// The prefix that holds it.
        prefix: Prefix,
    },
    /// A node of each has the same address.
    SameNodeAddress {
        /// Node of the first.
        first: NodeName,
        /// Node of the second.
        second: NodeName,
        /// The address of both.
        address: IpAddr,
    },
}

/// A reason with the names of the sides and the one to re-create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Name of the side asked from.
    pub first: ClusterName,
    /// Name of the other side.
    pub second: ClusterName,
    /// Why not.
    pub reason: Reason,
    /// The emptier side.
    pub emptier: ClusterName,
    /// The command that re-creates the emptier side so that nothing stands against it; the same for all reasons.
    recreate: String,
}

/// Everything that stands against connecting the two; empty = nothing does. The worst comes first.
pub fn check(first: &Side, second: &Side) -> Vec<Conflict> {
    let reasons = [
        identity_reasons(&first.spec, &second.spec),
        prefix_reasons(&first.spec, &second.spec),
        mode_reasons(&first.spec, &second.spec),
        node_reasons(first, second),
    ];
    let reasons: Vec<Reason> = reasons.into_iter().flatten().collect();
    let (emptier, fuller) = if first.endpoints < second.endpoints { (first, second) } else { (second, first) };
    let recreate = recreate::command(&emptier.spec, fuller, &reasons);
    reasons
        .into_iter()
        .map(|reason| Conflict {
            first: first.spec.name.clone(),
            second: second.spec.name.clone(),
            reason,
            emptier: emptier.spec.name.clone(),
            recreate: recreate.clone(),
        })
        .collect()
}

fn identity_reasons(first: &ClusterSpec, second: &ClusterSpec) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if first.name == second.name {
        reasons.push(Reason::SameName);
    }
    if first.id == second.id {
        reasons.push(Reason::SameId(first.id));
    }
    reasons
}

fn prefix_reasons(first: &ClusterSpec, second: &ClusterSpec) -> Vec<Reason> {
    let mut reasons: Vec<Reason> =
        overlaps(&first.prefixes, &second.prefixes).map(|(first, second)| Reason::Prefixes { first, second }).collect();
    for (of, other) in [(first, second), (second, first)] {
        reasons.extend(overlaps(&of.service_prefixes, &other.prefixes).map(|(service, prefix)| Reason::ServiceRange {
            of: of.name.clone(),
            service,
            prefix,
        }));
    }
    reasons
}

fn overlaps<'a>(left: &'a [Prefix], right: &'a [Prefix]) -> impl Iterator<Item = (Prefix, Prefix)> + 'a {
    left.iter()
        .flat_map(move |&left| right.iter().filter(move |right| left.overlaps(right)).map(move |&right| (left, right)))
}

fn mode_reasons(first: &ClusterSpec, second: &ClusterSpec) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if first.routing != second.routing {
        reasons.push(Reason::Routing { first: first.routing, second: second.routing });
    }
    if first.encryption != second.encryption {
        reasons.push(Reason::Encryption { first: first.encryption, second: second.encryption });
    }
    reasons
}

fn node_reasons(first: &Side, second: &Side) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (side, other) in [(first, second), (second, first)] {
        // A node inside its own cluster's prefix is refused when it registers; here the other side's counts.
        for (node, address) in &side.nodes {
            if let Some(&prefix) = other.spec.prefixes.iter().find(|prefix| prefix.contains(*address)) {
                let (of, node, address) = (side.spec.name.clone(), node.clone(), *address);
                reasons.push(Reason::NodeInsidePrefix { of, node, address, prefix });
            }
        }
    }
    let theirs: std::collections::BTreeMap<IpAddr, &NodeName> =
        second.nodes.iter().map(|(node, address)| (*address, node)).collect();
    reasons.extend(first.nodes.iter().filter_map(|(node, address)| {
        let second = (*theirs.get(address)?).clone();
        Some(Reason::SameNodeAddress { first: node.clone(), second, address: *address })
    }));
    reasons
}

impl Conflict {
    /// The stable code.
    pub const fn code(&self) -> ErrorCode {
        match self.reason {
            Reason::SameName => error_code::SAME_CLUSTER_NAME,
            Reason::SameId(_) => error_code::SAME_CLUSTER_ID,
            Reason::Prefixes { .. } => error_code::OVERLAPPING_PREFIXES,
            Reason::ServiceRange { .. } => error_code::SERVICE_RANGE_OVERLAP,
            Reason::Routing { .. } => error_code::ROUTING_MISMATCH,
            Reason::Encryption { .. } => error_code::ENCRYPTION_MISMATCH,
            Reason::NodeInsidePrefix { .. } => error_code::NODE_INSIDE_PREFIX,
            Reason::SameNodeAddress { .. } => error_code::SAME_NODE_ADDRESS,
        }
    }

    /// What is wrong, with both sides' values.
    pub fn what(&self) -> String {
        let (a, b) = (&self.first, &self.second);
        match &self.reason {
            Reason::SameName => format!("both clusters are named {a}"),
            Reason::SameId(id) => format!("{a} and {b} both have cluster id {id}"),
            Reason::Prefixes { first, second } => format!("{first} of {a} and {second} of {b} overlap"),
            Reason::ServiceRange { of, service, prefix } => {
                let other = if of == a { b } else { a };
                format!("service range {service} of {of} and workload prefix {prefix} of {other} overlap")
            }
            Reason::Routing { first, second } => format!("{a} uses {first} routing, {b} uses {second}"),
            Reason::Encryption { first, second } => format!("{a} has encryption {first}, {b} has {second}"),
            Reason::NodeInsidePrefix { of, node, address, prefix } => {
                let other = if of == a { b } else { a };
                format!("address {address} of node {node} of {of} lies inside workload prefix {prefix} of {other}")
            }
            Reason::SameNodeAddress { first, second, address } => {
                format!("node {first} of {a} and node {second} of {b} both have address {address}")
            }
        }
    }

    /// The command or step that cures it.
    pub fn fix(&self) -> String {
        match &self.reason {
            Reason::NodeInsidePrefix { node, .. } | Reason::SameNodeAddress { second: node, .. } => {
                format!("give node {node} another address")
            }
            Reason::SameName
            | Reason::SameId(_)
            | Reason::Prefixes { .. }
            | Reason::ServiceRange { .. }
            | Reason::Routing { .. }
            | Reason::Encryption { .. } => self.recreate.clone(),
        }
    }

    /// All of it for a person.
    pub fn problem(&self) -> Problem {
        Problem {
            code: self.code(),
            what: self.what(),
            place: format!("{} and {}", self.first, self.second),
            why: self.code().entry().map_or(String::new(), |entry| entry.meaning.to_owned()),
            fix: self.fix(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, id: u16, prefixes: &[&str]) -> Side {
        let spec = ClusterSpec {
            id: ClusterId::new(id).unwrap(),
            prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
            ..ClusterSpec::from_name(ClusterName::new(name).unwrap())
        };
        Side { spec, nodes: Vec::new(), endpoints: 0 }
    }

    fn codes(first: &Side, second: &Side) -> Vec<ErrorCode> {
        check(first, second).iter().map(Conflict::code).collect()
    }

    #[test]
    fn different_clusters_may_connect() {
        let (eu, us) = (side("eu", 1, &["10.1.0.0/16"]), side("us", 2, &["10.2.0.0/16"]));
        assert_eq!(check(&eu, &us), []);
    }

    #[test]
    fn every_collision_is_named() {
        let eu = side("eu", 1, &["10.1.0.0/16", "fd00:1::/48"]);
        let same = check(&eu, &eu);
        assert_eq!(same[0].code(), error_code::SAME_CLUSTER_NAME);
        let mut us = side("us", 1, &["10.1.128.0/17"]);
        us.spec.routing = Routing::Native;
        us.spec.encryption = Encryption::None;
        let expected = [
            error_code::SAME_CLUSTER_ID,
            error_code::OVERLAPPING_PREFIXES,
            error_code::ROUTING_MISMATCH,
            error_code::ENCRYPTION_MISMATCH,
        ];
        assert_eq!(codes(&eu, &us), expected);
        let shown: Vec<String> = check(&eu, &us).iter().map(|one| one.problem().to_string()).collect();
        assert_eq!(
            shown,
            [
                "FAB-2101 eu and us both have cluster id 1",
                "FAB-2103 10.1.0.0/16 of eu and 10.1.128.0/17 of us overlap",
                "FAB-2104 eu uses vxlan routing, us uses native",
                "FAB-2105 eu has encryption wireguard, us has none",
            ]
        );
    }

    #[test]
    fn one_command_cures_everything() {
        let mut eu = side("eu", 1, &["10.64.0.0/16", "fd00:1::/48"]);
        let mut us = side("us", 1, &["10.64.128.0/17", "fd00:2::/48"]);
        us.spec.routing = Routing::Native;
        us.spec.encryption = Encryption::None;
        for conflict in check(&eu, &us) {
            assert_eq!(
                conflict.fix(),
                "fabric up --cluster us --id 2 --prefix 10.65.0.0/16 --prefix fd00:2::/48 --recreate"
            );
        }
        // What the command makes collides no more.
        us.spec = ClusterSpec {
            id: ClusterId::new(2u16).unwrap(),
            prefixes: vec!["10.65.0.0/16".parse().unwrap(), "fd00:2::/48".parse().unwrap()],
            ..ClusterSpec::from_name(us.spec.name)
        };
        assert_eq!(check(&eu, &us), []);
        // The fuller side's modes are taken over.
        (us.endpoints, us.spec.routing, us.spec.encryption) = (9, Routing::Geneve, Encryption::None);
        eu.spec = ClusterSpec::from_name(eu.spec.name);
        let fix = check(&eu, &us)[0].fix();
        assert_eq!(fix, "fabric up --cluster eu --routing geneve --no-encryption --recreate");
    }

    #[test]
    fn the_emptier_side_is_the_one_to_recreate() {
        let (mut eu, mut us) = (side("eu", 1, &["10.1.0.0/16"]), side("us", 1, &["10.2.0.0/16"]));
        us.endpoints = 7;
        assert_eq!(check(&eu, &us)[0].fix(), "fabric up --cluster eu --id 2 --prefix 10.1.0.0/16 --recreate");
        eu.endpoints = 8;
        assert_eq!(check(&eu, &us)[0].emptier, "us");
    }

    #[test]
    fn node_and_service_addresses_lie_outside_the_others_prefixes() {
        let (mut eu, mut us) = (side("eu", 1, &["10.1.0.0/16"]), side("us", 2, &["172.30.0.0/16"]));
        eu.nodes = vec![
            (NodeName::new("n1").unwrap(), "172.30.4.4".parse().unwrap()),
            (NodeName::new("n2").unwrap(), "192.0.2.1".parse().unwrap()),
        ];
        us.nodes = vec![(NodeName::new("m1").unwrap(), "192.0.2.1".parse().unwrap())];
        let found = check(&eu, &us);
        assert_eq!(
            found.iter().map(Conflict::what).collect::<Vec<_>>(),
            [
                "service range 172.30.0.0/16 of eu and workload prefix 172.30.0.0/16 of us overlap",
                "address 172.30.4.4 of node n1 of eu lies inside workload prefix 172.30.0.0/16 of us",
                "node n2 of eu and node m1 of us both have address 192.0.2.1",
            ]
        );
    }
}
