//! The kernel's WireGuard messages as bytes (`include/uapi/linux/wireguard.h`). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, UNIX_EPOCH};

use crate::allowed_ip::AllowedIp;
use crate::device::{DeviceSettings, DeviceStatus, PatchMode, PeerChange, PeerPatch, PeerStatus};
use crate::interface::InterfaceName;
use crate::io::netlink::{Message, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, attributes, with_nul};
use crate::key::{KEY_LEN, PresharedKey, PublicKey};

const GENL_HEADER: usize = 4;
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const WG_CMD_GET_DEVICE: u8 = 0;
const WG_CMD_SET_DEVICE: u8 = 1;

const DEVICE_IFNAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_FWMARK: u16 = 7;
const DEVICE_PEERS: u16 = 8;

const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_RX_BYTES: u16 = 7;
const PEER_TX_BYTES: u16 = 8;
const PEER_ALLOWED_IPS: u16 = 9;
const PEER_FLAG_REMOVE: u32 = 1;
const PEER_FLAG_UPDATE_ONLY: u32 = 4;

const ALLOWED_IP_FAMILY: u16 = 1;
const ALLOWED_IP_ADDRESS: u16 = 2;
const ALLOWED_IP_LEN: u16 = 3;
const ALLOWED_IP_FLAGS: u16 = 4;
const ALLOWED_IP_FLAG_REMOVE: u32 = 1;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A message of peers is sent when it has grown to this, well under the 64 KiB of one nest.
const SPLIT_AT: usize = 16 << 10;
/// Prefixes of one peer in one message; at most 40 bytes each.
const PREFIXES_AT_ONCE: usize = 512;

/// Asks for the number of the WireGuard family.
pub(super) fn find_family() -> Message {
    let mut message = Message::new(GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_ACK).raw(&[CTRL_CMD_GETFAMILY, 1, 0, 0]);
    message.attribute(CTRL_ATTR_FAMILY_NAME, &with_nul("wireguard"));
    message
}

/// The number in the answer.
pub(super) fn family_id(answer: &[u8]) -> Option<u16> {
    let (_, value) = attributes(answer.get(GENL_HEADER..)?).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)?;
    value.try_into().ok().map(u16::from_ne_bytes)
}

/// Asks for everything about a device.
pub(super) fn get_device(family: u16, interface: &InterfaceName) -> Message {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP;
    let mut message = Message::new(family, flags).raw(&[WG_CMD_GET_DEVICE, 1, 0, 0]);
    message.attribute(DEVICE_IFNAME, &with_nul(interface.as_str()));
    message
}

fn set_command(family: u16, interface: &InterfaceName) -> Message {
    let mut message = Message::new(family, NLM_F_REQUEST | NLM_F_ACK).raw(&[WG_CMD_SET_DEVICE, 1, 0, 0]);
    message.attribute(DEVICE_IFNAME, &with_nul(interface.as_str()));
    message
}

/// Sets what belongs to the device.
pub(super) fn set_device(
    family: u16,
    interface: &InterfaceName,
    settings: &DeviceSettings,
    private_key: Option<&[u8; KEY_LEN]>,
) -> Message {
    let mut message = set_command(family, interface);
    if let Some(key) = private_key {
        message.attribute(DEVICE_PRIVATE_KEY, key);
    }
    if let Some(port) = settings.listen_port {
        message.attribute(DEVICE_LISTEN_PORT, &port.to_ne_bytes());
    }
    if let Some(mark) = settings.fwmark {
        message.attribute(DEVICE_FWMARK, &mark.to_ne_bytes());
    }
    message
}

/// Makes the changes in their order, in as many messages as they need.
pub(super) fn changes(family: u16, interface: &InterfaceName, changes: &[PeerChange]) -> Vec<Message> {
    let pieces: Vec<PeerChange> = changes.iter().flat_map(split).collect();
    let mut messages = Vec::new();
    let mut rest = &pieces[..];
    while !rest.is_empty() {
        let mut message = set_command(family, interface);
        let peers = message.open(DEVICE_PEERS | NLA_F_NESTED);
        while let [first, behind @ ..] = rest {
            if message.len() > SPLIT_AT {
                break;
            }
            write_peer(&mut message, first);
            rest = behind;
        }
        message.close(peers);
        messages.push(message);
    }
    messages
}

