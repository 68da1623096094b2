//! The live set of authorities that a server accepts clients of.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fabric_core::names::ClusterName;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pki::{NameError, PeerName, Pin};

/// Whose authority signed a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AuthorityOf {
    /// Our own cluster.
    Own,
    /// A linked cluster.
    Peer(ClusterName),
}

/// What a linked cluster may do at the mesh endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Known, but may not read: every call is refused.
    None,
    /// Reads what is meant for every remote cluster.
    Read,
}

/// The authority of a linked cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthority {
    /// Which cluster.
    pub cluster: ClusterName,
    /// Its authority's certificate.
    pub certificate: CertificateDer<'static>,
    /// What it may do.
    pub grant: Grant,
}

/// Who the other end of a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Whose authority vouches.
    pub authority: AuthorityOf,
    /// The certificate's URI name. Its cluster is the authority's own; anything else was refused.
    /// `None` where the certificate has none (those that Cilium's readers use).
    pub name: Option<PeerName>,
    /// The certificate's common name: etcd's user.
    pub common_name: String,
    /// Hash of the certificate's public key.
    pub key: Pin,
}

/// A client certificate that nobody here vouches for.
#[derive(Debug, thiserror::Error)]
pub enum UntrustedError {
    /// No trusted authority signed it, or it is not valid (now).
    #[error("client certificate is not valid here")]
    Chain(#[source] webpki::Error),
    /// It names somebody else, or nobody.
    #[error("client certificate's name")]
    Name(#[source] NameError),
    /// It names a cluster whose authority did not sign it.
    #[error("certificate of authority {authority:?} names cluster {cluster}")]
    OtherCluster {
        /// Who signed it.
        authority: AuthorityOf,
        /// Whom it names.
        cluster: ClusterName,
    },
}

/// The live set. Clones share it.
#[derive(Debug, Clone)]
pub struct TrustedAuthorities {
    set: Arc<ArcSwap<Set>>,
    changes: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Set {
    own_cluster: ClusterName,
    peers: Vec<PeerAuthority>,
    /// Our own first, then as `peers`, without those whose certificate does not parse.
    owners: Vec<AuthorityOf>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Set {
    fn new(own_cluster: ClusterName, own: TrustAnchor<'static>, peers: Vec<PeerAuthority>) -> Self {
        let (mut owners, mut anchors) = (vec![AuthorityOf::Own], vec![own]);
        for peer in &peers {
            match webpki::anchor_from_trusted_cert(&peer.certificate) {
                Ok(anchor) => {
                    owners.push(AuthorityOf::Peer(peer.cluster.clone()));
                    anchors.push(anchor.to_owned());
                }
                Err(error) => tracing::warn!(cluster = %peer.cluster, %error, "authority of a link does not parse"),
            }
        }
        Self { own_cluster, peers, owners, anchors }
    }

    fn cluster_of<'a>(&'a self, authority: &'a AuthorityOf) -> &'a ClusterName {
        match authority {
            AuthorityOf::Own => &self.own_cluster,
            AuthorityOf::Peer(cluster) => cluster,
        }
    }
}

impl TrustedAuthorities {
    /// Trusts the cluster's own authority alone.
    ///
    /// # Errors
    /// When the certificate cannot be a trust anchor.
    pub fn new(cluster: &ClusterName, own: &CertificateDer<'_>) -> Result<Self, UntrustedError> {
        let own = webpki::anchor_from_trusted_cert(own).map_err(UntrustedError::Chain)?.to_owned();
        let set = Set::new(cluster.clone(), own, Vec::new());
        Ok(Self { set: Arc::new(ArcSwap::from_pointee(set)), changes: Arc::new(watch::channel(0).0) })
    }

    /// Replaces the linked clusters' authorities and grants. Watches of those that may not read any more end.
    pub fn set_peers(&self, peers: Vec<PeerAuthority>) {
        let now = self.set.load();
        if now.peers == peers {
            return;
        }
        let Some(own) = now.anchors.first().cloned() else { return };
        self.set.store(Arc::new(Set::new(now.own_cluster.clone(), own, peers)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// The linked clusters as they are now.
    pub fn peers(&self) -> Vec<PeerAuthority> {
        self.set.load().peers.clone()
    }

    /// What a linked cluster may do now; [`Grant::None`] for one that is not linked.
    pub fn grant(&self, cluster: &ClusterName) -> Grant {
        let set = self.set.load();
        set.peers.iter().find(|peer| peer.cluster == *cluster).map_or(Grant::None, |peer| peer.grant)
    }

    /// Counts changes of the set; wakes whoever serves long calls.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Finds who a client is from the chain that it presented.
    ///
    /// # Errors
    /// When no trusted authority vouches for it now, or it names a cluster that is not the authority's.
    pub fn identify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<PeerIdentity, UntrustedError> {
        let set = self.set.load();
        let (leaf, rest) = chain.split_first().ok_or(UntrustedError::Chain(webpki::Error::UnknownIssuer))?;
        let end_entity = EndEntityCert::try_from(leaf).map_err(UntrustedError::Chain)?;
        let path = end_entity
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &set.anchors,
                rest.get(..rest.len().min(LONGEST_CHAIN)).unwrap_or_default(),
                now,
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(UntrustedError::Chain)?;
        let signer = path.anchor();
        let position = set.anchors.iter().position(|anchor| anchor == signer);
        let authority = position
            .and_then(|position| set.owners.get(position))
            .ok_or(UntrustedError::Chain(webpki::Error::UnknownIssuer))?;
        let name = uri_name(leaf).map_err(UntrustedError::Name)?;
        match name {
            Some(PeerName { cluster, .. }) if cluster != *set.cluster_of(authority) => {
                Err(UntrustedError::OtherCluster { authority: authority.clone(), cluster })
            }
            name => {
                let key = Pin::of_certificate(leaf).map_err(|_| UntrustedError::Name(NameError::Certificate))?;
                Ok(PeerIdentity { authority: authority.clone(), name, common_name: common_name(leaf), key })
            }
        }
    }
}

/// Ours have one certificate besides the leaf.
const LONGEST_CHAIN: usize = 4;

fn uri_name(leaf: &CertificateDer<'_>) -> Result<Option<PeerName>, NameError> {
    match PeerName::of_certificate(leaf) {
        Ok(name) => Ok(Some(name)),
        // As Cilium's client certificates are.
        Err(NameError::UriCount { count: 0 }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn common_name(leaf: &CertificateDer<'_>) -> String {
    let parsed = X509Certificate::from_der(leaf).ok();
    let name = parsed.as_ref().and_then(|(_, parsed)| parsed.subject().iter_common_name().next());
    name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}
