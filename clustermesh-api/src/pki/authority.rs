//! The authority itself: its files, and the leafs it signs.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fabric_core::names::ClusterName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::secret_file::{read_secret, write_secret};
use super::{PeerName, Pin, Role};

/// Clocks of a mesh differ by a little: a leaf is valid from this much before it was issued.
const CLOCK_SLACK: Duration = Duration::from_secs(5 * 60);
/// An authority lives ten years; its rotation is an operation of its own.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A cluster's certificate authority, with its key.
#[derive(Debug)]
pub struct Authority {
    cluster: ClusterName,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    pin: Pin,
    issuer: Issuer<'static, KeyPair>,
}

/// The authority's files cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("authority file {path}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// One of the two files is there without the other, or they do not fit each other.
    #[error("authority in {directory} is damaged: {detail}; restore both files from a backup", directory = directory.display())]
    Damaged {
        /// Where the files are.
        directory: PathBuf,
        /// What does not fit.
        detail: &'static str,
    },
    /// The files are another cluster's.
    #[error("authority in {directory} is of cluster {found:?}, not {wanted}", directory = directory.display())]
    OtherCluster {
        /// Where the files are.
        directory: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: ClusterName,
    },
    /// The crypto library refused.
    #[error("certificate authority")]
    Crypto(#[from] rcgen::Error),
}

/// A leaf that is not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request does not parse, or is not signed by the key that it names.
    #[error("certificate request is not valid")]
    Request(#[source] rcgen::Error),
    /// Its key is of a kind that we do not sign.
    #[error("certificate request's key is not ECDSA P-256, P-384 or Ed25519")]
    KeyKind,
    /// The moment asked for cannot be written in a certificate.
    #[error("validity is outside what a certificate can say")]
    Validity,
    /// The crypto library refused.
    #[error("signing a certificate")]
    Crypto(#[from] rcgen::Error),
}

/// From when and for how long a leaf is valid.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// The moment of issue; the leaf is valid from five minutes before it.
    pub now: SystemTime,
    /// How long from then.
    pub lifetime: Duration,
}

impl Validity {
    /// A day: nodes, machines, the API itself.
    pub fn day(now: SystemTime) -> Self {
        Self { now, lifetime: Duration::from_secs(24 * 3600) }
    }

    /// A year: administrators.
    pub fn year(now: SystemTime) -> Self {
        Self { now, lifetime: Duration::from_secs(365 * 24 * 3600) }
    }
}

/// What a leaf shall say.
#[derive(Debug, Clone)]
pub struct LeafRequest {
    /// Who its holder is.
    pub role: Role,
    /// Addresses at which its holder serves; loopback is added for the API.
    pub addresses: Vec<IpAddr>,
    /// From when, how long.
    pub validity: Validity,
}

/// Whose key a leaf is for.
#[derive(Debug)]
pub enum KeyMaterial<'a> {
    /// Make one.
    Generate,
    /// The holder's own: a PKCS #10 request, DER, signed with it. Only its key is taken over, never what it asks for.
    Request(&'a [u8]),
}

/// An issued leaf.
#[derive(Debug)]
pub struct Leaf {
    /// The leaf, then the authority: what a server or client sends.
    pub chain: Vec<CertificateDer<'static>>,
    /// The same, PEM.
    pub chain_pem: String,
    /// Its key, PKCS #8 PEM; `None` where the holder has it.
    key_pem: Option<Zeroizing<String>>,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Leaf {
    /// Reads a leaf back from its PEM texts.
    ///
    /// # Errors
    /// When they do not parse.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, rustls_pki_types::pem::Error> {
        let _ = (chain_pem, key_pem);
        todo!()
    }

    /// The key in PKCS #8 PEM, where the leaf was issued with a generated key.
    pub fn key_pem(&self) -> Option<&str> {
        self.key_pem.as_deref().map(String::as_str)
    }

    /// The key, where the leaf was issued with a generated key.
    pub fn key(&self) -> Option<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key_pem()?.as_bytes()).ok()
    }
}

impl Authority {
    /// Opens the authority in a directory (`authority.crt`, `authority.key`, both 0600), or makes it there.
    ///
    /// # Errors
    /// When the files cannot be read or written, do not fit each other, or are another cluster's. A damaged authority
    /// is never made anew: that would end every pin.
    pub fn open_or_create(directory: &Path, cluster: &ClusterName, now: SystemTime) -> Result<Self, AuthorityError> {
        let _ = (directory, cluster, now);
        todo!()
    }

    /// The cluster whose authority it is.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The hash of its public key.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// Issues a leaf.
    ///
    /// # Errors
    /// When the request's signature does not prove that its sender holds the key, or its key is of another kind.
    pub fn issue(&self, request: &LeafRequest, key: &KeyMaterial<'_>) -> Result<Leaf, IssueError> {
        let _ = (request, key);
        todo!()
    }
}
