//! Addresses of services: each from the cluster's service range of its family, none twice.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::{ClusterIps, Families, ServiceSpec};
use crate::prefix::Prefix;

/// Most addresses of one range that are used; larger ranges are used in their first part only.
const MAX_POOL: u128 = 1 << 16;

/// No address for a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllotError {
    /// All taken.
    #[error("service range {0} is full; remove services, or give the cluster a larger range")]
    Full(Prefix),
    /// The cluster has no range of a family that the service insists on.
    #[error("the cluster has no {0} service range")]
    NoRange(&'static str),
    /// An address that was asked for belongs to another service.
    #[error("service address {0} belongs to another service; leave clusterIP out to get a free one")]
    Taken(IpAddr),
    /// An address that was asked for lies elsewhere, or is the first or last of the range.
    #[error("service address {address} is not one of {ranges} that services may have")]
    Outside {
        /// What was asked for.
        address: IpAddr,
        /// Where it would have to be.
        ranges: String,
    },
}

/// The addresses of a service: those that it asks for, else free ones.
///
/// `name` (`namespace/name`) says where the search begins, so that writers who race for an address seldom meet and an
/// address that was freed is seldom the next one given away. `taken` is asked for each address that is tried.
///
/// # Errors
/// When an address that was asked for cannot be had, or a range is full or missing.
pub fn allot(
    name: &str,
    spec: &ServiceSpec,
    ranges: &[Prefix],
    taken: impl Fn(IpAddr) -> bool,
) -> Result<Vec<IpAddr>, AllotError> {
    let of_family = |ipv4: bool| ranges.iter().find(|range| range.is_ipv4() == ipv4);
    let mut addresses: Vec<IpAddr> = match &spec.cluster_ips {
        ClusterIps::Headless => return Ok(Vec::new()),
        ClusterIps::Allotted => Vec::new(),
        ClusterIps::Given(given) => {
            for &address in given {
                check_given(address, ranges, &taken)?;
            }
            given.clone()
        }
    };
    let wanted: &[(bool, &str)] = match spec.families {
        Families::Dual => &[(true, "IPv4"), (false, "IPv6")],
        Families::Ipv4 => &[(true, "IPv4")],
        Families::Ipv6 => &[(false, "IPv6")],
    };
    for &(ipv4, family) in wanted {
        if addresses.iter().any(|address| address.is_ipv4() == ipv4) {
            continue;
        }
        match of_family(ipv4) {
            Some(range) => addresses.push(next_free(name, *range, &taken)?),
            // Dual stack takes what there is.
            None if spec.families == Families::Dual && !ranges.is_empty() => {}
            None => return Err(AllotError::NoRange(family)),
        }
    }
    Ok(addresses)
}

fn check_given(address: IpAddr, ranges: &[Prefix], taken: &impl Fn(IpAddr) -> bool) -> Result<(), AllotError> {
    let usable = ranges.iter().any(|range| {
        let size = pool(*range);
        let ends = [range.nth(0), range.nth(size.saturating_sub(1))];
        range.contains(address) && !ends.contains(&Some(address))
    });
    if !usable {
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        return Err(AllotError::Outside { address, ranges: ranges.join(" and ") });
    }
    if taken(address) { Err(AllotError::Taken(address)) } else { Ok(()) }
}

/// How many addresses of a range are used at most, its first and last included.
fn pool(range: Prefix) -> u128 {
    let bits: u8 = if range.is_ipv4() { 32 } else { 128 };
    let host_bits = u32::from(bits - range.length());
    1_u128.checked_shl(host_bits).map_or(MAX_POOL, |size| size.min(MAX_POOL))
}

/// The first free address at or after the one that the name leads to; first and last of the range are left alone, as
/// they mean network and broadcast in IPv4, all routers in IPv6.
fn next_free(name: &str, range: Prefix, taken: &impl Fn(IpAddr) -> bool) -> Result<IpAddr, AllotError> {
    let usable = pool(range).saturating_sub(2);
    let digest = Sha256::digest(name.as_bytes());
    let start = digest.iter().take(8).fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    (0..usable)
        .filter_map(|step| range.nth(1 + (start + step) % usable))
        .find(|&address| !taken(address))
        .ok_or(AllotError::Full(range))
}
