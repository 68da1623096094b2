//! Numbers and addresses as they are on the wire.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A 16-bit number in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Be16(u16);

impl Be16 {
    /// From a number in the machine's order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// In the machine's order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The two bytes as one number, in memory order.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// From two bytes in memory order.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

/// A 32-bit number in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Be32(u32);

impl Be32 {
    /// From a number in the machine's order.
    #[inline(always)]
    pub const fn new(host: u32) -> Self {
        Self(host.to_be())
    }

    /// In the machine's order.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }
}

/// Which IP. The numbers are those in map keys.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4 = 1,
    /// IPv6.
    V6 = 2,
}

/// An IPv4 address, bytes in wire order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addr4(pub u32);

/// An IPv6 address as four words, bytes in wire order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addr6(pub [u32; 4]);

/// An address of either family: IPv4 in the first word, the others 0. Which it is stands beside it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// No address.
    pub const NONE: Self = Self([0; 4]);

    /// Says whether it is [`Addr::NONE`].
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        let [a, b, c, d] = self.0;
        a | b | c | d == 0
    }

    /// Says whether both are the same 16 bytes.
    #[inline(always)]
    pub const fn same(self, other: Self) -> bool {
        let (one, two) = (self.0, other.0);
        (one[0] ^ two[0]) | (one[1] ^ two[1]) | (one[2] ^ two[2]) | (one[3] ^ two[3]) == 0
    }

    /// The first word as an IPv4 address.
    #[inline(always)]
    pub const fn v4(self) -> Addr4 {
        Addr4(self.0[0])
    }

    /// All words as an IPv6 address.
    #[inline(always)]
    pub const fn v6(self) -> Addr6 {
        Addr6(self.0)
    }

    /// As the standard library's type.
    pub fn ip(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4().into()),
            Family::V6 => IpAddr::V6(self.v6().into()),
        }
    }
}

impl From<Addr4> for Addr {
    #[inline(always)]
    fn from(address: Addr4) -> Self {
        Self([address.0, 0, 0, 0])
    }
}

impl From<Addr6> for Addr {
    #[inline(always)]
    fn from(address: Addr6) -> Self {
        Self(address.0)
    }
}

impl From<Ipv4Addr> for Addr4 {
    fn from(address: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Addr4> for Ipv4Addr {
    fn from(address: Addr4) -> Self {
        address.0.to_ne_bytes().into()
    }
}

impl From<Ipv6Addr> for Addr6 {
    fn from(address: Ipv6Addr) -> Self {
        let octets = address.octets();
        let (words, _) = octets.as_chunks::<4>();
        let mut own = [0; 4];
        for (word, bytes) in own.iter_mut().zip(words) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Self(own)
    }
}

impl From<Addr6> for Ipv6Addr {
    fn from(address: Addr6) -> Self {
        let [a, b, c, d] = address.0.map(|word| u128::from(u32::from_be(word)));
        Self::from(a << 96 | b << 64 | c << 32 | d)
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Addr4::from(a).into(),
            IpAddr::V6(a) => Addr6::from(a).into(),
        }
    }
}

/// Key of the maps that are asked by address. As an LPM key, the first 32 bits always count.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddrKey {
    /// For overlapping address spaces, later: 0.
    pub scope: u16,
    /// 0.
    pub pad: u8,
    /// A [`Family`].
    pub family: u8,
    /// The address.
    pub addr: Addr,
}

const _: () = assert!(size_of::<AddrKey>() == 20 && core::mem::offset_of!(AddrKey, addr) == 4);

impl AddrKey {
    /// The prefix length under which a whole address is looked up.
    pub const FULL: u32 = 160;

    /// Of an address in its 16-byte form.
    #[inline(always)]
    pub const fn new(family: Family, addr: Addr) -> Self {
        Self { scope: 0, pad: 0, family: family as u8, addr }
    }

    /// The LPM prefix length of a prefix with `bits` leading address bits.
    #[inline(always)]
    pub const fn prefix_len(bits: u8) -> u32 {
        32 + bits as u32
    }

    /// As the standard library's type; `None` when the family is none that we know.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.family {
            1 => Some(self.addr.ip(Family::V4)),
            2 => Some(self.addr.ip(Family::V6)),
            _ => None,
        }
    }
}

impl From<IpAddr> for AddrKey {
    fn from(address: IpAddr) -> Self {
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        Self::new(family, address.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_bytes() {
        let v4: Ipv4Addr = "10.64.0.5".parse().unwrap();
        assert_eq!(Ipv4Addr::from(Addr4::from(v4)), v4);
        let v6: Ipv6Addr = "fdfa:1234::5".parse().unwrap();
        assert_eq!(Ipv6Addr::from(Addr6::from(v6)), v6);
        let key = AddrKey::from(IpAddr::V6(v6));
        assert_eq!(key.ip(), Some(IpAddr::V6(v6)));
        assert_eq!(key.addr.0[0].to_ne_bytes(), [0xfd, 0xfa, 0x12, 0x34]);
    }
}
