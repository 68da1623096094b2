//! Services, their backends, and what a socket was told.

use crate::address::{Addr, Be16};

/// A service's address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: Be16,
    /// IP protocol.
    pub proto: u8,
    /// A [`Family`](crate::Family).
    pub family: u8,
}

/// A service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceEntry {
    /// How many backends; with 0 a connection is refused (158).
    pub count: u32,
    /// The first one's index in `BACKENDS`.
    pub base: u32,
    /// The agent's number for the service, for flows.
    pub id: u32,
    /// [`service_flags`].
    pub flags: u32,
}

/// Flags of [`ServiceEntry`].
pub mod service_flags {
    /// A socket keeps its backend: the choice follows the socket instead of chance.
    pub const BY_SOCKET: u32 = 1;
}

/// Who answers for a service. An index that no service points at is free.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: Be16,
    /// A [`Family`](crate::Family): that of its service.
    pub family: u8,
    /// 0.
    pub flags: u8,
}

/// A socket and the backend that it talks to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port.
    pub port: Be16,
    /// IP protocol.
    pub proto: u8,
    /// A [`Family`](crate::Family); IPv4 also for IPv4-mapped IPv6 addresses.
    pub family: u8,
    /// 0.
    pub pad: u32,
}

/// The service that the socket asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketEntry {
    /// The service's address.
    pub addr: Addr,
    /// The service's port.
    pub port: Be16,
    /// A [`Family`](crate::Family).
    pub family: u8,
    /// 0.
    pub pad: u8,
    /// The service's number.
    pub id: u32,
}

const _: () = assert!(size_of::<ServiceKey>() == 20 && size_of::<ServiceEntry>() == 16 && size_of::<Backend>() == 20);
const _: () = assert!(size_of::<SocketKey>() == 32 && size_of::<SocketEntry>() == 24);
