//! Address prefixes in canonical form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// An address prefix without host bits. Ordered by family, address, length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Text or numbers that are no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// The part before the slash is no address.
    #[error("{0:?} is no address prefix such as 10.1.0.0/16 or fd00::/48")]
    Syntax(String),
    /// More bits than the family has.
    #[error("prefix length {length} of {address} is over {max}")]
    Length {
        /// The address part.
        address: IpAddr,
        /// Bits asked for.
        length: u8,
        /// Bits that the family has.
        max: u8,
    },
    /// Bits beyond the length are set.
    #[error("{given} has bits beyond its length; the prefix is {canonical}")]
    HostBits {
        /// What was given.
        given: String,
        /// What it could have meant.
        canonical: Prefix,
    },
}

/// Bits of the address's family.
fn family_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Prefix {
    /// The prefix that holds `address`: host bits are cleared.
    ///
    /// # Errors
    /// When `length` is over 32 or 128.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, InvalidPrefix> {
        let max = family_bits(address);
        if length > max {
            return Err(InvalidPrefix::Length { address, length, max });
        }
        Ok(Self { address: masked(address, length), length })
    }

    /// The prefix of one address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: family_bits(address) }
    }

    /// Everything of IPv4.
    pub const fn all_ipv4() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 }
    }

    /// Everything of IPv6.
    pub const fn all_ipv6() -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), length: 0 }
    }

    /// Lowest address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that are fixed.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Whether it is of IPv4.
    pub const fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether it is one address.
    pub fn is_host(&self) -> bool {
        self.length == family_bits(self.address)
    }

    /// Whether the address lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && masked(address, self.length) == self.address
    }

    /// Whether all of `other` lies inside (equal counts).
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(other.address)
    }

    /// Whether an address lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The nth address counted from the lowest; `None` beyond the end.
    pub fn nth(&self, n: u128) -> Option<IpAddr> {
        let host_bits = family_bits(self.address) - self.length;
        if host_bits < 128 && n >> host_bits != 0 {
            return None;
        }
        from_bits(self.is_ipv4(), to_bits(self.address).checked_add(n)?)
    }

    /// The nth part of this length counted from the lowest; `None` beyond the end or when `length` is shorter.
    pub fn subnet(&self, length: u8, n: u128) -> Option<Self> {
        let bits = family_bits(self.address);
        if length < self.length || length > bits {
            return None;
        }
        let index_bits = length - self.length;
        if index_bits < 128 && n >> index_bits != 0 {
            return None;
        }
        let offset = n.checked_shl(u32::from(bits - length))?;
        let address = from_bits(self.is_ipv4(), to_bits(self.address).checked_add(offset)?)?;
        Some(Self { address, length })
    }
}

/// The address as a number: 32 bits of IPv4, 128 of IPv6.
fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(ipv4: bool, bits: u128) -> Option<IpAddr> {
    if ipv4 {
        return u32::try_from(bits).ok().map(|bits| Ipv4Addr::from_bits(bits).into());
    }
    Some(Ipv6Addr::from_bits(bits).into())
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    /// Takes `10.1.0.0/16`, or a bare address as its host prefix. Host bits are refused: they hide mistakes.
    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let syntax = || InvalidPrefix::Syntax(text.chars().take(64).collect());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let Some(length) = length else {
            return Ok(Self::host(address));
        };
        if length.starts_with('+') {
            return Err(syntax());
        }
        let prefix = Self::new(address, length.parse().map_err(|_| syntax())?)?;
        if prefix.address != address {
            return Err(InvalidPrefix::HostBits { given: text.to_owned(), canonical: prefix });
        }
        Ok(prefix)
    }
}

impl TryFrom<String> for Prefix {
    type Error = InvalidPrefix;
    fn try_from(text: String) -> Result<Self, InvalidPrefix> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self::host(address)
    }
}

impl From<IpNetwork> for Prefix {
    fn from(network: IpNetwork) -> Self {
        Self { address: masked(network.ip(), network.prefix()), length: network.prefix() }
    }
}

impl From<Prefix> for IpNetwork {
    fn from(prefix: Prefix) -> IpNetwork {
        IpNetwork::new(prefix.address, prefix.length).unwrap_or_else(|_| IpNetwork::from(prefix.address))
    }
}

/// Always with its length: `10.1.2.3/32`.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.length))
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn parse_and_format() {
        assert_eq!(prefix("10.1.0.0/16").to_string(), "10.1.0.0/16");
        assert_eq!(prefix("10.1.2.3").to_string(), "10.1.2.3/32");
        assert_eq!(prefix("fd00::/8").to_string(), "fd00::/8");
        for bad in ["", "10.1.0.0/33", "10.1.0.0/", "10.1.0.0/+8", "10.1/16", "::/129", "x/8", "10.1.0.0/16/8"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        assert_eq!(
            "10.1.2.0/16".parse::<Prefix>().unwrap_err().to_string(),
            "10.1.2.0/16 has bits beyond its length; the prefix is 10.1.0.0/16"
        );
    }

    #[test]
    fn containment() {
        assert!(prefix("10.0.0.0/8").contains("10.255.0.1".parse().unwrap()));
        assert!(!prefix("10.0.0.0/8").contains("11.0.0.0".parse().unwrap()));
        assert!(!prefix("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(prefix("::/0").covers(&prefix("fd00::/8")));
        assert!(prefix("10.1.0.0/16").overlaps(&prefix("10.0.0.0/8")));
        assert!(!prefix("10.1.0.0/16").overlaps(&prefix("10.2.0.0/16")));
    }

    #[test]
    fn nth_and_subnet_end_where_the_prefix_ends() {
        let p = prefix("10.1.2.0/24");
        assert_eq!(p.nth(1).unwrap().to_string(), "10.1.2.1");
        assert_eq!(p.nth(256), None);
        assert_eq!(prefix("10.1.0.0/16").subnet(24, 255).unwrap().to_string(), "10.1.255.0/24");
        assert_eq!(prefix("10.1.0.0/16").subnet(24, 256), None);
        assert_eq!(prefix("fd00:1::/48").subnet(64, 0xffff).unwrap().to_string(), "fd00:1:0:ffff::/64");
        assert_eq!(prefix("::/0").nth(u128::MAX).unwrap().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(prefix("10.1.2.3").nth(0).unwrap().to_string(), "10.1.2.3");
        assert_eq!(prefix("10.1.2.3").nth(1), None);
    }
}
