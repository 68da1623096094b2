//! What a rule says of protocol and port, and its split into prefixes of port numbers.

use std::fmt;

/// A protocol that rules can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP of IPv4; the "port" is the message type.
    Icmp,
    /// ICMP of IPv6; the "port" is the message type.
    Icmpv6,
}

/// The protocols that have ports: what a rule with a port and protocol `ANY` means.
const WITH_PORTS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

impl Protocol {
    /// IP protocol number (IANA, "Assigned Internet Protocol Numbers").
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
            Self::Icmpv6 => "ICMPv6",
        })
    }
}

/// Which packets a rule means by protocol and destination port (ICMP: message type). Both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMatch {
    /// `None` with all ports: any protocol at all. `None` with some ports: TCP, UDP and SCTP.
    pub protocol: Option<Protocol>,
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

/// A set of port numbers of one protocol as a policy map keys it: those that share the first `prefix` bits of `port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortBlock {
    /// IP protocol number; 0 = any, then `prefix` is 0 too.
    pub protocol: u8,
    /// Lowest port of the block.
    pub port: u16,
    /// Bits of `port` that count, 0..=16; 0 = any port.
    pub prefix: u8,
}

impl PortBlock {
    /// Every protocol and port.
    pub const ALL: Self = Self { protocol: 0, port: 0, prefix: 0 };

    /// Whether each packet that `other` means is meant by this one too.
    pub const fn covers(&self, other: &Self) -> bool {
        if self.protocol == 0 {
            return true;
        }
        self.protocol == other.protocol && self.prefix <= other.prefix && self.holds_port(other.port)
    }

    /// Whether it means packets of this protocol and port.
    pub const fn matches(&self, protocol: u8, port: u16) -> bool {
        self.protocol == 0 || (self.protocol == protocol && self.holds_port(port))
    }

    /// Longer = more specific: what a longest-prefix lookup prefers.
    pub const fn specificity(&self) -> u8 {
        if self.protocol == 0 { 0 } else { 8 + self.prefix }
    }

    const fn holds_port(self, port: u16) -> bool {
        let mask = if self.prefix == 0 { 0 } else { u16::MAX << (16 - self.prefix) };
        port & mask == self.port & mask
    }
}

impl PortMatch {
    /// Every protocol and port.
    pub const ALL: Self = Self { protocol: None, first: 0, last: u16::MAX };

    /// All ports of one protocol.
    pub const fn all_of(protocol: Protocol) -> Self {
        Self { protocol: Some(protocol), first: 0, last: u16::MAX }
    }

    /// Whether all ports are meant.
    pub const fn is_all_ports(&self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    /// Whether it means packets of this protocol and port.
    pub fn matches(&self, protocol: u8, port: u16) -> bool {
        let protocol_fits = match self.protocol {
            Some(wanted) => wanted.number() == protocol,
            None => self.is_all_ports() || WITH_PORTS.iter().any(|known| known.number() == protocol),
        };
        protocol_fits && (self.first..=self.last).contains(&port)
    }

    /// The same as blocks that do not overlap, at most 30 for each protocol.
    pub fn blocks(&self) -> Vec<PortBlock> {
        if self.protocol.is_none() && self.is_all_ports() {
            return vec![PortBlock::ALL];
        }
        let protocols: &[Protocol] = self.protocol.as_ref().map_or(&WITH_PORTS, std::slice::from_ref);
        let ranges = split(self.first, self.last);
        protocols
            .iter()
            .flat_map(|protocol| {
                ranges.iter().map(|&(port, prefix)| PortBlock { protocol: protocol.number(), port, prefix })
            })
            .collect()
    }
}

/// The fewest aligned blocks that make up a range, in order.
fn split(first: u16, last: u16) -> Vec<(u16, u8)> {
    let mut blocks = Vec::new();
    let mut next = u32::from(first);
    let end = u32::from(last) + 1;
    while next < end {
        let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
        let fits = (end - next).ilog2();
        let bits = aligned.min(fits);
        if let (Ok(port), Ok(prefix)) = (u16::try_from(next), u8::try_from(16 - bits)) {
            blocks.push((port, prefix));
        }
        next += 1 << bits;
    }
    blocks
}

/// `TCP/80`, `UDP/8000-8080`, `any`.
impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Some(protocol) => write!(f, "{protocol}")?,
            None => f.write_str("any")?,
        }
        if self.is_all_ports() {
            return Ok(());
        }
        write!(f, "/{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_split_into_few_blocks() {
        assert_eq!(split(0, u16::MAX), [(0, 0)]);
        assert_eq!(split(80, 80), [(80, 16)]);
        assert_eq!(split(8000, 8080), [(8000, 10), (8064, 12), (8080, 16)]);
        assert_eq!(split(1, u16::MAX - 1).len(), 30);
        assert_eq!(split(u16::MAX, u16::MAX), [(u16::MAX, 16)]);
    }

    #[test]
    fn any_protocol_with_a_port_means_those_that_have_ports() {
        let dns = PortMatch { protocol: None, first: 53, last: 53 };
        assert_eq!(dns.blocks().iter().map(|block| block.protocol).collect::<Vec<_>>(), [6, 17, 132]);
        assert!(dns.matches(17, 53) && !dns.matches(1, 53));
        assert_eq!(PortMatch::ALL.blocks(), [PortBlock::ALL]);
    }

    proptest! {
        #[test]
        fn blocks_mean_what_the_range_means(a: u16, b: u16, port: u16, near in 0_u16..3) {
            let (first, last) = (a.min(b), a.max(b));
            let range = PortMatch { protocol: Some(Protocol::Tcp), first, last };
            let blocks = range.blocks();
            for port in [port, first.saturating_sub(near), first.saturating_add(near), last.saturating_add(near)] {
                let holding = blocks.iter().filter(|block| block.matches(6, port)).count();
                prop_assert_eq!(holding, usize::from(range.matches(6, port)), "{} {:?}", port, blocks);
            }
            prop_assert!(blocks.iter().all(|block| !block.matches(17, first)));
        }

        #[test]
        fn covering_is_containment(a in 0_u8..=16, b in 0_u8..=16, p: u16, q: u16, port: u16) {
            let one = PortBlock { protocol: 6, port: p, prefix: a };
            let other = PortBlock { protocol: 6, port: q, prefix: b };
            if one.covers(&other) && other.matches(6, port) {
                prop_assert!(one.matches(6, port));
            }
        }
    }
}
