//! Reads what must be known of a packet: an inner packet's addresses, an outer message's type and receiver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a handshake initiation.
pub(crate) const INITIATION_LEN: usize = 148;
/// Bytes of a handshake response.
pub(crate) const RESPONSE_LEN: usize = 92;
/// Bytes of a cookie reply.
pub(crate) const COOKIE_LEN: usize = 64;
/// What a data message adds to the padded packet: header 16, tag 16. Also the length of a keepalive.
pub(crate) const DATA_OVERHEAD: usize = 32;
/// Inner packets are padded to a multiple of this, so that lengths say less (whitepaper 5.4.6).
pub(crate) const PADDING: usize = 16;
/// No message with this counter or a later one is sent or taken (whitepaper 6.1, `REJECT_AFTER_MESSAGES`).
pub(crate) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// A message as its header and length present it; nothing is authenticated yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// Starts a handshake.
    Initiation {
        /// The ephemeral key it carries.
        ephemeral: [u8; 32],
    },
    /// Answers an initiation.
    Response {
        /// Our index.
        receiver: u32,
        /// The ephemeral key it carries.
        ephemeral: [u8; 32],
    },
    /// Asks for the next initiation to prove its address.
    Cookie {
        /// Our index.
        receiver: u32,
    },
    /// Carries a packet, or nothing.
    Data {
        /// Our index.
        receiver: u32,
        /// Its place in the session.
        counter: u64,
    },
}

impl Message {
    /// Reads the header; `None` for what is no WireGuard message.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let kind = word(datagram, 0)?;
        match (kind, datagram.len()) {
            (1, INITIATION_LEN) => Some(Self::Initiation { ephemeral: bytes(datagram, 8)? }),
            (2, RESPONSE_LEN) => Some(Self::Response { receiver: word(datagram, 8)?, ephemeral: bytes(datagram, 12)? }),
            (3, COOKIE_LEN) => Some(Self::Cookie { receiver: word(datagram, 4)? }),
            (4, DATA_OVERHEAD..) => {
                Some(Self::Data { receiver: word(datagram, 4)?, counter: u64::from_le_bytes(bytes(datagram, 8)?) })
            }
            _ => None,
        }
    }
}

/// The sender's index in one of our own handshake messages.
pub(crate) fn sender_index(message: &[u8]) -> Option<u32> {
    word(message, 4)
}

fn word(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_le_bytes)
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Where an inner packet goes to.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 16, 24)
}

/// Where an inner packet says it comes from.
pub(crate) fn source(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 12, 8)
}

fn address(packet: &[u8], at_v4: usize, at_v6: usize) -> Option<IpAddr> {
    match (packet.first()? >> 4, packet.len()) {
        (4, 20..) => bytes::<4>(packet, at_v4).map(|b| Ipv4Addr::from(b).into()),
        (6, 40..) => bytes::<16>(packet, at_v6).map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

/// The length to which a packet is padded: the next multiple of 16, but not beyond the device's MTU.
pub(crate) fn padded_len(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(PADDING).min(mtu).max(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_stops_at_the_mtu() {
        assert_eq!(padded_len(84, 1420), 96);
        assert_eq!(padded_len(96, 1420), 96);
        assert_eq!(padded_len(1419, 1420), 1420);
        assert_eq!(padded_len(1420, 1420), 1420);
        assert_eq!(padded_len(2000, 1420), 2000);
        assert_eq!(padded_len(0, 1420), 0);
    }

    #[test]
    fn length_and_type_must_agree() {
        let mut datagram = vec![0; INITIATION_LEN];
        datagram[0] = 1;
        assert!(matches!(Message::parse(&datagram), Some(Message::Initiation { .. })));
        datagram[1] = 1;
        assert_eq!(Message::parse(&datagram), None, "reserved bytes must be zero");
        for (kind, len) in [(1, 147), (2, 93), (3, 63), (4, 31), (5, 148), (0, 148)] {
            let mut datagram = vec![0; len];
            datagram[0] = kind;
            assert_eq!(Message::parse(&datagram), None, "type {kind} length {len}");
        }
    }

    #[test]
    fn short_and_foreign_packets_have_no_address() {
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0x45; 19]), None);
        assert_eq!(destination(&[0x60; 39]), None);
        assert_eq!(destination(&[0x55; 60]), None);
        let mut packet = [0x45; 20];
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(source(&packet), Some([10, 0, 0, 1].into()));
        assert_eq!(destination(&packet), Some([10, 0, 0, 2].into()));
    }
}
