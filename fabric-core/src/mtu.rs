//! The largest packet of an endpoint, from what its packets are wrapped in.

use crate::cluster::{Encryption, Routing};
use crate::ids::Mtu;

/// Family of the addresses that nodes use to reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OuterFamily {
    /// IPv4, 20 bytes of header.
    Ipv4,
    /// IPv6, 40 bytes of header.
    Ipv6,
}

/// What a packet is wrapped in on its way to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wrapping {
    /// Overlay.
    pub routing: Routing,
    /// Family of all outer headers.
    pub outer: OuterFamily,
    /// Protection.
    pub encryption: Encryption,
}

/// Less than 1280 bytes are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an underlay MTU of {underlay} leaves {left} bytes after {} with {} encryption; at least 1280 are needed",
    .wrapping.routing, .wrapping.encryption)]
pub struct MtuTooSmall {
    /// What the underlay passes, bytes.
    pub underlay: Mtu,
    /// What is left, bytes.
    pub left: u16,
    /// What it is spent on.
    pub wrapping: Wrapping,
}

/// UDP header (RFC 768).
const UDP: u16 = 8;
/// VXLAN header (RFC 7348), or a Geneve header without options (RFC 8926).
const TUNNEL_HEADER: u16 = 8;
/// Header of the Ethernet frame inside VXLAN and Geneve.
const INNER_ETHERNET: u16 = 14;
/// WireGuard transport message: type, receiver and counter, 16; authentication tag, 16.
const WIREGUARD: u16 = 32;
/// WireGuard pads its content to a multiple of this.
const WIREGUARD_PADDING: u16 = 16;

impl OuterFamily {
    /// Family of an address.
    pub const fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    const fn header(self) -> u16 {
        match self {
            Self::Ipv4 => 20,
            Self::Ipv6 => 40,
        }
    }
}

/// The largest packet that WireGuard may carry so that, padded, it fits the underlay: the WireGuard device's MTU.
pub const fn wireguard(underlay: Mtu, outer: OuterFamily) -> u16 {
    let content = underlay.value().saturating_sub(outer.header() + UDP + WIREGUARD);
    content - content % WIREGUARD_PADDING
}

/// Bytes that VXLAN or Geneve add; 0 without an overlay.
pub const fn tunnel_overhead(routing: Routing, outer: OuterFamily) -> u16 {
    match routing {
        Routing::Vxlan | Routing::Geneve => outer.header() + UDP + TUNNEL_HEADER + INNER_ETHERNET,
        Routing::Native => 0,
    }
}

/// The MTU of an endpoint: inner packet, then overlay, then WireGuard, then the underlay.
///
/// # Errors
/// When less than 1280 bytes are left.
pub fn endpoint(underlay: Mtu, wrapping: Wrapping) -> Result<Mtu, MtuTooSmall> {
    let carried = match wrapping.encryption {
        Encryption::None => underlay.value(),
        Encryption::Wireguard => wireguard(underlay, wrapping.outer),
    };
    let left = carried.saturating_sub(tunnel_overhead(wrapping.routing, wrapping.outer));
    Mtu::new(left).map_err(|_| MtuTooSmall { underlay, left, wrapping })
}

/// The underlay MTU between two sides: the smaller, where the other's is known.
pub fn path(own: Mtu, other: Option<Mtu>) -> Mtu {
    other.map_or(own, |other| own.min(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Encryption::{None as Clear, Wireguard};
    use OuterFamily::{Ipv4, Ipv6};
    use Routing::{Geneve, Native, Vxlan};

    #[test]
    fn table() {
        let cases = [
            (1500, Native, Ipv4, Clear, 1500),
            (1500, Native, Ipv6, Clear, 1500),
            (1500, Vxlan, Ipv4, Clear, 1450),
            (1500, Vxlan, Ipv6, Clear, 1430),
            (1500, Geneve, Ipv4, Clear, 1450),
            (1500, Geneve, Ipv6, Clear, 1430),
            (1500, Native, Ipv4, Wireguard, 1440),
            (1500, Native, Ipv6, Wireguard, 1408),
            (1500, Vxlan, Ipv4, Wireguard, 1390),
            (1500, Geneve, Ipv4, Wireguard, 1390),
            (1500, Vxlan, Ipv6, Wireguard, 1338),
            (9000, Native, Ipv4, Wireguard, 8928),
            (9000, Vxlan, Ipv4, Wireguard, 8878),
            (1420, Vxlan, Ipv4, Wireguard, 1310),
            (1280, Native, Ipv6, Clear, 1280),
        ];
        for (underlay, routing, outer, encryption, expected) in cases {
            let wrapping = Wrapping { routing, outer, encryption };
            let mtu = endpoint(Mtu::new(underlay).unwrap(), wrapping).unwrap();
            assert_eq!(mtu.value(), expected, "{underlay} {wrapping:?}");
        }
    }

    #[test]
    fn too_small_is_refused() {
        let wrapping = Wrapping { routing: Vxlan, outer: Ipv4, encryption: Wireguard };
        let error = endpoint(Mtu::new(1380).unwrap(), wrapping).unwrap_err();
        assert_eq!(error.left, 1262);
        assert_eq!(
            error.to_string(),
            "an underlay MTU of 1380 leaves 1262 bytes after vxlan with wireguard encryption; at least 1280 are needed"
        );
    }

    #[test]
    fn every_size_fits_the_underlay_after_padding() {
        for underlay in 1400..9001u16 {
            for (outer, header) in [(Ipv4, 60), (Ipv6, 80)] {
                let largest = wireguard(Mtu::new(underlay).unwrap(), outer);
                assert!(largest.next_multiple_of(16) + header <= underlay);
                assert!((largest + 1).next_multiple_of(16) + header > underlay);
            }
        }
    }

    #[test]
    fn the_smaller_side_decides() {
        let (small, large) = (Mtu::new(1400).unwrap(), Mtu::new(9000).unwrap());
        assert_eq!(path(large, Some(small)), small);
        assert_eq!(path(large, None), large);
    }
}
