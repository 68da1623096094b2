//! Brings a device to a wanted configuration and remembers what it wrote.

use std::time::SystemTime;

use crate::allowed_ip::AllowedIp;
use crate::device::{
    DeviceError, DeviceSettings, DeviceStatus, EngineKind, PatchMode, PeerChange, PeerConfig, WgDevice,
};
use crate::key::PublicKey;
use crate::plan::{ConfiguredEndpoints, plan};

/// A prefix that two wanted peers claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The prefix.
    pub prefix: AllowedIp,
    /// Who has it: the earlier of the two in the caller's order.
    pub owner: PublicKey,
    /// Who does not get it.
    pub refused: PublicKey,
}

/// What [`Controller::apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Peers created.
    pub added: usize,
    /// Peers changed.
    pub changed: usize,
    /// Peers removed.
    pub removed: usize,
    /// Claims that lost.
    pub conflicts: Vec<Conflict>,
}

/// A device and the memory of what was configured on it. All calls are idempotent.
#[derive(Debug)]
pub struct Controller {
    device: Box<dyn WgDevice>,
    endpoints: ConfiguredEndpoints,
}

impl Controller {
    /// Steers `device`.
    pub fn new(device: Box<dyn WgDevice>) -> Self {
        Self { device, endpoints: ConfiguredEndpoints::new() }
    }

    /// Which engine runs the device.
    pub fn kind(&self) -> EngineKind {
        self.device.kind()
    }

    /// Reads settings, peers and counters.
    ///
    /// # Errors
    /// As [`WgDevice::read`].
    pub fn status(&mut self) -> Result<DeviceStatus, DeviceError> {
        self.device.read()
    }

    /// Sets what differs from `settings` and says whether anything did.
    ///
    /// # Errors
    /// As [`WgDevice::set`].
    pub fn configure(&mut self, settings: &DeviceSettings) -> Result<bool, DeviceError> {
        let is = self.device.read()?;
        let wanted = DeviceSettings {
            private_key: settings.private_key.clone().filter(|key| is.public_key != Some(key.public_key())),
            listen_port: settings.listen_port.filter(|port| *port != is.listen_port),
            fwmark: settings.fwmark.filter(|mark| *mark != is.fwmark),
        };
        if wanted == DeviceSettings::default() {
            return Ok(false);
        }
        self.device.set(&wanted)?;
        Ok(true)
    }

    /// Brings the device's peers to `desired`, touching only what differs: no peer is replaced, prefixes are added before
    /// any is removed, and an endpoint is written only when its configured value changed, never over what roaming learnt.
    ///
    /// # Errors
    /// As [`WgDevice::change_peers`]; calling again continues where it stopped.
    pub fn apply(&mut self, desired: &[PeerConfig]) -> Result<Applied, DeviceError> {
        let current = self.device.read()?;
        self.endpoints.retain(|key, _| current.peers.contains_key(key));
        let plan = plan(&current, desired, &self.endpoints, SystemTime::now());
        if !plan.changes.is_empty() {
            self.device.change_peers(&plan.changes)?;
        }
        for peer in desired.iter().rev() {
            self.endpoints.insert(peer.public_key, peer.endpoint);
        }
        let mut applied = Applied { conflicts: plan.conflicts, ..Applied::default() };
        let mut changed = std::collections::BTreeSet::new();
        for change in &plan.changes {
            match change {
                PeerChange::Remove(_) => applied.removed += 1,
                PeerChange::Patch(patch) if patch.mode == PatchMode::Upsert => applied.added += 1,
                PeerChange::Patch(patch) => {
                    changed.insert(patch.public_key);
                }
            }
        }
        applied.changed = changed.len();
        Ok(applied)
    }
}
