//! Policy: who may talk to whom, keyed by identities so that endpoints with the same labels share rules.

use crate::{address::Be16, ids::Direction};

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Lets through, unless a deny matches too.
    Allow,
    /// Drops with 181.
    Deny,
}

/// A rule's match. As an LPM key, subject, peer and `class` always count; protocol and port may be left out.
///
/// Deny and allow rules are looked up apart (they differ in `class`) and deny comes first, so a broad deny holds against
/// a narrower allow without any preparation. Each is asked with the peer's identity and with 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyKey {
    /// The identity of the endpoint whose policy it is.
    pub subject: u32,
    /// The identity of the other side; 0 for everybody.
    pub peer: u32,
    /// Direction and effect: see [`PolicyKey::new`].
    pub class: u8,
    /// IP protocol.
    pub proto: u8,
    /// Destination port; of ICMP and ICMPv6 the type.
    pub port: Be16,
}

/// What a rule says beside matching.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyEntry {
    /// The agent's number for the rule, for flows; 0 for none.
    pub rule: u32,
    /// 0.
    pub flags: u32,
}

impl PolicyKey {
    /// Subject, peer, class: any protocol, any port.
    pub const PREFIX_ANY: u32 = 72;
    /// And the protocol: any port.
    pub const PREFIX_PROTO: u32 = 80;
    /// And the port: all of it.
    pub const PREFIX_FULL: u32 = 96;

    /// A whole key.
    #[inline(always)]
    pub const fn new(subject: u32, peer: u32, direction: Direction, effect: Effect, proto: u8, port: Be16) -> Self {
        let deny = match effect {
            Effect::Allow => 0,
            Effect::Deny => 0x80,
        };
        Self { subject, peer, class: direction as u8 | deny, proto, port }
    }

    /// The prefix length of a rule for `port_bits` leading bits of the port; `None` for any protocol.
    #[inline(always)]
    pub const fn prefix_len(port_bits: Option<u8>) -> u32 {
        match port_bits {
            None => Self::PREFIX_ANY,
            Some(bits) => Self::PREFIX_PROTO + bits as u32,
        }
    }
}

const _: () = assert!(size_of::<PolicyKey>() == 12 && core::mem::offset_of!(PolicyKey, port) == 10);
const _: () = assert!(size_of::<PolicyEntry>() == 8);
