//! Hands out node ranges and addresses: given what is taken, what comes next.
//!
//! One /24 and one /64 per node, both with the same index; the last of each is for machines, which get one address.
//! Whoever calls this writes the result by compare-and-swap and asks again when somebody was quicker.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::ClusterSpec;
use crate::prefix::Prefix;

/// Length of a node's IPv4 range.
pub const NODE_RANGE_IPV4: u8 = 24;
/// Length of a node's IPv6 range.
pub const NODE_RANGE_IPV6: u8 = 64;

/// What a node gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAllotment {
    /// For its endpoints, IPv4 first.
    pub ranges: Vec<Prefix>,
    /// Its own addresses inside the overlay: the first usable of each range.
    pub overlay_addresses: Vec<IpAddr>,
}

/// Nothing is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no free {what} is left in {prefixes:?}")]
pub struct Exhausted {
    /// What was asked for.
    pub what: &'static str,
    /// Where.
    pub prefixes: Vec<Prefix>,
}

fn range_length(prefix: &Prefix) -> u8 {
    if prefix.is_ipv4() { NODE_RANGE_IPV4 } else { NODE_RANGE_IPV6 }
}

/// Number of ranges in a prefix, the last one for machines.
fn range_count(prefix: &Prefix) -> u128 {
    1u128.checked_shl(u32::from(range_length(prefix).saturating_sub(prefix.length()))).unwrap_or(u128::MAX)
}

/// The ranges of the node with the lowest free index.
///
/// # Errors
/// When every range is taken.
pub fn node(cluster: &ClusterSpec, taken: &BTreeSet<Prefix>) -> Result<NodeAllotment, Exhausted> {
    let exhausted = || Exhausted { what: "node range", prefixes: cluster.prefixes.clone() };
    let nodes = cluster.prefixes.iter().map(range_count).min().map_or(0, |count| count.saturating_sub(1));
    // A free index comes at most one past the number of taken ranges.
    let tries = nodes.min(taken.len() as u128 + 1);
    for index in 0..tries {
        let ranges: Option<Vec<Prefix>> =
            cluster.prefixes.iter().map(|prefix| prefix.subnet(range_length(prefix), index)).collect();
        let ranges = ranges.ok_or_else(exhausted)?;
        if ranges.iter().any(|range| taken.contains(range)) {
            continue;
        }
        let overlay_addresses = ranges.iter().filter_map(overlay_address).collect();
        return Ok(NodeAllotment { ranges, overlay_addresses });
    }
    Err(exhausted())
}

/// The node's own address in one of its ranges.
pub fn overlay_address(range: &Prefix) -> Option<IpAddr> {
    range.nth(1)
}

/// The ranges that machines get their addresses from: the last /24 and /64.
pub fn machine_ranges(cluster: &ClusterSpec) -> Vec<Prefix> {
    cluster
        .prefixes
        .iter()
        .filter_map(|prefix| prefix.subnet(range_length(prefix), range_count(prefix).saturating_sub(1)))
        .collect()
}

/// The addresses of the next machine: one of each family, with the same number.
///
/// # Errors
/// When every address is taken.
pub fn machine(cluster: &ClusterSpec, taken: &BTreeSet<IpAddr>) -> Result<Vec<IpAddr>, Exhausted> {
    next_in_step(&machine_ranges(cluster), taken, 1, 0)
        .ok_or_else(|| Exhausted { what: "machine address", prefixes: machine_ranges(cluster) })
}

/// The addresses of the next endpoint on a node: one of each family, with the same number.
///
/// `after` is the number given last ([`number_of`]): going round instead of taking the lowest keeps a freed address unused
/// for as long as possible.
///
/// # Errors
/// When every address is taken.
pub fn endpoint(ranges: &[Prefix], taken: &BTreeSet<IpAddr>, after: u128) -> Result<Vec<IpAddr>, Exhausted> {
    // 0 is the network, 1 the node.
    next_in_step(ranges, taken, 2, after)
        .ok_or_else(|| Exhausted { what: "endpoint address", prefixes: ranges.to_vec() })
}

/// The addresses of the next service, as [`endpoint`].
///
/// # Errors
/// When every address is taken.
pub fn service(ranges: &[Prefix], taken: &BTreeSet<IpAddr>, after: u128) -> Result<Vec<IpAddr>, Exhausted> {
    next_in_step(ranges, taken, 1, after)
        .ok_or_else(|| Exhausted { what: "service address", prefixes: ranges.to_vec() })
}