/// Cuts a patch with many prefixes into several. Only the first may create the peer and carries the settings.
fn split(change: &PeerChange) -> Vec<PeerChange> {
    let PeerChange::Patch(patch) = change else { return vec![change.clone()] };
    let adds: Vec<_> = patch.add_allowed_ips.iter().copied().collect();
    let removes: Vec<_> = patch.remove_allowed_ips.iter().copied().collect();
    let mut adds = adds.chunks(PREFIXES_AT_ONCE);
    let mut removes = removes.chunks(PREFIXES_AT_ONCE);
    let mut head = patch.clone();
    head.add_allowed_ips = adds.next().unwrap_or_default().iter().copied().collect();
    head.remove_allowed_ips = removes.next().unwrap_or_default().iter().copied().collect();
    let more = |adds: &[AllowedIp], removes: &[AllowedIp]| {
        let mut piece = PeerPatch::new(patch.public_key, PatchMode::UpdateOnly);
        piece.add_allowed_ips = adds.iter().copied().collect();
        piece.remove_allowed_ips = removes.iter().copied().collect();
        PeerChange::Patch(piece)
    };
    let mut pieces = vec![PeerChange::Patch(head)];
    pieces.extend(adds.map(|chunk| more(chunk, &[])));
    pieces.extend(removes.map(|chunk| more(&[], chunk)));
    pieces
}

fn write_peer(message: &mut Message, change: &PeerChange) {
    let peer = message.open(NLA_F_NESTED);
    match change {
        PeerChange::Remove(key) => {
            message.attribute(PEER_PUBLIC_KEY, key.as_bytes());
            message.attribute(PEER_FLAGS, &PEER_FLAG_REMOVE.to_ne_bytes());
        }
        PeerChange::Patch(patch) => write_patch(message, patch),
    }
    message.close(peer);
}

fn write_patch(message: &mut Message, patch: &PeerPatch) {
    message.attribute(PEER_PUBLIC_KEY, patch.public_key.as_bytes());
    if patch.mode == PatchMode::UpdateOnly {
        message.attribute(PEER_FLAGS, &PEER_FLAG_UPDATE_ONLY.to_ne_bytes());
    }
    match &patch.preshared_key {
        Some(Some(key)) => message.attribute(PEER_PRESHARED_KEY, key.as_bytes()),
        Some(None) => message.attribute(PEER_PRESHARED_KEY, &[0; KEY_LEN]),
        None => {}
    }
    if let Some(endpoint) = patch.endpoint {
        message.attribute(PEER_ENDPOINT, &socket_address(endpoint));
    }
    if let Some(seconds) = patch.persistent_keepalive {
        message.attribute(PEER_KEEPALIVE, &seconds.to_ne_bytes());
    }
    if patch.add_allowed_ips.is_empty() && patch.remove_allowed_ips.is_empty() {
        return;
    }
    let list = message.open(PEER_ALLOWED_IPS | NLA_F_NESTED);
    patch.add_allowed_ips.iter().for_each(|prefix| write_allowed_ip(message, *prefix, 0));
    patch.remove_allowed_ips.iter().for_each(|prefix| write_allowed_ip(message, *prefix, ALLOWED_IP_FLAG_REMOVE));
    message.close(list);
}

