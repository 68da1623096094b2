//! The server's half: configuration, and accepting a connection with its peer's identity.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::fault::certificate_error;
use super::provider;
use super::trust::{PeerIdentity, TrustedAuthorities, UntrustedError};
use crate::pki::Leaf;

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// The handshake fails without one (mesh endpoint).
    Required,
    /// Calls decide (API: redeeming a token works without).
    Optional,
}

/// The server's own certificate, replaceable while it serves. Clones share it.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    current: Arc<ArcSwap<CertifiedKey>>,
}

impl ServerCertificate {
    /// Serves a leaf that was issued with its key.
    ///
    /// # Errors
    /// When the leaf has no key here, or it does not fit.
    pub fn new(leaf: &Leaf) -> Result<Self, rustls::Error> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(certified(leaf)?)) })
    }

    /// Serves another leaf from now on; live connections keep theirs.
    ///
    /// # Errors
    /// When the leaf has no key here, or it does not fit.
    pub fn replace(&self, leaf: &Leaf) -> Result<(), rustls::Error> {
        self.current.store(Arc::new(certified(leaf)?));
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn certified(leaf: &Leaf) -> Result<CertifiedKey, rustls::Error> {
    let key = leaf.key().ok_or_else(|| rustls::Error::General("leaf without its key".to_owned()))?;
    CertifiedKey::from_der(leaf.chain.clone(), key, &provider())
}

/// Builds a TLS 1.3 server configuration over a live set of authorities and a live certificate.
///
/// `alpn`: what is served, the preferred first.
///
/// # Errors
/// When the crypto provider lacks TLS 1.3 (never, with ours).
pub fn server_config(
    certificate: &ServerCertificate,
    trusted: &TrustedAuthorities,
    clients: ClientCertificate,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let verifier =
        LiveVerifier { trusted: trusted.clone(), clients, algorithms: provider().signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(certificate.clone()));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // A resumed session would skip the verifier, and outlive a link.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Accepts clients of the authorities that are trusted at that moment.
#[derive(Debug)]
struct LiveVerifier {
    trusted: TrustedAuthorities,
    clients: ClientCertificate,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for LiveVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientCertificate::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: they would tell strangers whom we know.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        match self.trusted.identify(&chain, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(UntrustedError::Chain(error)) => Err(certificate_error(&error).into()),
            Err(error) => Err(CertificateError::Other(rustls::OtherError(Arc::new(error))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted {
    /// The encrypted stream.
    pub stream: TlsStream<TcpStream>,
    /// Who is at its other end; `None` = showed no certificate.
    pub peer: Option<PeerIdentity>,
}

/// Does the server's half of a handshake, within ten seconds.
///
/// # Errors
/// When it fails, takes too long, or nobody vouches for the client (any more).
pub async fn accept(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    trusted: &TrustedAuthorities,
) -> io::Result<Accepted> {
    let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    let peer = match stream.get_ref().1.peer_certificates() {
        None => None,
        Some(chain) => Some(trusted.identify(chain, UnixTime::now()).map_err(io::Error::other)?),
    };
    Ok(Accepted { stream, peer })
}

/// A client that is slower holds a connection for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
