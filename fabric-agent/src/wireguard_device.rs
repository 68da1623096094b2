//! The node's WireGuard device: which engine drives it, its key, the device itself.

use std::path::Path;

use anyhow::Context as _;
use fabric_core::config::{NodeConfig, WireguardMode};
use fabric_core::ids::IfIndex;
use fabric_wireguard::engine::kernel;
use fabric_wireguard::{Controller, EngineKind, InterfaceName, KernelDevice, PrivateKey, UapiDevice, WgDevice, tun};

use crate::sys::files;

/// The device by name and engine.
#[derive(Debug, Clone)]
pub(crate) struct WireguardLink {
    pub(crate) name: InterfaceName,
    pub(crate) engine: EngineKind,
}

/// Which engine the configuration and the kernel make it.
pub(crate) fn engine(config: &NodeConfig) -> EngineKind {
    match config.wireguard.mode {
        WireguardMode::Kernel => EngineKind::Kernel,
        WireguardMode::User => EngineKind::User,
        WireguardMode::Auto => match kernel::probe() {
            Ok(kernel::Probe::Available) => EngineKind::Kernel,
            Ok(kernel::Probe::Unsupported) | Err(_) => EngineKind::User,
        },
    }
}

impl WireguardLink {
    /// Settles name and engine.
    pub(crate) fn of(config: &NodeConfig) -> anyhow::Result<Self> {
        let name = config.wireguard.interface.parse().context("wireguard.interface")?;
        Ok(Self { name, engine: engine(config) })
    }

    /// Makes the device where it is missing; one that is there keeps its index, hooks and peers.
    pub(crate) fn ensure(&self, mtu: u32) -> anyhow::Result<IfIndex> {
        let index = match self.engine {
            EngineKind::User => tun::create_persistent(&self.name, mtu)?.ifindex(),
            EngineKind::Kernel => {
                if tun::index_of(&self.name).is_none() {
                    kernel::create(&self.name, mtu)?;
                }
                tun::set_mtu(&self.name, mtu)?;
                tun::index_of(&self.name).context("the device went away")?
            }
        };
        Ok(IfIndex::new(index)?)
    }

    /// Removes the device; one that is not there succeeds.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        tun::remove(&self.name).with_context(|| format!("device {} cannot be removed", self.name))
    }

    /// A controller of the device; nothing is touched yet.
    pub(crate) fn controller(&self, socket_dir: &Path) -> anyhow::Result<Controller> {
        let device: Box<dyn WgDevice> = match self.engine {
            EngineKind::User => Box::new(UapiDevice::new(self.name.clone(), socket_dir)),
            EngineKind::Kernel => Box::new(KernelDevice::open(self.name.clone())?),
        };
        Ok(Controller::new(device))
    }
}

/// The node's private key: read, or drawn once and written down (0600).
pub(crate) fn private_key(path: &Path) -> anyhow::Result<PrivateKey> {
    let read = files::read_optional(path).with_context(|| format!("{} cannot be read", path.display()))?;
    if let Some(bytes) = read {
        let bytes: [u8; 32] = bytes
            .try_into()
            .map_err(|bytes: Vec<u8>| anyhow::anyhow!("{} holds {} bytes, not 32", path.display(), bytes.len()))?;
        return Ok(PrivateKey::new(bytes));
    }
    let key = PrivateKey::generate().context("no randomness for a key")?;
    files::write_private(path, key.as_bytes()).with_context(|| format!("{} cannot be written", path.display()))?;
    tracing::info!("a WireGuard key was made");
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wireguard.key");
        let first = private_key(&path).unwrap();
        assert_eq!(private_key(&path).unwrap(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(private_key(&path).unwrap_err().to_string().contains("5 bytes"));
    }
}
