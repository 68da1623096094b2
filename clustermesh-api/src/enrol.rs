//! Single-use secrets: tokens that make a machine a member, invites that link two clusters.
//!
//! The store keeps a verifier, never the secret. Using one is a compare-and-swap on its record, in the same transaction
//! as what it opens: it works once, whoever races.

pub mod invite;
pub mod token;

use rand::RngCore as _;

use fabric_core::secret::Secret;

/// A new secret.
pub fn new_secret() -> Secret {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    Secret::from_bytes(&mut bytes)
}

/// Shortest and longest life of a token or invite, seconds.
pub const TTL_S: std::ops::RangeInclusive<u32> = 1..=30 * 24 * 3600;