fn write_allowed_ip(message: &mut Message, prefix: AllowedIp, flags: u32) {
    let entry = message.open(NLA_F_NESTED);
    match prefix.address() {
        IpAddr::V4(address) => {
            message.attribute(ALLOWED_IP_FAMILY, &AF_INET.to_ne_bytes());
            message.attribute(ALLOWED_IP_ADDRESS, &address.octets());
        }
        IpAddr::V6(address) => {
            message.attribute(ALLOWED_IP_FAMILY, &AF_INET6.to_ne_bytes());
            message.attribute(ALLOWED_IP_ADDRESS, &address.octets());
        }
    }
    message.attribute(ALLOWED_IP_LEN, &[prefix.prefix_len()]);
    if flags != 0 {
        message.attribute(ALLOWED_IP_FLAGS, &flags.to_ne_bytes());
    }
    message.close(entry);
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend(AF_INET.to_ne_bytes());
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(AF_INET6.to_ne_bytes());
            bytes.extend(v6.port().to_be_bytes());
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

fn parse_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match family {
        AF_INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        AF_INET6 => {
            let flow = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope).into())
        }
        _ => None,
    }
}

/// Puts the parts of a dump together: a device with many peers comes in several messages, a peer may continue in the next.
#[derive(Debug, Default)]
pub(super) struct StatusReader(DeviceStatus);

impl StatusReader {
    /// Takes one message of the dump.
    pub(super) fn take(&mut self, answer: &[u8]) {
        for (kind, value) in attributes(answer.get(GENL_HEADER..).unwrap_or_default()) {
            match kind {
                DEVICE_PUBLIC_KEY => self.0.public_key = value.try_into().ok().map(PublicKey::new),
                DEVICE_LISTEN_PORT => self.0.listen_port = value.try_into().map_or(0, u16::from_ne_bytes),
                DEVICE_FWMARK => self.0.fwmark = value.try_into().map_or(0, u32::from_ne_bytes),
                DEVICE_PEERS => attributes(value).for_each(|(_, peer)| self.take_peer(peer)),
                _ => {}
            }
        }
    }

    fn take_peer(&mut self, bytes: &[u8]) {
        let key = attributes(bytes).find(|(kind, _)| *kind == PEER_PUBLIC_KEY);
        let Some(key) = key.and_then(|(_, value)| value.try_into().ok()).map(PublicKey::new) else { return };
        let peer = self.0.peers.entry(key).or_default();
        for (kind, value) in attributes(bytes) {
            match kind {
                PEER_PRESHARED_KEY => peer.preshared_key = value.try_into().ok().and_then(PresharedKey::new),
                PEER_ENDPOINT => peer.endpoint = parse_socket_address(value),
                PEER_KEEPALIVE => peer.persistent_keepalive = value.try_into().map_or(0, u16::from_ne_bytes),
                PEER_RX_BYTES => peer.rx_bytes = value.try_into().map_or(0, u64::from_ne_bytes),
                PEER_TX_BYTES => peer.tx_bytes = value.try_into().map_or(0, u64::from_ne_bytes),
                PEER_LAST_HANDSHAKE => take_handshake(peer, value),
                PEER_ALLOWED_IPS => {
                    peer.allowed_ips.extend(attributes(value).filter_map(|(_, entry)| parse_allowed_ip(entry)));
                }
                _ => {}
            }
        }
    }

    /// The whole.
    pub(super) fn finish(self) -> DeviceStatus {
        self.0
    }
}

fn take_handshake(peer: &mut PeerStatus, value: &[u8]) {
    let number = |range| value.get(range).and_then(|b: &[u8]| b.try_into().ok()).map_or(0, i64::from_ne_bytes);
    let secs = u64::try_from(number(0..8)).unwrap_or(0);
    let nanos = u64::try_from(number(8..16)).unwrap_or(0);
    let since = Duration::from_secs(secs).saturating_add(Duration::from_nanos(nanos));
    peer.last_handshake = if since.is_zero() { None } else { UNIX_EPOCH.checked_add(since) };
}

fn parse_allowed_ip(entry: &[u8]) -> Option<AllowedIp> {
    let mut address = None;
    let mut len = None;
    for (kind, value) in attributes(entry) {
        match (kind, value.len()) {
            (ALLOWED_IP_ADDRESS, 4) => address = <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            (ALLOWED_IP_ADDRESS, 16) => address = <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            (ALLOWED_IP_LEN, 1) => len = value.first().copied(),
            _ => {}
        }
    }
    AllowedIp::new(address?, len?).ok()
}

#[cfg(test)]
mod tests;
