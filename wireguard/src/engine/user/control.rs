//! Changes of configuration: the model as last set, and how the running engine follows it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::{debug, error, info};
use zeroize::Zeroizing;

use super::core::Core;
use super::peer::{Link, Peer};
use super::table::Table;
use crate::device::{DeviceStatus, PeerConfig, PeerStatus};
use crate::io::random;
use crate::io::udp::UdpPair;
use crate::key::PublicKey;
use crate::proto::model::{Edit, Model};
use crate::proto::tunnel::{Identity, OUTPUT_LEN, Tunnel, TunnelParams};
use crate::state::{Learnt, StateFile};
use crate::uapi::request::{self, RequestError};
use crate::uapi::response;

/// Handshake messages a second that are answered without asking for a cookie; each costs about 0.15 ms.
const HANDSHAKES_PER_SECOND: u64 = 1000;

/// Locks the control half; packets never wait for it.
pub(super) fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The control half of the engine.
#[derive(Debug)]
pub(crate) struct Control {
    core: Arc<Core>,
    state: StateFile,
    model: Model,
    saved: Option<Learnt>,
}

/// Why a change was not made; the number goes to the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetError {
    /// The request itself is wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The system did not give what it needs.
    #[error("follow the new configuration")]
    System(#[from] io::Error),
}

