//! The pin of a cluster: the hash of its authority's public key.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// SHA-256 of an authority's subject public key info. Shown and read as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin([u8; 32]);

/// A pin that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Not 64 hexadecimal digits.
    #[error("pin is not 64 hexadecimal digits")]
    Text,
    /// The bytes are no certificate.
    #[error("not an X.509 certificate")]
    Certificate,
}

impl Pin {
    /// Computes the pin of a certificate's public key.
    ///
    /// # Errors
    /// When the bytes are no certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, PinError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| PinError::Certificate)?;
        Ok(Self(Sha256::digest(parsed.public_key().raw).into()))
    }

    /// The bare hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Pin {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = PinError;
    fn from_str(text: &str) -> Result<Self, PinError> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| PinError::Text)?;
        Ok(Self(hash))
    }
}
