//! The interface to a WireGuard device, whichever engine runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::allowed_ip::AllowedIp;
use crate::interface::InterfaceName;
use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// Which engine moves the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// The kernel's WireGuard.
    Kernel,
    /// A process on a TUN device.
    User,
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::User => "user",
        })
    }
}

/// What is set on a device as a whole; `None` leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceSettings {
    /// The device's own key.
    pub private_key: Option<PrivateKey>,
    /// The UDP port; 0 lets the system choose.
    pub listen_port: Option<u16>,
    /// The mark of the engine's own outgoing packets; 0 is none.
    pub fwmark: Option<u32>,
}

/// One wanted peer, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Who it is.
    pub public_key: PublicKey,
    /// Mixed into handshakes when given.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is reached first; roaming may learn another.
    pub endpoint: Option<SocketAddr>,
    /// Seconds of silence after which an empty packet is sent; 0 is never.
    pub persistent_keepalive: u16,
    /// What it owns inside the tunnel.
    pub allowed_ips: BTreeSet<AllowedIp>,
}

impl PeerConfig {
    /// A peer that is nothing but its key.
    pub fn new(public_key: PublicKey) -> Self {
        Self { public_key, preshared_key: None, endpoint: None, persistent_keepalive: 0, allowed_ips: BTreeSet::new() }
    }
}

/// Whether a patch may bring a peer into being.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PatchMode {
    /// The peer is created when it is not there.
    #[default]
    Upsert,
    /// A peer that is not there stays away.
    UpdateOnly,
}

/// What changes on one peer; `None` and empty lists leave things as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPatch {
    /// Who it is.
    pub public_key: PublicKey,
    /// May it be created?
    pub mode: PatchMode,
    /// `Some(None)` takes the pre-shared key away.
    pub preshared_key: Option<Option<PresharedKey>>,
    /// Overwrites the current endpoint, learnt or not.
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 switches it off.
    pub persistent_keepalive: Option<u16>,
    /// Prefixes it now owns; another owner of the very same prefix loses it in that instant.
    pub add_allowed_ips: BTreeSet<AllowedIp>,
    /// Prefixes that it no longer owns; one that another peer owns by now stays there.
    pub remove_allowed_ips: BTreeSet<AllowedIp>,
}

impl PeerPatch {
    /// A patch that changes nothing yet.
    pub fn new(public_key: PublicKey, mode: PatchMode) -> Self {
        Self {
            public_key,
            mode,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            add_allowed_ips: BTreeSet::new(),
            remove_allowed_ips: BTreeSet::new(),
        }
    }
}

/// One step towards the wanted peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    /// Creates or changes a peer.
    Patch(PeerPatch),
    /// Removes a peer; one that is not there is no error.
    Remove(PublicKey),
}

/// A device as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceStatus {
    /// The public half of its key; `None` when it has none yet.
    pub public_key: Option<PublicKey>,
    /// The UDP port in use.
    pub listen_port: u16,
    /// The mark in use; 0 is none.
    pub fwmark: u32,
    /// Its peers.
    pub peers: BTreeMap<PublicKey, PeerStatus>,
    /// Packets dropped since the engine started, by reason; empty for engines that do not say.
    pub drops: BTreeMap<String, u64>,
}

/// A peer as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The pre-shared key in use.
    pub preshared_key: Option<PresharedKey>,
    /// Where packets to it go now; learnt from it, or configured.
    pub endpoint: Option<SocketAddr>,
    /// Where it was configured to be, when the engine remembers (ours does).
    pub configured_endpoint: Option<SocketAddr>,
    /// When the last handshake completed; `None`: never.
    pub last_handshake: Option<SystemTime>,
    /// Bytes of UDP payload taken from it, authenticated.
    pub rx_bytes: u64,
    /// Bytes of UDP payload sent to it.
    pub tx_bytes: u64,
    /// Seconds; 0 is off.
    pub persistent_keepalive: u16,
    /// What it owns.
    pub allowed_ips: BTreeSet<AllowedIp>,
}

impl PeerStatus {
    /// A session lives at most this long after its handshake.
    pub const SESSION_LIFETIME: Duration = Duration::from_mins(3);

    /// Whether a session can still be in use at `now`.
    pub fn is_live(&self, now: SystemTime) -> bool {
        self.last_handshake
            .is_some_and(|then| now.duration_since(then).map_or(true, |age| age <= Self::SESSION_LIFETIME))
    }
}

/// Why a device could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The engine's socket or the device is not there (yet).
    #[error("wireguard device {interface} is not there")]
    Absent {
        /// The device's name.
        interface: InterfaceName,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Talking to the engine broke off.
    #[error("talk to wireguard device {interface}")]
    Io {
        /// The device's name.
        interface: InterfaceName,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The engine refused with an error number.
    #[error("wireguard device {interface} refused: {}", std::io::Error::from_raw_os_error(*.errno))]
    Refused {
        /// The device's name.
        interface: InterfaceName,
        /// The positive error number.
        errno: i32,
    },
    /// The engine's answer cannot be read.
    #[error("wireguard device {interface} answered with a malformed {what}")]
    Malformed {
        /// The device's name.
        interface: InterfaceName,
        /// The field.
        what: &'static str,
    },
}

impl DeviceError {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Absent { .. } | Self::Io { .. } => true,
            Self::Refused { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// A WireGuard device that can be read and changed step by step. Calls block for at most a few seconds; the packet path
/// never waits for them.
pub trait WgDevice: Send + Debug {
    /// The device's name.
    fn interface(&self) -> &InterfaceName;

    /// Which engine this is.
    fn kind(&self) -> EngineKind;

    /// Reads settings, peers and counters.
    ///
    /// # Errors
    /// The device is absent, or its answer is not understood.
    fn read(&mut self) -> Result<DeviceStatus, DeviceError>;

    /// Changes what belongs to the device as a whole.
    ///
    /// # Errors
    /// The device is absent or refuses (for example a port in use).
    fn set(&mut self, settings: &DeviceSettings) -> Result<(), DeviceError>;

    /// Makes the changes in their order.
    ///
    /// # Errors
    /// The device is absent or refuses.
    fn change_peers(&mut self, changes: &[PeerChange]) -> Result<(), DeviceError>;
}
