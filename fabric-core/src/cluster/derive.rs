//! Number and prefixes of a cluster that was given a name alone.
//!
//! SHA-256 of `fabric-cluster:` and the name, cut: bytes 0..4 (big endian) modulo 255, plus 1, is the id; bytes 4..8 modulo 160, plus 64, the second
//! number of `10.x.0.0/16`; bytes 8..10 the second group of `fdfa:x::/48`. The three are independent, so two clusters that
//! collide in one rarely collide in another. Changing this function re-numbers clusters not yet born, never those that exist.
//! The text before the name keeps short names that people take first (a, b, c, eu, us) apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest as _, Sha256};

use crate::ids::ClusterId;
use crate::names::ClusterName;
use crate::prefix::Prefix;

/// The id that follows from the name.
pub fn id(name: &ClusterName) -> ClusterId {
    let [a, b, c, d, ..] = digest(name);
    let number = u32::from_be_bytes([a, b, c, d]) % 255 + 1;
    ClusterId::new(number).unwrap_or(ClusterId::MIN)
}

/// The workload prefixes that follow from the name, IPv4 first.
pub fn prefixes(name: &ClusterName) -> Vec<Prefix> {
    let digest = digest(name);
    let byte = |index: usize| digest.get(index).copied().unwrap_or_default();
    let second = u32::from_be_bytes([byte(4), byte(5), byte(6), byte(7)]) % 160 + 64;
    let ipv4 = Ipv4Addr::new(10, u8::try_from(second).unwrap_or(64), 0, 0);
    let ipv6 = Ipv6Addr::new(0xfdfa, u16::from_be_bytes([byte(8), byte(9)]), 0, 0, 0, 0, 0, 0);
    [(IpAddr::V4(ipv4), 16), (IpAddr::V6(ipv6), 48)]
        .into_iter()
        .filter_map(|(address, length)| Prefix::new(address, length).ok())
        .collect()
}

/// The service ranges of every cluster that was not given others. They are no owned prefixes, so they may be equal.
///
/// The third group of the IPv6 range is not 0, so no derived workload prefix overlaps it.
pub fn service_prefixes() -> Vec<Prefix> {
    let ipv4 = Ipv4Addr::new(172, 30, 0, 0);
    let ipv6 = Ipv6Addr::new(0xfdfa, 0x5e, 0x1ce, 0, 0, 0, 0, 0);
    [(IpAddr::V4(ipv4), 16), (IpAddr::V6(ipv6), 112)]
        .into_iter()
        .filter_map(|(address, length)| Prefix::new(address, length).ok())
        .collect()
}

fn digest(name: &ClusterName) -> [u8; 32] {
    Sha256::digest(format!("fabric-cluster:{name}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_never_changes() {
        let eu = ClusterName::new("eu").unwrap();
        let us = ClusterName::new("us").unwrap();
        let shown = |name| format!("{} {:?}", id(name), prefixes(name));
        assert_eq!(shown(&eu), "215 [10.98.0.0/16, fdfa:aa6f::/48]");
        assert_eq!(shown(&us), "225 [10.159.0.0/16, fdfa:d89c::/48]");
    }

    #[test]
    fn names_that_people_take_first_do_not_collide() {
        let names = ["a", "b", "c", "d", "e", "f", "eu", "us", "ap", "one", "two"];
        let names: Vec<ClusterName> = names.iter().map(|name| ClusterName::new(name).unwrap()).collect();
        for (index, first) in names.iter().enumerate() {
            for second in names.iter().skip(index + 1) {
                assert_ne!(id(first), id(second), "{first} {second}");
                assert!(!prefixes(first).iter().any(|one| prefixes(second).contains(one)), "{first} {second}");
            }
        }
    }

    #[test]
    fn all_names_give_legal_numbers() {
        for n in 0..2000 {
            let name = ClusterName::new(&format!("c{n}")).unwrap();
            let prefixes = prefixes(&name);
            assert!(prefixes.iter().all(|prefix| service_prefixes().iter().all(|service| !service.overlaps(prefix))));
            assert_eq!(prefixes.len(), 2);
            let _: ClusterId = id(&name);
        }
    }
}
