//! Single-use secrets: shown once, never logged, wiped from memory.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

/// 32 random bytes that open one door once. `Debug` prints nothing of it; it is not serializable.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; 32]>);

/// Text that is no secret. Does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("secret is not 32 bytes in base64url")]
pub struct InvalidSecret;

impl Secret {
    /// Takes random bytes; the caller's copy is wiped.
    pub fn from_bytes(bytes: &mut [u8; 32]) -> Self {
        let secret = Self(Zeroizing::new(*bytes));
        bytes.zeroize();
        secret
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        if text.len() != 43 {
            return Err(InvalidSecret);
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidSecret)?);
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| InvalidSecret)?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// The text form, base64url, 43 characters: for the one who redeems it.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(*self.0))
    }

    /// The public half: 12 hex digits that name it in lists. Says nothing about the secret.
    pub fn id(&self) -> String {
        self.hash("id").chars().take(12).collect()
    }

    /// What the store keeps instead of the secret: 64 hex digits. Equal verifiers, equal secrets.
    pub fn verifier(&self) -> String {
        self.hash("verifier")
    }

    fn hash(&self, purpose: &str) -> String {
        let mut hasher = Sha256::new();
        hasher.update(b"fabric secret ");
        hasher.update(purpose);
        hasher.update(*self.0);
        crate::key::hex(&hasher.finalize())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways_and_debug_shows_nothing() {
        let mut bytes = [9; 32];
        let secret = Secret::from_bytes(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!(Secret::parse(&secret.reveal()).unwrap(), secret);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        for bad in ["", "abc", &"*".repeat(43), &"A".repeat(44)] {
            assert_eq!(Secret::parse(bad), Err(InvalidSecret));
        }
    }

    #[test]
    fn id_and_verifier_differ() {
        let secret = Secret::from_bytes(&mut [9; 32]);
        assert_eq!(secret.id().len(), 12);
        assert!(!secret.verifier().starts_with(&secret.id()));
        assert_ne!(secret.verifier(), Secret::from_bytes(&mut [8; 32]).verifier());
    }
}
