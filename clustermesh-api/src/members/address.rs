//! Addresses as members name them.

use std::net::IpAddr;

use fabric_core::cluster::ClusterSpec;
use fabric_core::error_code as codes;
use fabric_core::prefix::Prefix;

use crate::failure::Failure;
use crate::records::{self, LinkRecord, key};
use crate::store::View;

/// Most addresses of a node, or of an endpoint.
const MOST: usize = 16;

/// Parses addresses; each once, in order.
///
/// # Errors
/// When one is none, or there are too many.
pub fn parse_list(what: &str, texts: &[String]) -> Result<Vec<IpAddr>, Failure> {
    if texts.len() > MOST {
        return Err(Failure::invalid(format_args!("{what}: {} addresses, at most {MOST} are allowed", texts.len())));
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in texts {
        let address: IpAddr = crate::convert::field(what, text)?;
        if address.to_canonical() != address || address.is_unspecified() || address.is_multicast() {
            return Err(Failure::invalid(format_args!("{what} {address} cannot be an address of one machine")));
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Every cluster's workload prefixes, with its name.
pub fn owned_prefixes(view: &View, own: &ClusterSpec) -> Vec<(String, Prefix)> {
    let links = records::read_all::<LinkRecord>(view, key::LINKS);
    let linked = links.into_iter().map(|link| link.value.cluster);
    std::iter::once(own.clone())
        .chain(linked)
        .flat_map(|spec| spec.prefixes.iter().map(|prefix| (spec.name.to_string(), *prefix)).collect::<Vec<_>>())
        .collect()
}

/// Control traffic and tunnels must not depend on the mesh that they carry.
///
/// # Errors
/// When a node's own address is a workload's.
pub fn outside_mesh(view: &View, own: &ClusterSpec, node: &str, addresses: &[IpAddr]) -> Result<(), Failure> {
    let owned = owned_prefixes(view, own);
    for address in addresses {
        if let Some((cluster, prefix)) = owned.iter().find(|(_, prefix)| prefix.contains(*address)) {
            let message = format_args!(
                "address {address} of node {node} lies inside workload prefix {prefix} of cluster {cluster}"
            );
            return Err(Failure::refused(codes::NODE_INSIDE_PREFIX, message));
        }
    }
    Ok(())
}
