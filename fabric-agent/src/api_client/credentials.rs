//! The node's certificate, key and authority, as they lie in the state directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::sys::files;

const CERTIFICATE: &str = "node.crt";
const KEY: &str = "node.key";
const AUTHORITY: &str = "authority.crt";

/// Why the node cannot prove who it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("{path} cannot be read: the node has not joined a cluster, see `fabric join`")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} cannot be written")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{what} is not valid PEM")]
    Pem {
        what: String,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("{what} holds no valid certificate")]
    Certificate { what: String },
    #[error("the node's key cannot sign a request for a certificate")]
    Request(#[source] rcgen::Error),
}

/// What the node proves its name with, and whom it trusts.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) authority: CertificateDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
    dir: PathBuf,
}

impl Credentials {
    /// Reads them from a directory.
    pub(crate) fn load(dir: &Path) -> Result<Self, CredentialsError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| CredentialsError::Read { path, source })
        };
        let authority = first_certificate(&read(AUTHORITY)?, AUTHORITY)?;
        let chain = certificates(&read(CERTIFICATE)?, CERTIFICATE)?;
        let key = PrivateKeyDer::from_pem_slice(&read(KEY)?)
            .map_err(|source| CredentialsError::Pem { what: KEY.to_owned(), source })?;
        let invalid = || CredentialsError::Certificate { what: CERTIFICATE.to_owned() };
        let leaf = chain.first().ok_or_else(invalid)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| invalid())?;
        let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let (not_before, not_after) =
            (time(parsed.validity().not_before.timestamp()), time(parsed.validity().not_after.timestamp()));
        Ok(Self { chain, key, authority, not_before, not_after, dir: dir.to_path_buf() })
    }

    /// The leaf, then what vouches for it.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's key.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// The one authority that counts.
    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// When to ask for the next certificate: two thirds into this one's life.
    pub(crate) fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life.mul_f64(2.0 / 3.0)
    }

    /// A request for a certificate of the same key (PKCS #10, DER).
    ///
    /// The key stays, so that certificate and key can never be out of step after a crash between two writes.
    pub(crate) fn signing_request(&self) -> Result<Vec<u8>, CredentialsError> {
        let key = rcgen::KeyPair::try_from(&self.key).map_err(CredentialsError::Request)?;
        let params = rcgen::CertificateParams::default();
        let request = params.serialize_request(&key).map_err(CredentialsError::Request)?;
        Ok(request.der().to_vec())
    }

    /// Takes a renewed certificate: checks it, writes it down, reads all anew.
    pub(crate) fn accept_renewal(&self, certificate_pem: &str) -> Result<Self, CredentialsError> {
        first_certificate(certificate_pem.as_bytes(), "the renewed certificate")?;
        let path = self.dir.join(CERTIFICATE);
        files::write_private(&path, certificate_pem.as_bytes())
            .map_err(|source| CredentialsError::Write { path, source })?;
        Self::load(&self.dir)
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| CredentialsError::Pem { what: what.to_owned(), source })
}

fn first_certificate(pem: &[u8], what: &str) -> Result<CertificateDer<'static>, CredentialsError> {
    let first = certificates(pem, what)?.into_iter().next();
    let valid = first.filter(|certificate| X509Certificate::from_der(certificate).is_ok());
    valid.ok_or_else(|| CredentialsError::Certificate { what: what.to_owned() })
}
