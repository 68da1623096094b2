//! Answers to `get=1` and `set=1`, read and written. Pure.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::device::{DeviceStatus, PeerStatus};
use crate::key::{self, PresharedKey, PrivateKey, PublicKey};

/// The error number at the answer's end, as a positive number; `None` when there is none.
pub(crate) fn errno(answer: &str) -> Option<i32> {
    let line = answer.lines().rev().find_map(|line| line.strip_prefix("errno="))?;
    line.trim().parse::<i32>().ok().and_then(i32::checked_abs)
}

/// Reads an answer to `get=1`; the error is the field at fault. Keys that are not known are passed over.
pub(crate) fn parse(answer: &str) -> Result<DeviceStatus, &'static str> {
    let mut status = DeviceStatus::default();
    let mut current: Option<(PublicKey, PeerStatus)> = None;
    for line in answer.lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        if name == "public_key" {
            let key = value.parse().map_err(|_| "public_key")?;
            status.peers.extend(current.replace((key, PeerStatus::default())));
        } else if let Some((_, peer)) = &mut current {
            parse_peer_line(peer, name, value)?;
        } else {
            parse_device_line(&mut status, name, value)?;
        }
    }
    status.peers.extend(current);
    Ok(status)
}

fn parse_device_line(status: &mut DeviceStatus, name: &str, value: &str) -> Result<(), &'static str> {
    match name {
        "private_key" => {
            let bytes = key::parse(value).map_err(|_| "private_key")?;
            status.public_key = (*bytes != [0; 32]).then(|| PrivateKey::new(*bytes).public_key());
        }
        "listen_port" => status.listen_port = value.parse().map_err(|_| "listen_port")?,
        "fwmark" => status.fwmark = value.parse().map_err(|_| "fwmark")?,
        _ => {
            if let Some(reason) = name.strip_prefix(DROPPED) {
                status.drops.insert(reason.to_owned(), value.parse().map_err(|_| "fabric_dropped")?);
            }
        }
    }
    Ok(())
}

fn parse_peer_line(peer: &mut PeerStatus, name: &str, value: &str) -> Result<(), &'static str> {
    match name {
        "preshared_key" => peer.preshared_key = PresharedKey::new(*key::parse(value).map_err(|_| "preshared_key")?),
        "endpoint" => peer.endpoint = Some(value.parse().map_err(|_| "endpoint")?),
        CONFIGURED_ENDPOINT => peer.configured_endpoint = Some(value.parse().map_err(|_| CONFIGURED_ENDPOINT)?),
        "last_handshake_time_sec" => {
            let secs: u64 = value.parse().map_err(|_| "last_handshake_time_sec")?;
            peer.last_handshake = (secs != 0).then(|| UNIX_EPOCH.checked_add(Duration::from_secs(secs))).flatten();
        }
        "last_handshake_time_nsec" => {
            let nanos: u32 = value.parse().map_err(|_| "last_handshake_time_nsec")?;
            peer.last_handshake = peer.last_handshake.and_then(|t| t.checked_add(Duration::from_nanos(nanos.into())));
        }
        "rx_bytes" => peer.rx_bytes = value.parse().map_err(|_| "rx_bytes")?,
        "tx_bytes" => peer.tx_bytes = value.parse().map_err(|_| "tx_bytes")?,
        "persistent_keepalive_interval" => {
            peer.persistent_keepalive = value.parse().map_err(|_| "persistent_keepalive_interval")?;
        }
        "allowed_ip" => {
            peer.allowed_ips.insert(value.parse().map_err(|_| "allowed_ip")?);
        }
        _ => {}
    }
    Ok(())
}

/// An addition of ours to the protocol, which readers that do not know it pass over: where the peer was configured to be,
/// as opposed to where it is now. It lets a controller that has just started tell a changed configuration from roaming.
const CONFIGURED_ENDPOINT: &str = "fabric_configured_endpoint";

/// Another addition: one line a reason, with the number of packets dropped for it.
const DROPPED: &str = "fabric_dropped_";

/// Writes the answer to `get=1`, without the error number.
pub(crate) fn write(status: &DeviceStatus, private_key: Option<&PrivateKey>, out: &mut String) {
    if let Some(key) = private_key {
        let text = zeroize::Zeroizing::new(hex::encode(key.as_bytes()));
        push(out, "private_key", text.as_str());
    }
    push(out, "listen_port", status.listen_port);
    if status.fwmark != 0 {
        push(out, "fwmark", status.fwmark);
    }
    for (reason, count) in &status.drops {
        push(out, &format!("{DROPPED}{reason}"), count);
    }
    for (key, peer) in &status.peers {
        write_peer(*key, peer, out);
    }
}

fn write_peer(key: PublicKey, peer: &PeerStatus, out: &mut String) {
    push(out, "public_key", key.to_hex());
    if let Some(preshared) = &peer.preshared_key {
        let text = zeroize::Zeroizing::new(hex::encode(preshared.as_bytes()));
        push(out, "preshared_key", text.as_str());
    }
    push(out, "protocol_version", 1);
    if let Some(endpoint) = peer.endpoint {
        push(out, "endpoint", endpoint);
    }
    if let Some(endpoint) = peer.configured_endpoint {
        push(out, CONFIGURED_ENDPOINT, endpoint);
    }
    let since = peer.last_handshake.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    push(out, "last_handshake_time_sec", since.as_secs());
    push(out, "last_handshake_time_nsec", since.subsec_nanos());
    push(out, "tx_bytes", peer.tx_bytes);
    push(out, "rx_bytes", peer.rx_bytes);
    push(out, "persistent_keepalive_interval", peer.persistent_keepalive);
    for prefix in &peer.allowed_ips {
        push(out, "allowed_ip", prefix);
    }
}

fn push(out: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{key}={value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let private = PrivateKey::new([3; 32]);
        let peer = PeerStatus {
            preshared_key: PresharedKey::new([5; 32]),
            endpoint: Some("192.0.2.7:51871".parse().unwrap()),
            configured_endpoint: Some("[2001:db8::7]:51871".parse().unwrap()),
            last_handshake: Some(UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
            rx_bytes: 1372,
            tx_bytes: u64::MAX,
            persistent_keepalive: 25,
            allowed_ips: ["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()].into(),
        };
        let status = DeviceStatus {
            public_key: Some(private.public_key()),
            listen_port: 51871,
            fwmark: 7,
            drops: [("no_route".to_owned(), 3)].into(),
            peers: [(PublicKey::new([1; 32]), peer), (PublicKey::new([2; 32]), PeerStatus::default())].into(),
        };
        let mut text = String::new();
        write(&status, Some(&private), &mut text);
        assert_eq!(parse(&text), Ok(status));
    }

    #[test]
    fn errno_is_read_with_either_sign() {
        assert_eq!(errno("listen_port=1\nerrno=0\n\n"), Some(0));
        assert_eq!(errno("errno=-22\n\n"), Some(22));
        assert_eq!(errno("errno=x\n\n"), None);
        assert_eq!(errno("listen_port=1\n"), None);
    }
}
