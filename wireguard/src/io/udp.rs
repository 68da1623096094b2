//! The engine's two UDP sockets, IPv4 and IPv6 on one port.
#![expect(unsafe_code, reason = "a socket option that no wrapper knows")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::wake::wait_writable;

/// Room for bursts while the reader is busy.
const BUFFER_BYTES: usize = 4 << 20;
/// How long a sender waits for room before it drops.
const SEND_PATIENCE: Duration = Duration::from_millis(20);
/// How often another port is drawn when the one drawn for IPv4 is taken for IPv6.
const PORT_DRAWS: usize = 16;

/// The sockets. IPv6 may be missing where the kernel has none.
#[derive(Debug)]
pub(crate) struct UdpPair {
    v4: UdpSocket,
    v6: Option<UdpSocket>,
    port: u16,
}

impl UdpPair {
    /// Opens both on `port`; 0 draws a port that is free for both.
    pub(crate) fn open(port: u16, fwmark: u32) -> io::Result<Self> {
        let draws = if port == 0 { PORT_DRAWS } else { 1 };
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..draws {
            match Self::open_once(port, fwmark) {
                Ok(pair) => return Ok(pair),
                Err(err) if err.kind() == io::ErrorKind::AddrInUse => last = err,
                Err(err) => return Err(err),
            }
        }
        Err(last)
    }

    fn open_once(port: u16, fwmark: u32) -> io::Result<Self> {
        let v4 = open_socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), fwmark)?;
        let port = v4.local_addr()?.port();
        let v6 = match open_socket(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), fwmark) {
            Ok(socket) => Some(socket),
            Err(err) if matches!(err.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => None,
            Err(err) => return Err(err),
        };
        Ok(Self { v4, v6, port })
    }

    /// The port of both.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Marks what is sent from now on.
    pub(crate) fn set_fwmark(&self, fwmark: u32) -> io::Result<()> {
        set_fwmark(&self.v4, fwmark)?;
        self.v6.as_ref().map_or(Ok(()), |socket| set_fwmark(socket, fwmark))
    }

    /// Sends one datagram; waits briefly when the socket is full.
    pub(crate) fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = match (to, &self.v6) {
            (SocketAddr::V4(_), _) => &self.v4,
            (SocketAddr::V6(_), Some(socket)) => socket,
            (SocketAddr::V6(_), None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        match socket.send_to(datagram, to) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                wait_writable(socket.as_fd(), SEND_PATIENCE)?;
                socket.send_to(datagram, to).map(drop)
            }
            other => other.map(drop),
        }
    }

    /// The sockets to poll and read.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        std::iter::once(&self.v4).chain(&self.v6)
    }

    /// Their descriptors, in the order of [`Self::sockets`].
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets().map(AsFd::as_fd)
    }
}

fn open_socket(address: SocketAddr, fwmark: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    } else {
        // As the kernel's WireGuard: routers may fragment what does not fit, so a black hole for ICMP is none for us.
        allow_fragments(&socket)?;
    }
    socket.set_nonblocking(true)?;
    // Larger than the system's usual limit where we may; otherwise what the limit gives.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        socket.set_send_buffer_size(BUFFER_BYTES)?;
    }
    socket.bind(&address.into())?;
    let socket = UdpSocket::from(socket);
    if fwmark != 0 {
        set_fwmark(&socket, fwmark)?;
    }
    Ok(socket)
}

fn allow_fragments(socket: &Socket) -> io::Result<()> {
    let value = libc::IP_PMTUDISC_DONT;
    let len = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open, and the option's value is `len` valid bytes that outlive the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            std::ptr::from_ref(&value).cast(),
            len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_fwmark(socket: &UdpSocket, fwmark: u32) -> io::Result<()> {
    setsockopt(socket, sockopt::Mark, &fwmark).map_err(io::Error::from)
}
