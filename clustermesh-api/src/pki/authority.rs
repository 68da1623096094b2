//! The authority itself: its files, and the leafs it signs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fabric_core::names::ClusterName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::secret_file::{read_secret, write_secret};
use super::{PeerName, Pin, Role};

/// Clocks of a mesh differ by a little: a leaf is valid from this much before it was issued.
const CLOCK_SLACK: Duration = Duration::from_mins(5);
/// An authority lives ten years; its rotation is an operation of its own.
const AUTHORITY_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
const CERTIFICATE_FILE: &str = "authority.crt";
const KEY_FILE: &str = "authority.key";
/// Before the cluster's name in the authority's common name.
const AUTHORITY_PREFIX: &str = "fabric authority ";
/// Kinds of keys that our TLS can verify.
const ALLOWED_KEYS: [&SignatureAlgorithm; 3] =
    [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];

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
        Self { now, lifetime: Duration::from_hours(24) }
    }

    /// A year: administrators.
    pub fn year(now: SystemTime) -> Self {
        Self { now, lifetime: Duration::from_hours(365 * 24) }
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
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, LeafError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<_, _>>().map_err(LeafError::Chain)?;
        let first = chain.first().ok_or(LeafError::Empty)?;
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(LeafError::Key)?;
        let not_after = ends(first).ok_or(LeafError::Empty)?;
        let key_pem = Some(Zeroizing::new(key_pem.to_owned()));
        Ok(Self { chain, chain_pem: chain_pem.to_owned(), key_pem, not_after })
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
        Self::open_or_create_valid(directory, cluster, Validity { now, lifetime: AUTHORITY_LIFE })
    }

    /// The same with another validity for one that has to be made.
    pub(crate) fn open_or_create_valid(
        directory: &Path,
        cluster: &ClusterName,
        validity: Validity,
    ) -> Result<Self, AuthorityError> {
        let (certificate_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        let damaged = |detail| AuthorityError::Damaged { directory: directory.to_owned(), detail };
        // The key is written last: a certificate alone is what a crash in between leaves, and nobody has seen it yet.
        match (read_if_there(&certificate_path)?, read_if_there(&key_path)?) {
            (Some(certificate), Some(key)) => Self::from_pem(&certificate, &key, cluster, directory),
            (None, Some(_)) => Err(damaged("the certificate is missing")),
            (_, None) => Self::create(directory, cluster, validity),
        }
    }

    fn create(directory: &Path, cluster: &ClusterName, validity: Validity) -> Result<Self, AuthorityError> {
        let Validity { now, lifetime } = validity;
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = distinguished_name(&authority_name(cluster));
        parameters.not_before = moment(now, Direction::Before(CLOCK_SLACK)).ok_or(rcgen::Error::Time)?;
        parameters.not_after = moment(now, Direction::After(lifetime)).ok_or(rcgen::Error::Time)?;
        parameters.serial_number = Some(serial());
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = parameters.self_signed(&key)?.pem();
        let key_pem = Zeroizing::new(key.serialize_pem());
        for (name, text) in [(CERTIFICATE_FILE, &certificate_pem), (KEY_FILE, &*key_pem)] {
            let path = directory.join(name);
            write_secret(&path, text.as_bytes()).map_err(|source| AuthorityError::File { path, source })?;
        }
        Self::from_pem(&certificate_pem, &key_pem, cluster, directory)
    }

    fn from_pem(
        certificate_pem: &str,
        key_pem: &str,
        cluster: &ClusterName,
        directory: &Path,
    ) -> Result<Self, AuthorityError> {
        let damaged = |detail| AuthorityError::Damaged { directory: directory.to_owned(), detail };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| damaged("the certificate is not PEM"))?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|_| damaged("the certificate is not X.509"))?;
        let common_name = common_name(&parsed).unwrap_or_default();
        if common_name != authority_name(cluster) {
            let found = common_name.strip_prefix(AUTHORITY_PREFIX).unwrap_or(common_name).to_owned();
            return Err(AuthorityError::OtherCluster {
                directory: directory.to_owned(),
                found,
                wanted: cluster.clone(),
            });
        }
        let key = KeyPair::from_pem(key_pem).map_err(|_| damaged("the key cannot be read"))?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err(damaged("certificate and key do not belong together"));
        }
        let pin = Pin::of_certificate(&certificate).map_err(|_| damaged("the certificate is not X.509"))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let certificate_pem = certificate_pem.to_owned();
        Ok(Self { cluster: cluster.clone(), certificate: certificate.into_owned(), certificate_pem, pin, issuer })
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
        let parameters = self.leaf_parameters(request)?;
        let (certificate, key_pem) = match key {
            KeyMaterial::Generate => {
                let key = KeyPair::generate()?;
                (parameters.signed_by(&key, &self.issuer)?, Some(Zeroizing::new(key.serialize_pem())))
            }
            KeyMaterial::Request(csr) => {
                let csr = CertificateSigningRequestDer::from(*csr);
                // Checks the signature: proof of possession.
                let csr = CertificateSigningRequestParams::from_der(&csr).map_err(IssueError::Request)?;
                if !ALLOWED_KEYS.contains(&csr.public_key.algorithm()) {
                    return Err(IssueError::KeyKind);
                }
                (parameters.signed_by(&csr.public_key, &self.issuer)?, None)
            }
        };
        let chain_pem = format!("{}{}", certificate.pem(), self.certificate_pem);
        let not_after = SystemTime::from(parameters.not_after);
        Ok(Leaf { chain: vec![certificate.der().clone(), self.certificate.clone()], chain_pem, key_pem, not_after })
    }

    fn leaf_parameters(&self, request: &LeafRequest) -> Result<CertificateParams, IssueError> {
        let name = PeerName::new(&self.cluster, request.role.clone());
        let uri = name.to_string().try_into().map_err(IssueError::Crypto)?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = distinguished_name(&name.common_name());
        parameters.subject_alt_names = vec![SanType::URI(uri)];
        let mut addresses = request.addresses.clone();
        if name.role == Role::Api {
            addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
            let host = format!("clustermesh-apiserver.{}.fabric", self.cluster);
            parameters.subject_alt_names.push(SanType::DnsName(host.try_into().map_err(IssueError::Crypto)?));
        }
        addresses.sort_unstable();
        addresses.dedup();
        parameters.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
        let Validity { now, lifetime } = request.validity;
        parameters.not_before = moment(now, Direction::Before(CLOCK_SLACK)).ok_or(IssueError::Validity)?;
        parameters.not_after = moment(now, Direction::After(lifetime)).ok_or(IssueError::Validity)?;
        parameters.serial_number = Some(serial());
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        Ok(parameters)
    }
}

