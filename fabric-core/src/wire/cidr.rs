//! Go's `net.IPNet` in JSON: `{"IP":"10.2.0.0","Mask":"////AA=="}`, and bare masks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{DecodeError, parse_ip};
use crate::prefix::Prefix;

/// The JSON object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RawCidr {
    #[serde(rename = "IP")]
    ip: String,
    #[serde(rename = "Mask")]
    mask: String,
}

impl RawCidr {
    pub(super) fn from_prefix(prefix: &Prefix) -> Self {
        Self { ip: prefix.address().to_string(), mask: mask_text(prefix) }
    }

    pub(super) fn to_prefix(&self, field: &'static str) -> Result<Prefix, DecodeError> {
        parse_masked(field, parse_ip(field, &self.ip)?, &self.mask)
    }
}

/// Base64 of the mask's bytes: 4 of IPv4, 16 of IPv6.
pub(super) fn mask_text(prefix: &Prefix) -> String {
    if prefix.is_ipv4() {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.length())).unwrap_or(0);
        return STANDARD.encode(Ipv4Addr::from_bits(mask).octets());
    }
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix.length())).unwrap_or(0);
    STANDARD.encode(Ipv6Addr::from_bits(mask).octets())
}

/// The prefix of an address and a mask in base64.
pub(super) fn parse_masked(field: &'static str, address: IpAddr, mask: &str) -> Result<Prefix, DecodeError> {
    let bad = |reason: &str| DecodeError::field(field, reason);
    if mask.len() > 32 {
        return Err(bad("mask is too long"));
    }
    let bytes = STANDARD.decode(mask).map_err(|_| bad("mask is not base64"))?;
    let (ones, inverted_is_low) = match (address, bytes.len()) {
        (IpAddr::V4(_), 4) => {
            let bits = bytes.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
            (bits.leading_ones(), bits.checked_shl(bits.leading_ones()).unwrap_or(0) == 0)
        }
        (IpAddr::V6(_), 16) => {
            let bits = bytes.iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
            (bits.leading_ones(), bits.checked_shl(bits.leading_ones()).unwrap_or(0) == 0)
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => return Err(bad("mask is of the wrong length")),
    };
    if !inverted_is_low {
        return Err(bad("mask has a hole"));
    }
    let length = u8::try_from(ones).map_err(|_| bad("mask is too long"))?;
    let prefix = Prefix::new(address, length).map_err(|error| DecodeError::field(field, error))?;
    if prefix.address() != address {
        return Err(bad("address has bits beyond its mask"));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_go_both_ways() {
        for text in ["10.2.0.0/24", "0.0.0.0/0", "10.1.2.3/32", "fd00::/48", "::/0", "::1/128", "10.128.0.0/9"] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(parse_masked("Mask", prefix.address(), &mask_text(&prefix)).unwrap(), prefix);
        }
        assert_eq!(mask_text(&"10.2.0.0/24".parse().unwrap()), "////AA==");
    }

    #[test]
    fn bad_masks_are_refused() {
        let address: IpAddr = "10.2.0.0".parse().unwrap();
        for bad in ["", "!", "/w==", "/wD/AA==", "AAAA/w==", "/////////////////////w==", "//8AAAAA", &"A".repeat(99)] {
            assert!(parse_masked("Mask", address, bad).is_err(), "{bad}");
        }
        assert!(parse_masked("Mask", "10.2.0.1".parse().unwrap(), "////AA==").is_err());
    }
}
