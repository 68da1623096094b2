//! A prefix that a peer owns.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A prefix inside the tunnel, host bits always clear, so equal prefixes are equal values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllowedIp {
    address: IpAddr,
    prefix_len: u8,
}

/// Why a text or a pair is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowedIpError {
    /// The text is not `address/length`.
    #[error("{0:?} is not an address with a prefix length")]
    Malformed(String),
    /// The length exceeds the family's bits.
    #[error("prefix length {prefix_len} is too long for {address}")]
    TooLong {
        /// The address given.
        address: IpAddr,
        /// The length given.
        prefix_len: u8,
    },
}

impl AllowedIp {
    /// Makes a prefix; host bits of `address` are cleared.
    ///
    /// # Errors
    /// The length exceeds 32 or 128 bits.
    pub fn new(address: IpAddr, prefix_len: u8) -> Result<Self, AllowedIpError> {
        let address = match address {
            IpAddr::V4(v4) if prefix_len <= 32 => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask_v4(prefix_len))),
            IpAddr::V6(v6) if prefix_len <= 128 => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask_v6(prefix_len))),
            IpAddr::V4(_) | IpAddr::V6(_) => return Err(AllowedIpError::TooLong { address, prefix_len }),
        };
        Ok(Self { address, prefix_len })
    }

    /// The prefix that holds one address alone.
    pub const fn host(address: IpAddr) -> Self {
        let prefix_len = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, prefix_len }
    }

    /// The first address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Leading bits that count, 0..=32 or 0..=128.
    pub const fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether `address` lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => ip.to_bits() & mask_v4(self.prefix_len) == net.to_bits(),
            (IpAddr::V6(net), IpAddr::V6(ip)) => ip.to_bits() & mask_v6(self.prefix_len) == net.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The network mask of an IPv4 prefix of up to 32 bits.
pub(crate) const fn mask_v4(prefix_len: u8) -> u32 {
    match prefix_len {
        0 => 0,
        n => u32::MAX << (32 - n),
    }
}

/// The network mask of an IPv6 prefix of up to 128 bits.
pub(crate) const fn mask_v6(prefix_len: u8) -> u128 {
    match prefix_len {
        0 => 0,
        n => u128::MAX << (128 - n),
    }
}

impl FromStr for AllowedIp {
    type Err = AllowedIpError;

    /// Reads `address/length`; a bare address is the prefix of itself.
    fn from_str(text: &str) -> Result<Self, AllowedIpError> {
        let malformed = || AllowedIpError::Malformed(text.chars().take(64).collect());
        let Some((address, len)) = text.split_once('/') else {
            return Ok(Self::host(text.parse().map_err(|_| malformed())?));
        };
        if len.is_empty() || !len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        Self::new(address.parse().map_err(|_| malformed())?, len.parse().map_err(|_| malformed())?)
    }
}

impl fmt::Display for AllowedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl fmt::Debug for AllowedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!("10.1.2.3/8".parse::<AllowedIp>().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!("fd00::1/64".parse::<AllowedIp>().unwrap().to_string(), "fd00::/64");
        assert_eq!("1.2.3.4/0".parse::<AllowedIp>().unwrap().to_string(), "0.0.0.0/0");
        assert_eq!("::1".parse::<AllowedIp>().unwrap().to_string(), "::1/128");
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for bad in ["", "/", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/-1", "10.0.0/8", "a/8"] {
            assert!(bad.parse::<AllowedIp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn contains_asks_the_right_family() {
        let all: AllowedIp = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
        let net: AllowedIp = "fd00:1::/48".parse().unwrap();
        assert!(net.contains("fd00:1:0:ffff::9".parse().unwrap()));
        assert!(!net.contains("fd00:2::".parse().unwrap()));
    }
}
