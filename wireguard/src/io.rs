//! Where the crate touches the system: TUN device, UDP sockets, netlink, signals, randomness. No decisions here, and all
//! of the crate's unsafe code.

pub(crate) mod netlink;
pub(crate) mod random;
pub(crate) mod signal;
pub mod tun;
pub(crate) mod udp;
pub(crate) mod wake;
