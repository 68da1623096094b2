//! Public keys and pins: values that are compared and shown, never secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Public key of a node's WireGuard, as base64 in text (`WireguardPubKey` on the wire).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WireguardPublicKey([u8; 32]);

/// Bytes or text that are no key or pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not base64 or hex of the right length.
    #[error("{0} is not 32 bytes in its text form")]
    Syntax(&'static str),
    /// The dummy that some programs write.
    #[error("the key is all zero")]
    Zero,
}

impl WireguardPublicKey {
    /// Checks the key: an all-zero dummy is refused.
    ///
    /// # Errors
    /// When all bytes are zero.
    pub fn new(bytes: [u8; 32]) -> Result<Self, InvalidKey> {
        if bytes == [0; 32] {
            return Err(InvalidKey::Zero);
        }
        Ok(Self(bytes))
    }

    /// Checks length and content.
    ///
    /// # Errors
    /// When there are not 32 bytes, or all are zero.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidKey> {
        Self::new(bytes.try_into().map_err(|_| InvalidKey::Syntax("WireGuard key"))?)
    }

    /// The bare bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for WireguardPublicKey {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes = STANDARD.decode(text).map_err(|_| InvalidKey::Syntax("WireGuard key"))?;
        Self::from_slice(&bytes)
    }
}

impl TryFrom<String> for WireguardPublicKey {
    type Error = InvalidKey;
    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<WireguardPublicKey> for String {
    fn from(key: WireguardPublicKey) -> String {
        key.to_string()
    }
}

impl fmt::Display for WireguardPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for WireguardPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// What one cluster knows another by: SHA-256 of its authority's `SubjectPublicKeyInfo`. 64 hex digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a DER-encoded `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// A pin that was stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bare bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 20 bits as four letters for people to compare at a glance: `7Q2K`.
    /// It shows which is which; it is not enough to trust.
    pub fn short(&self) -> String {
        const LETTERS: [u8; 32] = *b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
        let [a, b, c, ..] = self.0;
        let bits = u32::from_be_bytes([0, a, b, c]);
        [19u32, 14, 9, 4]
            .iter()
            .filter_map(|shift| LETTERS.get(((bits >> shift) & 31) as usize))
            .map(|letter| char::from(*letter))
            .collect()
    }
}

impl FromStr for Pin {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(InvalidKey::Syntax("pin"));
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |index: usize| pair.get(index).and_then(|digit| char::from(*digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                return Err(InvalidKey::Syntax("pin"));
            };
            *byte = u8::try_from(high << 4 | low).map_err(|_| InvalidKey::Syntax("pin"))?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Pin {
    type Error = InvalidKey;
    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> String {
        pin.to_string()
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_both_ways_and_dummies_are_refused() {
        let key = WireguardPublicKey::new([7; 32]).unwrap();
        assert_eq!(key.to_string().parse::<WireguardPublicKey>().unwrap(), key);
        assert_eq!(WireguardPublicKey::new([0; 32]), Err(InvalidKey::Zero));
        for bad in ["", "AAAA", "not base64!", &STANDARD.encode([0; 32])] {
            assert!(bad.parse::<WireguardPublicKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pins_go_both_ways() {
        let pin = Pin::of_spki(b"key");
        assert_eq!(pin.to_string(), "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683");
        assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
        assert_eq!(pin.short().len(), 4);
        for bad in ["", "2c", &"g".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<Pin>().is_err(), "{bad}");
        }
    }
}
