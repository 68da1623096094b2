//! The live set of authorities that a server accepts clients of.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fabric_core::names::ClusterName;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

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
    own: CertificateDer<'static>,
    peers: Vec<PeerAuthority>,
}

impl TrustedAuthorities {
    /// Trusts the cluster's own authority alone.
    pub fn new(cluster: &ClusterName, own: &CertificateDer<'static>) -> Self {
        let set = Set { own_cluster: cluster.clone(), own: own.clone(), peers: Vec::new() };
        Self { set: Arc::new(ArcSwap::from_pointee(set)), changes: Arc::new(watch::channel(0).0) }
    }

    /// Replaces the linked clusters' authorities and grants. Live connections of those that are gone end.
    pub fn set_peers(&self, peers: Vec<PeerAuthority>) {
        let _ = peers;
        todo!()
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
        let _ = (chain, now, &self.set.load().own, &self.set.load().own_cluster);
        todo!()
    }
}
