//! A small synchronous netlink client: one request, its answers, a deadline. Safe code throughout; messages are wiped when
//! dropped because they may carry keys.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use zeroize::Zeroizing;

use crate::interface::InterfaceName;

/// Do what the message says (`linux/netlink.h`).
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
/// Answer in any case.
pub(crate) const NLM_F_ACK: u16 = 0x4;
/// Give all there is.
pub(crate) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
/// The table changed while it was dumped.
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// Marks an attribute that holds attributes.
pub(crate) const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFINFOMSG: [u8; 16] = [0; 16];

/// Seconds that the kernel may take for one answer.
const PATIENCE_SECS: i64 = 5;
/// The kernel fills at most this much of a dump at once.
const RECEIVE_BYTES: usize = 64 << 10;

/// A message under construction.
pub(crate) struct Message(Zeroizing<Vec<u8>>);

/// An open nest, to be closed with [`Message::close`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Nest(usize);

impl Message {
    /// Begins a message of one type.
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(RECEIVE_BYTES));
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self(bytes)
    }

    /// Appends a fixed header.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let nest = self.open(kind);
        self.0.extend_from_slice(value);
        self.close(nest);
    }

    /// Begins an attribute whose value is written by what follows.
    pub(crate) fn open(&mut self, kind: u16) -> Nest {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        Nest(start)
    }

    /// Ends the attribute.
    pub(crate) fn close(&mut self, Nest(start): Nest) {
        // Callers split long lists; an attribute over 64 KiB would be refused by the kernel as malformed.
        let len = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn finish(mut self, sequence: u32) -> Zeroizing<Vec<u8>> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }

    /// The bytes as they would be sent, for tests.
    #[cfg(test)]
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.finish(0).to_vec()
    }
}

/// Walks over attributes; stops at the first that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A netlink socket of one protocol.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket to the routing subsystem.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// Opens a socket to generic netlink.
    pub(crate) fn generic() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkGeneric)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECS))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends a request and gives each answer's payload (behind the 16-byte header) to `on_answer`. The request must ask
    /// for an acknowledgement or a dump, which end the conversation. A dump during which the table changed ends with
    /// [`io::ErrorKind::Interrupted`].
    pub(crate) fn request(&mut self, message: Message, mut on_answer: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut buffer = Zeroizing::new(vec![0; RECEIVE_BYTES]);
        let mut torn = false;
        loop {
            let len = recv(self.fd.as_raw_fd(), buffer.as_mut_slice(), MsgFlags::empty())?;
            let mut rest = buffer.get(..len).unwrap_or_default();
            while let Some((header, payload, behind)) = split_message(rest) {
                rest = behind;
                if header.sequence != self.sequence {
                    continue;
                }
                torn |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.kind {
                    NLMSG_ERROR => return acknowledgement(payload),
                    NLMSG_DONE if torn => return Err(io::ErrorKind::Interrupted.into()),
                    NLMSG_DONE => return Ok(()),
                    _ => on_answer(payload),
                }
            }
        }
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let len = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let payload = bytes.get(HEADER..len)?;
    let behind = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((Header { kind, flags, sequence }, payload, behind))
}

fn acknowledgement(payload: &[u8]) -> io::Result<()> {
    let code = payload.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Creates a link of one kind; it must not be there yet.
pub(crate) fn create_link(name: &InterfaceName, link_kind: &str, mtu: Option<u32>) -> io::Result<()> {
    Netlink::route()?.request(create_link_message(name, link_kind, mtu), |_| ())
}

fn create_link_message(name: &InterfaceName, link_kind: &str, mtu: Option<u32>) -> Message {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Message::new(RTM_NEWLINK, flags).raw(&IFINFOMSG);
    message.attribute(IFLA_IFNAME, &with_nul(name.as_str()));
    if let Some(mtu) = mtu {
        message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
    }
    let info = message.open(IFLA_LINKINFO | NLA_F_NESTED);
    message.attribute(IFLA_INFO_KIND, link_kind.as_bytes());
    message.close(info);
    message
}

/// Deletes a link by name.
pub(crate) fn delete_link(name: &InterfaceName) -> io::Result<()> {
    let mut message = Message::new(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK).raw(&IFINFOMSG);
    message.attribute(IFLA_IFNAME, &with_nul(name.as_str()));
    Netlink::route()?.request(message, |_| ())
}

/// The text with the trailing zero byte that the kernel wants on names.
pub(crate) fn with_nul(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_creation_has_the_bytes_that_iproute2_sends() {
        let bytes = create_link_message(&"wg0".parse().unwrap(), "wireguard", None).bytes();
        let mut expected = vec![60, 0, 0, 0, 16, 0, 0x05, 0x06, 0, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([0; 16]);
        expected.extend([8, 0, 3, 0, b'w', b'g', b'0', 0]);
        expected.extend([20, 0, 18, 0x80, 13, 0, 1, 0]);
        expected.extend(*b"wireguard\0\0\0");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn truncated_attributes_end_the_walk() {
        let bytes = [8, 0, 1, 0, 1, 2, 3, 4, 6, 0, 2, 0x80, 9, 9, 0, 0, 200, 0, 3, 0, 1];
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(1, &[1u8, 2, 3, 4][..]), (2, &[9, 9][..])]);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
    }
}
