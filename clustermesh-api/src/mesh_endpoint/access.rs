//! What one connection may do, as of now.

use std::sync::{Arc, Mutex, PoisonError};

use fabric_core::names::ClusterName;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tonic::Status;

use super::errors::permission_denied;
use super::scope::{Scope, may_read};
use crate::tls::{PeerIdentity, TrustedAuthorities};

/// The rights of one connection: asked anew whenever the set of links changed.
#[derive(Debug)]
pub(super) struct Access {
    trusted: TrustedAuthorities,
    scope: Arc<Scope>,
    chain: Vec<CertificateDer<'static>>,
    /// Result as of a count of changes: checking a chain costs a signature.
    checked: Mutex<(u64, bool)>,
}

impl Access {
    pub(super) fn new(
        own: &ClusterName,
        trusted: &TrustedAuthorities,
        chain: &[CertificateDer<'_>],
        peer: &PeerIdentity,
    ) -> Self {
        // The count is read first: a change in between is then noticed later, never missed.
        let count = *trusted.changes().borrow();
        let granted = may_read(peer, |cluster| trusted.grant(cluster));
        Self {
            trusted: trusted.clone(),
            scope: Arc::new(Scope::remote(own)),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            checked: Mutex::new((count, granted)),
        }
    }

    /// What exists for this client.
    ///
    /// # Errors
    /// etcd's "permission denied" for one that may not read (any more).
    pub(super) fn scope(&self) -> Result<Arc<Scope>, Status> {
        let count = *self.trusted.changes().borrow();
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.0 != count {
            let peer = self.trusted.identify(&self.chain, UnixTime::now());
            *checked = (count, peer.is_ok_and(|peer| may_read(&peer, |cluster| self.trusted.grant(cluster))));
        }
        if checked.1 { Ok(Arc::clone(&self.scope)) } else { Err(permission_denied()) }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.trusted.changes()
    }
}
