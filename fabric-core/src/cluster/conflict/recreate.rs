//! The exact command that re-creates a cluster so that nothing stands between it and another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Reason, Side};
use crate::cluster::{ClusterSpec, Encryption, Routing};
use crate::ids::ClusterId;
use crate::names::ClusterName;
use crate::prefix::Prefix;

/// Writes the command: the cluster as it is, with what collides changed, and everything that does not follow from its
/// name said.
pub(super) fn command(spec: &ClusterSpec, other: &Side, reasons: &[Reason]) -> String {
    let mut wanted = spec.clone();
    let mut placeholder = None;
    for reason in reasons {
        match reason {
            // A new name is the owner's to choose; what is derived follows from it then.
            Reason::SameName => placeholder = Some("OTHER-NAME"),
            Reason::SameId(_) => wanted.id = free_id(spec.id, other.spec.id),
            Reason::Prefixes { .. } | Reason::ServiceRange { .. } => {
                replace_overlaps(&mut wanted.prefixes, other, &spec.service_prefixes);
                replace_service_overlaps(&mut wanted.service_prefixes, other);
            }
            Reason::Routing { .. } => wanted.routing = other.spec.routing,
            Reason::Encryption { .. } => wanted.encryption = other.spec.encryption,
            Reason::NodeInsidePrefix { .. } | Reason::SameNodeAddress { .. } => {}
        }
    }
    let name = placeholder.unwrap_or(spec.name.as_str());
    let flags = if placeholder.is_some() { mode_flags(&wanted) } else { flags(&wanted, &spec.name) };
    format!("fabric up --cluster {name}{flags} --recreate")
}

/// Everything in which the cluster differs from what its name gives.
fn flags(wanted: &ClusterSpec, name: &ClusterName) -> String {
    use std::fmt::Write as _;
    let derived = ClusterSpec::from_name(name.clone());
    let mut text = String::new();
    // Writing to a string cannot fail.
    if wanted.id != derived.id {
        let _ = write!(text, " --id {}", wanted.id);
    }
    for (flag, wanted, derived) in [
        ("--prefix", &wanted.prefixes, &derived.prefixes),
        ("--service-prefix", &wanted.service_prefixes, &derived.service_prefixes),
    ] {
        if wanted != derived {
            for prefix in wanted {
                let _ = write!(text, " {flag} {prefix}");
            }
        }
    }
    text + &mode_flags(wanted)
}

fn mode_flags(wanted: &ClusterSpec) -> String {
    let routing = match wanted.routing {
        Routing::Vxlan => String::new(),
        Routing::Geneve | Routing::Native => format!(" --routing {}", wanted.routing),
    };
    match wanted.encryption {
        Encryption::Wireguard => routing,
        Encryption::None => routing + " --no-encryption",
    }
}

/// An id that neither side has.
fn free_id(first: ClusterId, second: ClusterId) -> ClusterId {
    let free = |id: &ClusterId| *id != first && *id != second;
    (1u16..=3).filter_map(|number| ClusterId::new(number).ok()).find(free).unwrap_or(ClusterId::MIN)
}

fn overlaps_other(prefix: &Prefix, other: &Side) -> bool {
    let held = other.spec.prefixes.iter().chain(&other.spec.service_prefixes);
    held.into_iter().any(|held| held.overlaps(prefix))
        || other.nodes.iter().any(|(_, address)| prefix.contains(*address))
}

/// Puts a free prefix of the usual size in place of each that overlaps.
fn replace_overlaps(prefixes: &mut [Prefix], other: &Side, services: &[Prefix]) {
    for prefix in prefixes.iter_mut().filter(|prefix| overlaps_other(prefix, other)) {
        let free = |candidate: &Prefix| {
            !overlaps_other(candidate, other) && !services.iter().any(|service| service.overlaps(candidate))
        };
        let found = if prefix.is_ipv4() {
            (64u8..=223).filter_map(|n| of(IpAddr::V4(Ipv4Addr::new(10, n, 0, 0)), 16)).find(free)
        } else {
            (1u16..=512).filter_map(|n| of(IpAddr::V6(Ipv6Addr::new(0xfdfa, n, 0, 0, 0, 0, 0, 0)), 48)).find(free)
        };
        *prefix = found.unwrap_or(*prefix);
    }
}

/// Puts a free service range in place of each that overlaps the other's workloads.
fn replace_service_overlaps(services: &mut [Prefix], other: &Side) {
    for service in services {
        let free = |candidate: &Prefix| !other.spec.prefixes.iter().any(|prefix| prefix.overlaps(candidate));
        if free(service) {
            continue;
        }
        let found = if service.is_ipv4() {
            (16u8..=31).filter_map(|n| of(IpAddr::V4(Ipv4Addr::new(172, n, 0, 0)), 16)).find(free)
        } else {
            (1u16..=512).filter_map(|n| of(IpAddr::V6(Ipv6Addr::new(0xfdfa, n, 0x1ce, 0, 0, 0, 0, 0)), 112)).find(free)
        };
        *service = found.unwrap_or(*service);
    }
}

fn of(address: IpAddr, length: u8) -> Option<Prefix> {
    Prefix::new(address, length).ok()
}
