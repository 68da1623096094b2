//! Requests, read into a change of the configuration. A request takes effect as a whole or not at all: an engine that is
//! told ten things of which the ninth is wrong stays as it was. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::allowed_ip::AllowedIp;
use crate::key::{self, PublicKey};
use crate::proto::model::{Edit, Model, preshared_key_or_none, private_key_or_none};

/// Peers that one device may have, as in the other implementations.
pub(crate) const MAX_PEERS: usize = 1 << 16;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// Everything about the device.
    Get,
    /// Changes, one a line.
    Set(&'a str),
}

/// Why a request is refused; the number goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// The first line is neither `get=1` nor `set=1`.
    #[error("unknown operation")]
    Operation,
    /// A line is not `key=value`, its key is unknown, or it stands in the wrong place.
    #[error("line {line}: unknown or misplaced key")]
    Key {
        /// Counted from 1 behind the operation.
        line: usize,
    },
    /// A value does not fit its key.
    #[error("line {line}: value out of range or malformed")]
    Value {
        /// Counted from 1 behind the operation.
        line: usize,
    },
    /// The device has all the peers that it can have.
    #[error("more than {MAX_PEERS} peers")]
    TooManyPeers,
}

impl RequestError {
    /// The positive error number.
    pub(crate) fn errno(self) -> i32 {
        match self {
            Self::Operation => libc::EPROTO,
            Self::Key { .. } | Self::Value { .. } => libc::EINVAL,
            Self::TooManyPeers => libc::ENOSPC,
        }
    }
}

impl<'a> Request<'a> {
    /// Reads the operation. `text` is a whole message without its empty line.
    pub(crate) fn parse(text: &'a str) -> Result<Self, RequestError> {
        let (operation, rest) = text.split_once('\n').unwrap_or((text, ""));
        match operation {
            "get=1" => Ok(Self::Get),
            "set=1" => Ok(Self::Set(rest)),
            _ => Err(RequestError::Operation),
        }
    }
}

/// The configuration after the lines of a `set=1`.
pub(crate) fn edit(current: &Model, lines: &str) -> Result<Edit, RequestError> {
    let mut editor = Editor { edit: Edit { model: current.clone(), ..Edit::default() }, peer: Peer::NoneYet };
    for (number, line) in (1..).zip(lines.lines()) {
        let (name, value) = line.split_once('=').ok_or(RequestError::Key { line: number })?;
        editor.line(name, value).map_err(|fault| match fault {
            Fault::Key => RequestError::Key { line: number },
            Fault::Value => RequestError::Value { line: number },
            Fault::TooManyPeers => RequestError::TooManyPeers,
        })?;
    }
    Ok(editor.edit)
}

enum Fault {
    Key,
    Value,
    TooManyPeers,
}

/// To which peer the lines apply.
enum Peer {
    /// Still the device's own lines.
    NoneYet,
    /// This one.
    Chosen { key: PublicKey, created: bool },
    /// One that was removed, is not to be created, or is ourselves: its lines are checked and have no effect.
    Ignored,
}

struct Editor {
    edit: Edit,
    peer: Peer,
}

impl Editor {
    fn line(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        if name == "public_key" {
            return self.choose(value);
        }
        match self.peer {
            Peer::NoneYet => self.device_line(name, value),
            Peer::Chosen { key, created } => self.peer_line(Some(key), created, name, value),
            Peer::Ignored => self.peer_line(None, false, name, value),
        }
    }

    fn device_line(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        let model = &mut self.edit.model;
        match name {
            "private_key" => model.set_private_key(private_key_or_none(*hex_key(value)?)),
            "listen_port" => model.listen_port = number(value)?,
            "fwmark" => model.fwmark = fwmark(value)?,
            "replace_peers" => {
                truth(value)?;
                self.edit.removed.extend(model.peers().keys());
                model.remove_all_peers();
            }
            _ => return Err(Fault::Key),
        }
        Ok(())
    }

    fn choose(&mut self, value: &str) -> Result<(), Fault> {
        let key = PublicKey::new(*hex_key(value)?);
        if self.edit.model.public_key() == Some(key) {
            self.peer = Peer::Ignored;
            return Ok(());
        }
        let created = !self.edit.model.peers().contains_key(&key);
        if created && self.edit.model.peers().len() >= MAX_PEERS {
            return Err(Fault::TooManyPeers);
        }
        self.edit.model.add_peer(key);
        self.peer = Peer::Chosen { key, created };
        Ok(())
    }

