//! The persistent TUN device: made and removed by whoever owns the node, used by the engine. Its index, addresses, routes
//! and hooks survive the engine's process.
#![expect(unsafe_code, reason = "ioctl on /dev/net/tun and on interfaces")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use crate::interface::InterfaceName;
use crate::io::netlink;

const CLONE_DEVICE: &str = "/dev/net/tun";
/// `IFF_PERSIST` of `linux/if_tun.h`; the C library does not carry it.
const IFF_PERSIST: libc::c_short = 0x0800;
/// The default of 500 packets is too short for bursts of small ones.
const TX_QUEUE_LEN: libc::c_int = 1000;

/// What [`create_persistent`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// The device is new.
    Created {
        /// Its index.
        ifindex: u32,
    },
    /// It was there already and keeps its index; its MTU was set.
    Adopted {
        /// Its index.
        ifindex: u32,
    },
}

impl Creation {
    /// The device's index.
    pub const fn ifindex(self) -> u32 {
        match self {
            Self::Created { ifindex } | Self::Adopted { ifindex } => ifindex,
        }
    }
}

/// Makes the TUN device `name` (bare IP packets, several queues possible) that stays when nobody holds it, or adopts the
/// one that is there, and sets its MTU. The device is left down when it is new.
///
/// # Errors
/// No right to, no `/dev/net/tun`, or an MTU that the kernel refuses.
pub fn create_persistent(name: &InterfaceName, mtu: u32) -> io::Result<Creation> {
    if let Some(ifindex) = index_of(name) {
        // Attaching a second queue to a device in use would steal packets: only the MTU is touched.
        set_mtu(name, mtu)?;
        return Ok(Creation::Adopted { ifindex });
    }
    let file = open_clone_device()?;
    set_interface(&file, name, libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE)?;
    // SAFETY: the descriptor is open; TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) })?;
    drop(file);
    set_mtu(name, mtu)?;
    let mut request = request_for(name);
    request.ifr_ifru.ifru_metric = TX_QUEUE_LEN;
    interface_ioctl(libc::SIOCSIFTXQLEN, &mut request)?;
    let ifindex = index_of(name).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
    Ok(Creation::Created { ifindex })
}

/// Removes the device at once, even while an engine holds it. A device that is not there is no error.
///
/// # Errors
/// No right to.
pub fn remove(name: &InterfaceName) -> io::Result<()> {
    match netlink::delete_link(name) {
        Err(err) if err.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// The device's index; `None` when it is not there.
pub fn index_of(name: &InterfaceName) -> Option<u32> {
    nix::net::if_::if_nametoindex(name.as_str()).ok()
}

/// Reads the device's MTU.
///
/// # Errors
/// The device is not there.
pub fn mtu(name: &InterfaceName) -> io::Result<u32> {
    let mut request = request_for(name);
    interface_ioctl(libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU has written this member.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Sets the device's MTU.
///
/// # Errors
/// The device is not there or does not take this MTU.
pub fn set_mtu(name: &InterfaceName, mtu: u32) -> io::Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_mtu = libc::c_int::try_from(mtu).map_err(|_| io::ErrorKind::InvalidInput)?;
    interface_ioctl(libc::SIOCSIFMTU, &mut request)
}

/// One queue of the device, held by the engine. Reads and writes do not block.
#[derive(Debug)]
pub(crate) struct TunQueue(File);

impl TunQueue {
    /// Attaches to the device `name`, which must be persistent; `None` when it is not there.
    pub(crate) fn attach(name: &InterfaceName) -> io::Result<Option<Self>> {
        if index_of(name).is_none() {
            return Ok(None);
        }
        let file = open_clone_device()?;
        let flags = libc::IFF_TUN | libc::IFF_NO_PI;
        match set_interface(&file, name, flags | libc::IFF_MULTI_QUEUE) {
            // A device made with one queue refuses the flag.
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => set_interface(&file, name, flags)?,
            other => other?,
        }
        // It may have gone between the look and the call, which then has made a fleeting one.
        Ok(is_persistent(&file, name)?.then_some(Self(file)))
    }

    /// Reads one packet.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    /// Writes one packet.
    pub(crate) fn write(&self, packet: &[u8]) -> io::Result<()> {
        (&self.0).write(packet).map(drop)
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_clone_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(CLONE_DEVICE)
}

fn set_interface(file: &File, name: &InterfaceName, flags: libc::c_int) -> io::Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open and the request is a valid ifreq that outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

fn is_persistent(file: &File, name: &InterfaceName) -> io::Result<bool> {
    let mut request = request_for(name);
    // SAFETY: the descriptor is open and the request is a valid ifreq that outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: TUNGETIFF has written this member.
    Ok(unsafe { request.ifr_ifru.ifru_flags } & IFF_PERSIST != 0)
}

fn request_for(name: &InterfaceName) -> libc::ifreq {
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *slot = byte.cast_signed();
    }
    request
}

fn interface_ioctl(command: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let any = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the socket is open and the request is a valid ifreq that outlives the call.
    check(unsafe { libc::ioctl(any.as_raw_fd(), command, std::ptr::from_mut(request)) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
