//! What IP carries: ports, TCP flags, ICMP.

use fabric_ebpf_abi::{Be16, DropReason, Icmp, Ports, Protocol, TcpStart};

use super::Packet;

/// What a packet is to the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of a flow of its own.
    Flow,
    /// An ICMP error: of the flow whose packet it quotes.
    Error,
    /// Neighbour solicitation or advertisement: between an endpoint and its node alone.
    Neighbour,
    /// Router discovery, redirect, multicast listeners.
    Discovery,
}

/// What matters of a transport header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transport {
    /// Source port; of an echo its identifier.
    pub(crate) sport: Be16,
    /// Destination port; of an echo its identifier.
    pub(crate) dport: Be16,
    /// What policy calls the port: the destination's, or the ICMP type.
    pub(crate) policy_port: Be16,
    /// TCP flags.
    pub(crate) tcp: u8,
    pub(crate) kind: Kind,
}

impl Transport {
    /// None read.
    pub(crate) const NONE: Self =
        Self { sport: Be16::new(0), dport: Be16::new(0), policy_port: Be16::new(0), tcp: 0, kind: Kind::Flow };

    #[inline(always)]
    pub(crate) fn set_ports(&mut self, src: Be16, dst: Be16) {
        self.sport = src;
        self.dport = dst;
        self.policy_port = dst;
    }
}

/// Reads the transport header at `offset` into `t`.
#[inline(always)]
pub(crate) fn transport<P: Packet>(p: &P, proto: u8, offset: u32, t: &mut Transport) -> Result<(), DropReason> {
    match proto {
        Protocol::TCP => {
            let Some(tcp) = p.load::<TcpStart>(offset) else { return Err(DropReason::Truncated) };
            t.set_ports(tcp.src, tcp.dst);
            t.tcp = tcp.flags;
        }
        Protocol::UDP | Protocol::SCTP => {
            let Some(ports) = p.load::<Ports>(offset) else { return Err(DropReason::Truncated) };
            t.set_ports(ports.src, ports.dst);
        }
        Protocol::ICMP | Protocol::ICMPV6 => {
            let Some(icmp) = p.load::<Icmp>(offset) else { return Err(DropReason::Truncated) };
            t.kind = if proto == Protocol::ICMP { kind4(icmp.kind) } else { kind6(icmp.kind) };
            t.policy_port = Be16::new(u16::from(icmp.kind));
            t.sport = if is_echo(proto, icmp.kind) { icmp.id } else { t.policy_port };
            t.dport = t.sport;
        }
        _ => return Err(DropReason::UnknownL4),
    }
    Ok(())
}

/// Says whether an ICMP or ICMPv6 message is an echo: only those have an identifier.
#[inline(always)]
pub(crate) fn is_echo(proto: u8, kind: u8) -> bool {
    matches!((proto, kind), (Protocol::ICMP, 0 | 8) | (Protocol::ICMPV6, 128 | 129))
}

#[inline(always)]
fn kind4(kind: u8) -> Kind {
    match kind {
        3 | 11 | 12 => Kind::Error,
        5 | 9 | 10 => Kind::Discovery,
        _ => Kind::Flow,
    }
}

#[inline(always)]
fn kind6(kind: u8) -> Kind {
    match kind {
        1..=4 => Kind::Error,
        135 | 136 => Kind::Neighbour,
        130..=134 | 137 | 143 => Kind::Discovery,
        _ => Kind::Flow,
    }
}