    fn peer_line(&mut self, key: Option<PublicKey>, created: bool, name: &str, value: &str) -> Result<(), Fault> {
        match name {
            "remove" => {
                truth(value)?;
                self.remove(key);
            }
            "update_only" => {
                truth(value)?;
                if let Some(key) = key.filter(|_| created) {
                    self.edit.model.remove_peer(key);
                    self.peer = Peer::Ignored;
                }
            }
            "preshared_key" => {
                let preshared = preshared_key_or_none(*hex_key(value)?);
                if let Some(peer) = key.and_then(|key| self.edit.model.peer_mut(key)) {
                    peer.preshared_key = preshared;
                }
            }
            "endpoint" => self.set_endpoint(key, endpoint(value)?),
            "persistent_keepalive_interval" => self.set_keepalive(key, keepalive(value)?),
            "replace_allowed_ips" => {
                truth(value)?;
                if let Some(key) = key {
                    self.edit.model.take_all(key);
                }
            }
            "allowed_ip" => self.change_allowed_ip(key, value)?,
            "protocol_version" => {
                if value != "1" {
                    return Err(Fault::Value);
                }
            }
            _ => return Err(Fault::Key),
        }
        Ok(())
    }

    fn remove(&mut self, key: Option<PublicKey>) {
        if let Some(key) = key {
            self.edit.model.remove_peer(key);
            self.edit.removed.insert(key);
            self.edit.endpoints.remove(&key);
            self.edit.keepalives.remove(&key);
        }
        self.peer = Peer::Ignored;
    }

    fn set_endpoint(&mut self, key: Option<PublicKey>, endpoint: SocketAddr) {
        if let Some(peer) = key.and_then(|key| self.edit.model.peer_mut(key)) {
            peer.endpoint = Some(endpoint);
            self.edit.endpoints.insert(peer.public_key, endpoint);
        }
    }

    fn set_keepalive(&mut self, key: Option<PublicKey>, seconds: u16) {
        if let Some(peer) = key.and_then(|key| self.edit.model.peer_mut(key)) {
            if peer.persistent_keepalive == 0 && seconds != 0 {
                self.edit.keepalives.insert(peer.public_key);
            }
            peer.persistent_keepalive = seconds;
        }
    }

    fn change_allowed_ip(&mut self, key: Option<PublicKey>, value: &str) -> Result<(), Fault> {
        let (taken, text) = match value.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, value.strip_prefix('+').unwrap_or(value)),
        };
        if !text.contains('/') {
            return Err(Fault::Value);
        }
        let prefix: AllowedIp = text.parse().map_err(|_| Fault::Value)?;
        match key {
            Some(key) if taken => self.edit.model.take(prefix, key),
            Some(key) => self.edit.model.give(prefix, key),
            None => {}
        }
        Ok(())
    }
}

fn hex_key(value: &str) -> Result<zeroize::Zeroizing<[u8; key::KEY_LEN]>, Fault> {
    if value.len() != 2 * key::KEY_LEN {
        return Err(Fault::Value);
    }
    key::parse(value).map_err(|_| Fault::Value)
}

fn truth(value: &str) -> Result<(), Fault> {
    if value == "true" { Ok(()) } else { Err(Fault::Value) }
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, Fault> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::Value);
    }
    value.parse().map_err(|_| Fault::Value)
}

/// An IPv4 address written as an IPv6 one is an IPv4 address: the sockets are one of each family.
fn endpoint(value: &str) -> Result<SocketAddr, Fault> {
    let address: SocketAddr = value.parse().map_err(|_| Fault::Value)?;
    match address.ip().to_canonical() {
        canonical if canonical.is_ipv4() => Ok(SocketAddr::new(canonical, address.port())),
        _ => Ok(address),
    }
}

/// Decimal, or hexadecimal as some tools write it; empty takes it away.
fn fwmark(value: &str) -> Result<u32, Fault> {
    match value.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).map_err(|_| Fault::Value),
        None if value.is_empty() => Ok(0),
        None => number(value),
    }
}

fn keepalive(value: &str) -> Result<u16, Fault> {
    if value == "off" { Ok(0) } else { number(value) }
}

#[cfg(test)]
mod tests;

/// The keys of peers that the edit made or changed in what a tunnel is built from.
pub(crate) fn rekeyed(before: &Model, after: &Edit) -> BTreeSet<PublicKey> {
    let changed = |key: &&PublicKey| {
        let (old, new) = (before.peers().get(*key), after.model.peers().get(*key));
        after.removed.contains(*key) || old.map(|p| &p.preshared_key) != new.map(|p| &p.preshared_key)
    };
    let all = after.model.peers().keys();
    if before.private_key == after.model.private_key {
        all.filter(changed).copied().collect()
    } else {
        all.copied().collect()
    }
}
