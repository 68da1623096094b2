//! TLS towards the API: exactly one authority is trusted, and the server must carry the API's name of this cluster.

use std::sync::Arc;

use fabric_core::names::ClusterName;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Credentials;

/// The URI that the server's certificate must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerName(String);

impl ServerName {
    /// The API of a cluster.
    pub(crate) fn api_of(cluster: &ClusterName) -> Self {
        Self(format!("spiffe://{cluster}/api"))
    }

    /// Whether a certificate carries it.
    pub(crate) fn is_in(&self, certificate: &CertificateDer<'_>) -> bool {
        carries_name(certificate, self)
    }
}

/// Configuration for the next connections: TLS 1.3 with the node's certificate.
pub(super) fn client_config(credentials: &Credentials, server: &ServerName) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(credentials.authority.clone())?;
    let verifier = PinnedServer { roots, server: server.clone(), provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Accepts a server whose chain ends at the one authority and whose certificate carries the one name.
#[derive(Debug)]
struct PinnedServer {
    roots: RootCertStore,
    server: ServerName,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _address: &rustls_pki_types::ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        if carries_name(end_entity, &self.server) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate holds the name among its alternative names, as a URI.
fn carries_name(certificate: &CertificateDer<'_>, name: &ServerName) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|one| matches!(one, GeneralName::URI(uri) if *uri == name.0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        fn leaf(&self, uri: &str) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
            (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
        }
    }

    fn credentials(dir: &Path, authority: &Authority) -> Credentials {
        let (certificate, key) = authority.leaf("spiffe://eu/node/n1");
        std::fs::write(dir.join("node.crt"), certificate).unwrap();
        std::fs::write(dir.join("node.key"), key).unwrap();
        std::fs::write(dir.join("authority.crt"), authority.0.pem()).unwrap();
        Credentials::load(dir).unwrap()
    }

    async fn handshake(client: ClientConfig, (certificate, key): (String, String)) -> Result<(), std::io::Error> {
        use rustls_pki_types::pem::PemObject as _;
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = rustls_pki_types::ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
        let connector = TlsConnector::from(Arc::new(client));
        let (connected, _) =
            tokio::join!(connector.connect(name, near), TlsAcceptor::from(Arc::new(server)).accept(far));
        connected.map(|_| ())
    }

    #[tokio::test]
    async fn only_the_own_clusters_api_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (Authority::new(), Authority::new());
        let credentials = credentials(dir.path(), &ours);
        let server = ServerName::api_of(&"eu".parse().unwrap());
        let config = || client_config(&credentials, &server).unwrap();
        handshake(config(), ours.leaf("spiffe://eu/api")).await.unwrap();
        for wrong in [
            ours.leaf("spiffe://eu/node/n2"),
            ours.leaf("spiffe://us/api"),
            ours.leaf("spiffe://eu/api/x"),
            other.leaf("spiffe://eu/api"),
        ] {
            assert!(handshake(config(), wrong).await.is_err());
        }
    }

    #[test]
    fn a_renewed_certificate_is_kept_and_its_request_holds_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let credentials = credentials(dir.path(), &authority);
        let request = rcgen::CertificateSigningRequestParams::from_der(&credentials.signing_request().unwrap().into());
        let renewed = request.unwrap().signed_by(&authority.0).unwrap().pem();
        let renewed = credentials.accept_renewal(&renewed).unwrap();
        assert_ne!(renewed.chain, credentials.chain);
        assert!(client_config(&renewed, &ServerName::api_of(&"eu".parse().unwrap())).is_ok());
        assert!(credentials.accept_renewal("garbage").is_err());
    }
}
