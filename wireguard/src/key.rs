//! Keys. Secret ones print nothing, compare in constant time and are wiped when dropped.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of every WireGuard key.
pub const KEY_LEN: usize = 32;

/// Why a text or a byte string is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 bytes, as base64 (44 characters) or hexadecimal (64 characters)")]
pub struct KeyError;

/// A peer's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// Takes the 32 bytes as they are on the wire.
    pub const fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Lower-case hexadecimal, as the configuration protocol writes keys.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Whether the point has low order: any key agreement with it yields zero, so a peer with it authenticates nobody.
    pub fn is_low_order(&self) -> bool {
        is_low_order(&self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse(text).map(|bytes| Self(*bytes))
    }
}

/// A device's private key, clamped as Curve25519 wants it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// Takes 32 bytes; the clamping bits are set as `wg` and the kernel do.
    pub fn new(mut bytes: [u8; KEY_LEN]) -> Self {
        bytes[0] &= 0xf8;
        bytes[31] = (bytes[31] & 0x7f) | 0x40;
        let key = Self(bytes);
        bytes.zeroize();
        key
    }

    /// Draws a fresh key from the operating system's random source.
    ///
    /// # Errors
    /// The random source's own.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new([0u8; KEY_LEN]);
        crate::io::random::fill(bytes.as_mut_slice())?;
        Ok(Self::new(*bytes))
    }

    /// The 32 bytes. Never log them.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The public key that belongs to it.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(*x25519::PublicKey::from(&self.to_dalek()).as_bytes())
    }

    pub(crate) fn to_dalek(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(self.0)
    }
}

/// A pre-shared key, mixed into every handshake of one pair of peers.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    /// Takes the 32 bytes; all zero means none and is refused.
    pub fn new(bytes: [u8; KEY_LEN]) -> Option<Self> {
        (bytes != [0; KEY_LEN]).then_some(Self(bytes))
    }

    /// The 32 bytes. Never log them.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

macro_rules! secret {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                // No early return: the time taken says nothing about where two secrets differ.
                self.0.iter().zip(&other.0).fold(0u8, |acc, (a, b)| acc | (a ^ b)) == 0
            }
        }

        impl Eq for $name {}
    };
}

secret!(PrivateKey);
secret!(PresharedKey);

/// Reads base64 or hexadecimal into a buffer that wipes itself.
pub(crate) fn parse(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let mut out = Zeroizing::new([0u8; KEY_LEN]);
    if text.len() == 2 * KEY_LEN {
        hex::decode_to_slice(text, out.as_mut_slice()).map_err(|_| KeyError)?;
        return Ok(out);
    }
    // 44 characters of base64 may announce up to 33 bytes; the decoder wants the room.
    let mut room = Zeroizing::new([0u8; KEY_LEN + 1]);
    let len = STANDARD.decode_slice(text, room.as_mut_slice()).map_err(|_| KeyError)?;
    if len != KEY_LEN {
        return Err(KeyError);
    }
    out.copy_from_slice(&room[..KEY_LEN]);
    Ok(out)
}

/// The points of order 1, 2, 4 and 8 on Curve25519 and its twist, with the ignored top bit cleared
/// (RFC 7748 section 6.1 and the list in "May the Fourth Be With You", 2017).
const LOW_ORDER: [[u8; KEY_LEN]; 7] = [
    [0; 32],
    leading(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    near_prime(0xec),
    near_prime(0xed),
    near_prime(0xee),
];

const fn leading(first: u8) -> [u8; KEY_LEN] {
    let mut bytes = [0; KEY_LEN];
    bytes[0] = first;
    bytes
}

const fn near_prime(first: u8) -> [u8; KEY_LEN] {
    let mut bytes = [0xff; KEY_LEN];
    bytes[0] = first;
    bytes[31] = 0x7f;
    bytes
}

/// Whether a public value contributes nothing to a key agreement.
pub(crate) fn is_low_order(point: &[u8; KEY_LEN]) -> bool {
    let mut masked = *point;
    masked[31] &= 0x7f;
    LOW_ORDER.contains(&masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_order_points_agree_on_zero() {
        let secret = PrivateKey::generate().unwrap();
        for point in LOW_ORDER {
            let shared = secret.to_dalek().diffie_hellman(&x25519::PublicKey::from(point));
            assert!(!shared.was_contributory(), "{point:02x?}");
            let mut high = point;
            high[31] |= 0x80;
            assert!(PublicKey::new(high).is_low_order());
        }
        assert!(!secret.public_key().is_low_order());
    }

    #[test]
    fn secrets_print_nothing() {
        let key = PrivateKey::new([7; 32]);
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        assert_eq!(format!("{:?}", PresharedKey::new([7; 32]).unwrap()), "PresharedKey(..)");
    }

    #[test]
    fn public_key_reads_both_forms() {
        let key = PublicKey::new([0xa5; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.to_hex().parse(), Ok(key));
        for bad in ["", "AAAA", &"g".repeat(64), &"A".repeat(44)] {
            assert_eq!(bad.parse::<PublicKey>(), Err(KeyError), "{bad}");
        }
    }

    #[test]
    fn public_key_of_a_known_private_key() {
        let bytes = [7; 32]; // compared with `wg pubkey`
        assert_eq!(
            PrivateKey::new(bytes).public_key().to_hex(),
            "13be4feaeaf204c7fd3358fc9c00721881d174278128227ec674f37f7fe97b6d"
        );
    }
}
