//! The kernel's WireGuard, by netlink.

mod message;

use std::io;

use zeroize::Zeroizing;

use crate::device::{
    DeviceError, DeviceSettings, DeviceStatus, EngineKind, PatchMode, PeerChange, PeerPatch, WgDevice,
};
use crate::interface::InterfaceName;
use crate::io::netlink::{self, Netlink};
use crate::key::PrivateKey;

/// What [`probe`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The kernel made a WireGuard link.
    Available,
    /// The kernel knows no such link.
    Unsupported,
}

/// Tries to make a WireGuard link, in a network namespace of its own that is gone when this returns.
///
/// # Errors
/// The trial itself was not possible, for example without the right to make a namespace.
pub fn probe() -> io::Result<Probe> {
    // A namespace belongs to a thread: this one enters a fresh one and takes it along when it ends.
    let trial = std::thread::Builder::new().name("wg-probe".to_owned()).spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        let name: InterfaceName = "wgprobe".parse().map_err(io::Error::other)?;
        netlink::create_link(&name, LINK_KIND, None)
    })?;
    let outcome = trial.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    match outcome {
        Ok(()) => Ok(Probe::Available),
        Err(err) if matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV)) => Ok(Probe::Unsupported),
        Err(err) => Err(err),
    }
}

/// How often a dump is begun anew because the peers changed in between.
const DUMP_ATTEMPTS: u32 = 5;
const LINK_KIND: &str = "wireguard";

/// Makes the device `name` with an MTU; it is left down.
///
/// # Errors
/// `EOPNOTSUPP` where the kernel has no WireGuard, `EEXIST` where the name is taken.
pub fn create(name: &InterfaceName, mtu: u32) -> io::Result<()> {
    netlink::create_link(name, LINK_KIND, Some(mtu))
}

/// Removes the device; one that is not there is no error.
///
/// # Errors
/// No right to.
pub fn remove(name: &InterfaceName) -> io::Result<()> {
    match netlink::delete_link(name) {
        Err(err) if err.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// A device of the kernel.
#[derive(Debug)]
pub struct KernelDevice {
    interface: InterfaceName,
    socket: Netlink,
    family: u16,
}

impl KernelDevice {
    /// Connects to the kernel's WireGuard for the device `interface` in the current network namespace.
    ///
    /// # Errors
    /// The kernel has no WireGuard (`ENOENT`), or netlink is not to be had.
    pub fn open(interface: InterfaceName) -> io::Result<Self> {
        let mut socket = Netlink::generic()?;
        let mut family = None;
        socket.request(message::find_family(), |answer| family = family.or(message::family_id(answer)))?;
        let family = family.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        Ok(Self { interface, socket, family })
    }

    fn fail(&self, source: io::Error) -> DeviceError {
        let interface = self.interface.clone();
        match source.raw_os_error() {
            Some(libc::ENODEV) => DeviceError::Absent { interface, source },
            Some(errno) if source.kind() != io::ErrorKind::WouldBlock => DeviceError::Refused { interface, errno },
            _ => DeviceError::Io { interface, source },
        }
    }

    fn order(&mut self, messages: Vec<netlink::Message>) -> Result<(), DeviceError> {
        for message in messages {
            self.socket.request(message, |_| ()).map_err(|source| self.fail(source))?;
        }
        Ok(())
    }

    /// Kernels before 6.16 pass over the request to take one prefix away. What is still there is given to a peer that
    /// exists only for that and goes at once, so that the other prefixes of its owner never miss a moment.
    fn force_removals(&mut self, changes: &[PeerChange]) -> Result<(), DeviceError> {
        let wanted: Vec<&PeerPatch> = changes
            .iter()
            .filter_map(|change| match change {
                PeerChange::Patch(patch) if !patch.remove_allowed_ips.is_empty() => Some(patch),
                PeerChange::Patch(_) | PeerChange::Remove(_) => None,
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let status = self.read()?;
        let left = wanted.iter().filter_map(|patch| {
            let owned = &status.peers.get(&patch.public_key)?.allowed_ips;
            Some(patch.remove_allowed_ips.intersection(owned).copied().collect::<Vec<_>>())
        });
        let left: std::collections::BTreeSet<_> = left.flatten().collect();
        if left.is_empty() {
            return Ok(());
        }
        let scratch = PrivateKey::generate().map_err(|source| self.fail(source))?.public_key();
        let mut detour = PeerPatch::new(scratch, PatchMode::Upsert);
        detour.add_allowed_ips = left;
        self.order(message::changes(
            self.family,
            &self.interface,
            &[PeerChange::Patch(detour), PeerChange::Remove(scratch)],
        ))
    }
}

impl WgDevice for KernelDevice {
    fn interface(&self) -> &InterfaceName {
        &self.interface
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Kernel
    }

    fn read(&mut self) -> Result<DeviceStatus, DeviceError> {
        let mut attempts = 0..DUMP_ATTEMPTS;
        loop {
            let mut reader = message::StatusReader::default();
            let request = message::get_device(self.family, &self.interface);
            match self.socket.request(request, |answer| reader.take(answer)) {
                Ok(()) => return Ok(reader.finish()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted && attempts.next().is_some() => {}
                Err(source) => return Err(self.fail(source)),
            }
        }
    }

    fn set(&mut self, settings: &DeviceSettings) -> Result<(), DeviceError> {
        let key = settings.private_key.as_ref().map(|key| Zeroizing::new(*key.as_bytes()));
        let message = message::set_device(self.family, &self.interface, settings, key.as_deref());
        self.order(vec![message])
    }

    fn change_peers(&mut self, changes: &[PeerChange]) -> Result<(), DeviceError> {
        let messages = message::changes(self.family, &self.interface, changes);
        self.order(messages)?;
        self.force_removals(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_agrees_with_what_opening_finds() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        match probe().unwrap() {
            Probe::Available => assert!(KernelDevice::open("lo".parse().unwrap()).is_ok()),
            Probe::Unsupported => {
                let err = KernelDevice::open("lo".parse().unwrap()).unwrap_err();
                assert_eq!(err.raw_os_error(), Some(libc::ENOENT));
                let err = create(&"wgnone".parse().unwrap(), 1420).unwrap_err();
                assert_eq!(err.raw_os_error(), Some(libc::EOPNOTSUPP));
            }
        }
    }
}
