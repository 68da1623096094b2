//! What a cluster is: name, number, prefixes, how its nodes talk. And what two clusters must not share.
//!
//! [`mod@derive`] makes a cluster from its name, [`allot`] hands out ranges and addresses inside it, [`conflict`] says why two
//! clusters cannot be connected.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, Mtu};
use crate::names::ClusterName;
use crate::prefix::Prefix;

pub mod allot;
pub mod conflict;
pub mod derive;

/// How packets travel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// VXLAN (RFC 7348), UDP 8472.
    #[default]
    Vxlan,
    /// Geneve (RFC 8926), UDP 6081.
    Geneve,
    /// No overlay: the underlay routes the endpoint ranges.
    Native,
}

/// How packets between nodes are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Not at all.
    None,
    /// WireGuard, UDP 51871.
    #[default]
    Wireguard,
}

/// A word that is not one of those known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not {known}")]
pub struct UnknownWord {
    /// What was asked for.
    pub what: &'static str,
    /// What was given.
    pub given: String,
    /// What is known.
    pub known: &'static str,
}

impl Routing {
    /// As users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Native => "native",
        }
    }

    /// Whether packets get an outer header with the identity.
    pub const fn is_tunnel(self) -> bool {
        match self {
            Self::Vxlan | Self::Geneve => true,
            Self::Native => false,
        }
    }
}

impl Encryption {
    /// As users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Wireguard => "wireguard",
        }
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Routing {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "vxlan" => Ok(Self::Vxlan),
            "geneve" => Ok(Self::Geneve),
            "native" => Ok(Self::Native),
            given => Err(UnknownWord { what: "routing", given: given.to_owned(), known: "vxlan, geneve or native" }),
        }
    }
}

impl FromStr for Encryption {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "none" => Ok(Self::None),
            "wireguard" => Ok(Self::Wireguard),
            given => Err(UnknownWord { what: "encryption", given: given.to_owned(), known: "wireguard or none" }),
        }
    }
}

/// A cluster as its own configuration and its links describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// Unique in the mesh.
    pub name: ClusterName,
    /// Unique in the mesh.
    pub id: ClusterId,
    /// Workload prefixes ("owned prefixes"): endpoints and machines, never node addresses or service addresses.
    pub prefixes: Vec<Prefix>,
    /// Service addresses; may equal another cluster's.
    #[serde(default)]
    pub service_prefixes: Vec<Prefix>,
    /// How packets travel between nodes.
    #[serde(default)]
    pub routing: Routing,
    /// How packets between nodes are protected.
    #[serde(default)]
    pub encryption: Encryption,
    /// Smallest underlay MTU that its nodes announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay_mtu: Option<Mtu>,
}

/// A cluster that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCluster {
    /// Nothing to give endpoints addresses from.
    #[error("cluster {0} has no workload prefix")]
    NoPrefix(ClusterName),
    /// More than one of a family; allotment would not know which to take.
    #[error("cluster {cluster} has {first} and {second}: one prefix of each family is allowed")]
    TwoOfAFamily {
        /// Which cluster.
        cluster: ClusterName,
        /// The one kept.
        first: Prefix,
        /// The one too many.
        second: Prefix,
    },
    /// Too small or too large to be cut into node ranges.
    #[error("prefix {prefix}: its length must be {min} to {max}")]
    PrefixLength {
        /// Which prefix.
        prefix: Prefix,
        /// Shortest.
        min: u8,
        /// Longest.
        max: u8,
    },
    /// Addresses with another meaning.
    #[error("prefix {0} holds loopback, link-local, multicast or unspecified addresses")]
    SpecialAddresses(Prefix),
    /// Service addresses would be mistaken for workloads.
    #[error("service range {service} overlaps workload prefix {prefix}")]
    ServiceOverlap {
        /// The service range.
        service: Prefix,
        /// The workload prefix.
        prefix: Prefix,
    },
}

/// Prefixes that no workload or service can have.
const SPECIAL: [&str; 8] =
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8", "::ffff:0:0/96"];

impl ClusterSpec {
    /// A cluster with everything derived from its name; see [`mod@derive`].
    pub fn from_name(name: ClusterName) -> Self {
        Self {
            id: derive::id(&name),
            prefixes: derive::prefixes(&name),
            service_prefixes: derive::service_prefixes(),
            routing: Routing::default(),
            encryption: Encryption::default(),
            underlay_mtu: None,
            name,
        }
    }