impl SetError {
    /// The positive error number.
    pub(crate) fn errno(&self) -> i32 {
        match self {
            Self::Request(err) => err.errno(),
            Self::System(err) => err.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

impl Control {
    /// Brings up what the state file says and opens a handshake to every peer.
    pub(super) fn start(core: Arc<Core>, state: StateFile, model: &Model, learnt: &Learnt) -> io::Result<Self> {
        let mut control = Self { core, state, model: Model::default(), saved: None };
        let endpoints =
            model.peers().iter().filter_map(|(key, peer)| Some((*key, learnt.get(key).copied().or(peer.endpoint)?)));
        let edit = Edit { model: model.clone(), endpoints: endpoints.collect(), ..Edit::default() };
        control.follow(edit)?;
        control.call_where_configured(learnt);
        Ok(control)
    }

    /// A peer that had moved may have moved back while we were away: the first initiation goes to both places.
    fn call_where_configured(&self, learnt: &Learnt) {
        let table = self.core.table.load_full();
        let mut out = vec![0; OUTPUT_LEN];
        for (key, peer) in &table.by_key {
            let configured = self.model.peers().get(key).and_then(|config| config.endpoint);
            let Some(configured) = configured.filter(|c| learnt.get(key).is_some_and(|l| l != c)) else { continue };
            let len = peer.link().tunnel.as_mut().and_then(|t| t.initiate_eagerly(&mut out, Instant::now()));
            if let Some(len) = len {
                self.core.transmit(peer, &out[..len], configured);
            }
        }
    }

    /// Makes the changes of a `set=1`, all or none.
    pub(crate) fn set(&mut self, lines: &str) -> Result<(), SetError> {
        let edit = request::edit(&self.model, lines)?;
        if edit.is_idle(&self.model) {
            return Ok(());
        }
        self.follow(edit)?;
        self.save();
        Ok(())
    }

    /// The answer to a `get=1`, without the error number.
    pub(crate) fn get(&self) -> Zeroizing<String> {
        // Sized so that it never moves and leaves no copy of a key behind.
        let prefixes = self.model.owners().len();
        let mut text = Zeroizing::new(String::with_capacity(1024 + 768 * self.model.peers().len() + 64 * prefixes));
        response::write(&self.status(), self.model.private_key.as_ref(), &mut text);
        text
    }

    fn status(&self) -> DeviceStatus {
        let table = self.core.table.load_full();
        let peers = self.model.peers().iter().map(|(key, config)| {
            let mut status = PeerStatus {
                preshared_key: config.preshared_key.clone(),
                configured_endpoint: config.endpoint,
                endpoint: config.endpoint,
                persistent_keepalive: config.persistent_keepalive,
                allowed_ips: config.allowed_ips.clone(),
                ..PeerStatus::default()
            };
            if let Some(peer) = table.by_key.get(key) {
                status.endpoint = peer.link().endpoint;
                status.last_handshake = peer.last_handshake();
                (status.rx_bytes, status.tx_bytes) = peer.traffic();
            }
            (*key, status)
        });
        let port = self.core.sockets.load().as_ref().map_or(self.model.listen_port, |sockets| sockets.port());
        DeviceStatus {
            public_key: self.model.public_key(),
            listen_port: port,
            fwmark: self.model.fwmark,
            peers: peers.collect(),
            drops: self.core.drops.snapshot(),
        }
    }

    /// Lets the running engine follow an edit. What can fail comes first.
    fn follow(&mut self, edit: Edit) -> io::Result<()> {
        self.follow_sockets(&edit.model)?;
        let rekeyed = request::rekeyed(&self.model, &edit);
        if self.core.identity.load().is_none() || self.model.private_key != edit.model.private_key {
            let identity = edit.model.private_key.as_ref().map(|key| Identity::new(key, HANDSHAKES_PER_SECOND));
            self.core.identity.store(identity.map(Arc::new));
        }
        let before = self.core.table.load_full();
        let mut by_key = HashMap::with_capacity(edit.model.peers().len());
        let mut indices: HashSet<u32> = before.by_index.keys().copied().collect();
        let mut fresh = BTreeSet::new();
        for (key, config) in edit.model.peers() {
            let running = before.by_key.get(key).filter(|_| !edit.removed.contains(key));
            let peer = match running {
                Some(peer) => Arc::clone(peer),
                None => Arc::new(Peer::new(fresh_index(&mut indices)?)),
            };
            let endpoint = edit.endpoints.get(key).copied();
            let called_for = self.follow_peer(&peer, config, rekeyed.contains(key), endpoint);
            if called_for || running.is_none() {
                fresh.insert(*key);
            }
            by_key.insert(*key, peer);
        }
        self.core.table.store(Arc::new(Table::build(&edit.model, by_key)));
        self.call(&fresh, &edit.keepalives);
        self.model = edit.model;
        debug!(interface = %self.core.interface, peers = self.model.peers().len(), "configuration changed");
        Ok(())
    }

    fn follow_sockets(&self, wanted: &Model) -> io::Result<()> {
        let open = self.core.sockets.load_full();
        let keeps_port = open.as_ref().is_some_and(|sockets| {
            wanted.listen_port == sockets.port() || (wanted.listen_port == 0 && self.model.listen_port == 0)
        });
        match open {
            Some(sockets) if keeps_port => {
                if wanted.fwmark != self.model.fwmark {
                    sockets.set_fwmark(wanted.fwmark)?;
                }
            }
            _ => {
                let sockets = UdpPair::open(wanted.listen_port, wanted.fwmark)?;
                info!(interface = %self.core.interface, port = sockets.port(), "listening");
                self.core.sockets.store(Some(Arc::new(sockets)));
                self.core.sockets_changed.raise();
            }
        }
        Ok(())
    }

    /// Brings a running peer up to date; says whether a handshake is called for.
    fn follow_peer(&self, peer: &Peer, config: &PeerConfig, rekey: bool, endpoint: Option<SocketAddr>) -> bool {
        let mut link = peer.link();
        let moved = endpoint.is_some() && endpoint != link.endpoint;
        if rekey || link.tunnel.is_none() {
            let identity = self.core.identity.load();
            link.tunnel = identity.as_ref().and_then(|identity| {
                let params = TunnelParams {
                    identity,
                    peer: config.public_key,
                    preshared_key: config.preshared_key.as_ref(),
                    index: peer.index,
                    queued_bytes: Arc::clone(&self.core.queued_bytes),
                };
                Tunnel::new(params, Instant::now())
            });
        }
        link.endpoint = endpoint.or(link.endpoint);
        if let Some(tunnel) = &mut link.tunnel {
            tunnel.set_keepalive(config.persistent_keepalive);
        }
        rekey || moved
    }

    /// Opens handshakes where the change calls for one, once the new table is in force.
    fn call(&self, fresh: &BTreeSet<PublicKey>, keepalives: &BTreeSet<PublicKey>) {
        let table = self.core.table.load_full();
        let mut out = vec![0; OUTPUT_LEN];
        for (key, peer) in &table.by_key {
            let mut link = peer.link();
            let Link { tunnel: Some(tunnel), endpoint: Some(endpoint) } = &mut *link else { continue };
            let endpoint = *endpoint;
            let due = if fresh.contains(key) {
                tunnel.initiate_eagerly(&mut out, Instant::now())
            } else if keepalives.contains(key) {
                tunnel.send_keepalive(&mut out, Instant::now())
            } else {
                None
            };
            drop(link);
            if let Some(len) = due {
                self.core.transmit(peer, &out[..len], endpoint);
            }
        }
    }

    fn learnt(&self) -> Learnt {
        let table = self.core.table.load_full();
        let moved = self.model.peers().iter().filter_map(|(key, config)| {
            let endpoint = table.by_key.get(key)?.link().endpoint?;
            (config.endpoint != Some(endpoint)).then_some((*key, endpoint))
        });
        moved.collect()
    }

    /// Writes the state file; a failure is told once and tried again each second.
    fn save(&mut self) {
        let learnt = self.learnt();
        match self.state.save(&self.model, &learnt) {
            Ok(()) => self.saved = Some(learnt),
            Err(err) => {
                if self.saved.take().is_some() {
                    error!(err = &err as &dyn std::error::Error, "state not saved, a restart would go back");
                }
            }
        }
    }

    /// Writes the state file when peers moved, or when the last attempt failed.
    pub(super) fn save_if_changed(&mut self) {
        if self.saved.as_ref() != Some(&self.learnt()) {
            self.save();
        }
    }

    /// Writes what is not written yet, before the end.
    pub(super) fn flush(&mut self) {
        self.save_if_changed();
    }
}

/// Draws an index that no peer has.
fn fresh_index(taken: &mut HashSet<u32>) -> io::Result<u32> {
    loop {
        let index = random::number()? >> 8;
        if taken.insert(index) {
            return Ok(index);
        }
    }
}
