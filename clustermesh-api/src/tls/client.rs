//! The client's half: trust in one authority, and the role that the server must have.

use std::sync::Arc;

use fabric_core::names::ClusterName;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::fault::{TlsFault, certificate_error};
use super::{ALPN_H2, provider};
use crate::pki::{Leaf, PeerName, Pin, Role};

/// Whom a client expects at the other end.
#[derive(Debug, Clone)]
pub struct ServerTrust {
    /// Hash of the public key of the one authority that counts. Its certificate need not be known beforehand: servers
    /// send it with their own.
    pub pin: Pin,
    /// The authority's certificate where it is known; needed for servers that do not send it.
    pub authority: Option<CertificateDer<'static>>,
    /// What the server's certificate must say; `None`: any name of the authority's (a Cilium cluster's server).
    pub role: Option<Role>,
    /// The cluster that it must be of; `None` where only the pin is known.
    pub cluster: Option<ClusterName>,
}

impl ServerTrust {
    /// Expects an API whose authority is known by its pin, of whatever cluster.
    pub fn pinned_api(pin: Pin) -> Self {
        Self { pin, authority: None, role: Some(Role::Api), cluster: None }
    }
}

/// What a client shows of itself.
#[derive(Debug)]
pub enum ClientIdentity<'a> {
    /// Nothing.
    Anonymous,
    /// A leaf with its key.
    Leaf(&'a Leaf),
}

/// Builds a TLS 1.3 client configuration.
///
/// # Errors
/// When the leaf has no key here, or it does not fit.
pub fn client_config(
    trust: &ServerTrust,
    identity: &ClientIdentity<'_>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let algorithms = provider().signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedVerifier { trust: trust.clone(), algorithms }));
    finish(builder, identity, alpn)
}

/// Builds a client configuration for an etcd of the user's: its authorities from a PEM text, host names checked.
///
/// # Errors
/// When the texts hold no authority, or the leaf has no key here, or it does not fit.
pub(crate) fn host_checked_config(
    authorities_pem: &str,
    identity: &ClientIdentity<'_>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities_pem.as_bytes()) {
        let certificate = certificate.map_err(|_| CertificateError::BadEncoding)?;
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots);
    finish(builder, identity, &[ALPN_H2])
}

fn finish(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: &ClientIdentity<'_>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = match identity {
        ClientIdentity::Anonymous => builder.with_no_client_auth(),
        ClientIdentity::Leaf(leaf) => {
            let key = leaf.key().ok_or_else(|| rustls::Error::General("leaf without its key".to_owned()))?;
            builder.with_client_auth_cert(leaf.chain.clone(), key)?
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts the one server that a [`ServerTrust`] describes.
#[derive(Debug)]
struct PinnedVerifier {
    trust: ServerTrust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedVerifier {
    /// The authority's certificate: the one known, or the one sent that has the pinned key.
    fn authority<'a>(&'a self, sent: &'a [CertificateDer<'a>]) -> Option<&'a CertificateDer<'a>> {
        let known = self.trust.authority.as_ref();
        known.into_iter().chain(sent).find(|certificate| Pin::of_certificate(certificate) == Ok(self.trust.pin))
    }

    fn check_name(&self, leaf: &CertificateDer<'_>) -> Result<(), TlsFault> {
        let ServerTrust { role, cluster, .. } = &self.trust;
        let Some(role) = role else { return Ok(()) };
        let name = PeerName::of_certificate(leaf);
        let fits =
            |name: &PeerName| name.role == *role && cluster.as_ref().is_none_or(|wanted| name.cluster == *wanted);
        if name.as_ref().is_ok_and(fits) {
            return Ok(());
        }
        let found = name.map_or_else(|error| error.to_string(), |name| name.to_string());
        let wanted = cluster.as_ref().map_or_else(
            || format!("{role:?} of any cluster"),
            |cluster| PeerName::new(cluster, role.clone()).to_string(),
        );
        Err(TlsFault::OtherName { found, wanted })
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = self.authority(intermediates).ok_or_else(|| fault(TlsFault::OtherAuthority))?;
        let anchor = webpki::anchor_from_trusted_cert(authority).map_err(|error| certificate_error(&error))?;
        EndEntityCert::try_from(end_entity)
            .and_then(|leaf| {
                let (anchors, usage) = ([anchor], KeyUsage::server_auth());
                // Our authorities sign leafs only; a Cilium cluster's server may have one step more.
                let algorithms = webpki::ALL_VERIFICATION_ALGS;
                leaf.verify_for_usage(algorithms, &anchors, intermediates, now, usage, None, None).map(|_| ())
            })
            .map_err(|error| match error {
                webpki::Error::UnknownIssuer => fault(TlsFault::OtherAuthority),
                error => certificate_error(&error).into(),
            })?;
        self.check_name(end_entity).map_err(fault)?;
        Ok(ServerCertVerified::assertion())
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

fn fault(fault: TlsFault) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(fault))).into()
}