/// Number of an address in its range, counted from the lowest.
pub fn number_of(range: &Prefix, address: IpAddr) -> Option<u128> {
    if !range.contains(address) {
        return None;
    }
    match (range.address(), address) {
        (IpAddr::V4(start), IpAddr::V4(address)) => Some(u128::from(address.to_bits().checked_sub(start.to_bits())?)),
        (IpAddr::V6(start), IpAddr::V6(address)) => address.to_bits().checked_sub(start.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// The first number after `after`, going round, whose address is free in every range.
fn next_in_step(ranges: &[Prefix], taken: &BTreeSet<IpAddr>, first: u128, after: u128) -> Option<Vec<IpAddr>> {
    if ranges.is_empty() {
        return None;
    }
    // The last IPv4 address is the broadcast address.
    let last = ranges.iter().map(|range| hosts(range).saturating_sub(2)).min()?;
    if last < first {
        return None;
    }
    let span = last - first + 1;
    let start = if after < first || after >= last { first } else { after + 1 };
    // A free number comes at most one past the number of taken addresses.
    (0..span.min(taken.len() as u128 + 1)).find_map(|step| {
        let number = first + (start - first + step) % span;
        let addresses: Vec<IpAddr> = ranges.iter().map(|range| range.nth(number)).collect::<Option<_>>()?;
        (!addresses.iter().any(|address| taken.contains(address))).then_some(addresses)
    })
}

fn hosts(range: &Prefix) -> u128 {
    let bits = if range.is_ipv4() { 32 } else { 128 };
    1u128.checked_shl(bits - u32::from(range.length())).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ClusterName;

    fn cluster(prefixes: &[&str]) -> ClusterSpec {
        ClusterSpec {
            prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
            ..ClusterSpec::from_name(ClusterName::new("eu").unwrap())
        }
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn first_node_and_second() {
        let eu = cluster(&["10.70.0.0/16", "fdfa:1::/48"]);
        let first = node(&eu, &BTreeSet::new()).unwrap();
        assert_eq!(first.ranges, [prefix("10.70.0.0/24"), prefix("fdfa:1::/64")]);
        assert_eq!(first.overlay_addresses, ["10.70.0.1".parse::<IpAddr>().unwrap(), "fdfa:1::1".parse().unwrap()]);
        let second = node(&eu, &first.ranges.into_iter().collect()).unwrap();
        assert_eq!(second.ranges, [prefix("10.70.1.0/24"), prefix("fdfa:1:0:1::/64")]);
    }

    #[test]
    fn a_gap_is_filled_and_either_family_blocks_an_index() {
        let eu = cluster(&["10.70.0.0/16", "fdfa:1::/48"]);
        let taken = [prefix("10.70.0.0/24"), prefix("fdfa:1:0:1::/64"), prefix("10.70.3.0/24")].into();
        assert_eq!(node(&eu, &taken).unwrap().ranges[0], prefix("10.70.2.0/24"));
    }

    #[test]
    fn the_last_range_is_for_machines() {
        let eu = cluster(&["10.70.0.0/16", "fdfa:1::/48"]);
        assert_eq!(machine_ranges(&eu), [prefix("10.70.255.0/24"), prefix("fdfa:1:0:ffff::/64")]);
        let taken: BTreeSet<Prefix> = (0..255).map(|n| prefix(&format!("10.70.{n}.0/24"))).collect();
        assert!(node(&eu, &taken).is_err());
        let first = machine(&eu, &BTreeSet::new()).unwrap();
        assert_eq!(first, ["10.70.255.1".parse::<IpAddr>().unwrap(), "fdfa:1:0:ffff::1".parse().unwrap()]);
        let second = machine(&eu, &[first[1]].into()).unwrap();
        assert_eq!(second[0].to_string(), "10.70.255.2");
    }

    #[test]
    fn endpoints_go_round_and_end() {
        let ranges = [prefix("10.70.0.0/24"), prefix("fdfa:1::/64")];
        let mut taken = BTreeSet::new();
        let mut after = 0;
        for _ in 2..=254 {
            let given = endpoint(&ranges, &taken, after).unwrap();
            after = number_of(&ranges[0], given[0]).unwrap();
            assert!(taken.insert(given[0]), "{given:?}");
        }
        assert!(endpoint(&ranges, &taken, after).is_err());
        let freed: IpAddr = "10.70.0.9".parse().unwrap();
        taken.remove(&freed);
        assert_eq!(endpoint(&ranges, &taken, after).unwrap()[0], freed);
        let fresh = endpoint(&ranges, &BTreeSet::new(), 9).unwrap();
        assert_eq!(fresh[0].to_string(), "10.70.0.10");
    }

    #[test]
    fn services_of_one_family() {
        let given = service(&[prefix("172.30.0.0/16")], &BTreeSet::new(), 0).unwrap();
        assert_eq!(given, ["172.30.0.1".parse::<IpAddr>().unwrap()]);
        assert!(service(&[], &BTreeSet::new(), 0).is_err());
    }
}