    /// Checks that ranges can be cut from the prefixes and that services lie outside them.
    ///
    /// # Errors
    /// The first reason why it cannot be.
    pub fn validate(&self) -> Result<(), InvalidCluster> {
        if self.prefixes.is_empty() {
            return Err(InvalidCluster::NoPrefix(self.name.clone()));
        }
        for list in [&self.prefixes, &self.service_prefixes] {
            for ipv4 in [true, false] {
                let mut family = list.iter().filter(|prefix| prefix.is_ipv4() == ipv4);
                if let (Some(&first), Some(&second)) = (family.next(), family.next()) {
                    return Err(InvalidCluster::TwoOfAFamily { cluster: self.name.clone(), first, second });
                }
            }
        }
        for &prefix in &self.prefixes {
            check_length(prefix, if prefix.is_ipv4() { (8, 22) } else { (16, 62) })?;
        }
        for &prefix in &self.service_prefixes {
            check_length(prefix, if prefix.is_ipv4() { (8, 28) } else { (16, 124) })?;
        }
        for &service in &self.service_prefixes {
            if let Some(&prefix) = self.prefixes.iter().find(|prefix| prefix.overlaps(&service)) {
                return Err(InvalidCluster::ServiceOverlap { service, prefix });
            }
        }
        Ok(())
    }

    /// Whether the address is one of its workloads'.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(address))
    }

    /// Whether all of the prefix lies in one of its workload prefixes.
    pub fn owns_prefix(&self, prefix: &Prefix) -> bool {
        self.prefixes.iter().any(|own| own.covers(prefix))
    }

    /// Its workload prefix of one family.
    pub fn prefix_of_family(&self, ipv4: bool) -> Option<Prefix> {
        self.prefixes.iter().copied().find(|prefix| prefix.is_ipv4() == ipv4)
    }
}

fn check_length(prefix: Prefix, (min, max): (u8, u8)) -> Result<(), InvalidCluster> {
    if prefix.length() < min || prefix.length() > max {
        return Err(InvalidCluster::PrefixLength { prefix, min, max });
    }
    let special = SPECIAL.iter().filter_map(|text| text.parse::<Prefix>().ok());
    if special.into_iter().any(|special| special.overlaps(&prefix)) {
        return Err(InvalidCluster::SpecialAddresses(prefix));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(prefixes: &[&str], services: &[&str]) -> ClusterSpec {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        ClusterSpec {
            prefixes: parse(prefixes),
            service_prefixes: parse(services),
            ..ClusterSpec::from_name(ClusterName::new("eu").unwrap())
        }
    }

    #[test]
    fn derived_clusters_are_valid() {
        for name in ["eu", "us", "ap", "a", "fabric-b"] {
            ClusterSpec::from_name(ClusterName::new(name).unwrap()).validate().unwrap();
        }
    }

    #[test]
    fn impossible_clusters_are_refused() {
        let cases: [(&[&str], &[&str]); 8] = [
            (&[], &[]),
            (&["10.1.0.0/16", "10.2.0.0/16"], &[]),
            (&["10.1.0.0/24"], &[]),
            (&["10.1.0.0/16", "fd00::/64"], &[]),
            (&["127.0.0.0/8"], &[]),
            (&["fe80::/32"], &[]),
            (&["10.1.0.0/16"], &["10.1.9.0/24"]),
            (&["10.1.0.0/16"], &["10.2.0.0/30"]),
        ];
        for (prefixes, services) in cases {
            assert!(spec(prefixes, services).validate().is_err(), "{prefixes:?} {services:?}");
        }
        spec(&["10.1.0.0/16", "fd00:1::/48"], &["172.30.0.0/16", "fdfa:5e:1ce::/112"]).validate().unwrap();
    }

    #[test]
    fn words() {
        assert_eq!("geneve".parse::<Routing>().unwrap().to_string(), "geneve");
        assert_eq!(
            "ipsec".parse::<Encryption>().unwrap_err().to_string(),
            "encryption \"ipsec\" is not wireguard or none"
        );
    }
}