/// A leaf's PEM texts that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The chain is not PEM.
    #[error("certificate chain is not PEM")]
    Chain(#[source] rustls_pki_types::pem::Error),
    /// The chain holds no certificate.
    #[error("no certificate")]
    Empty,
    /// The key is not PEM.
    #[error("key is not PEM")]
    Key(#[source] rustls_pki_types::pem::Error),
}

#[derive(Clone, Copy)]
enum Direction {
    Before(Duration),
    After(Duration),
}

/// A moment as certificates hold it: whole seconds, years 1950 to 9999.
fn moment(now: SystemTime, direction: Direction) -> Option<OffsetDateTime> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let seconds = match direction {
        Direction::Before(by) => i64::try_from(since.as_secs()).ok()?.checked_sub(i64::try_from(by.as_secs()).ok()?)?,
        Direction::After(by) => i64::try_from(since.as_secs().checked_add(by.as_secs())?).ok()?,
    };
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

fn ends(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Sixteen random bytes, positive as X.509 wants it.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

fn authority_name(cluster: &ClusterName) -> String {
    format!("{AUTHORITY_PREFIX}{cluster}")
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok())
}

fn read_if_there(path: &Path) -> Result<Option<Zeroizing<String>>, AuthorityError> {
    match read_secret(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::File { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
