//! The packet threads. Both work in buffers of their own that never grow.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, Tunn, TunnResult};

use super::core::{Core, count};
use super::peer::{Link, Peer};
use super::table::Table;
use crate::io::udp::UdpPair;
use crate::io::wake::wait_readable;
use crate::key::PublicKey;
use crate::proto::packet::{self, COOKIE_LEN, DATA_OVERHEAD, Message, PADDING};
use crate::proto::tunnel::{OUTPUT_LEN, Opened};

/// Packets taken from one source before the others are looked at again.
const BURST: usize = 64;
/// The largest packet from the device: one that still fits a datagram when sealed.
const MAX_PACKET: usize = 65_507 - DATA_OVERHEAD;

/// Reads packets from the device, seals and sends them.
pub(super) fn read_tun(core: &Core) -> io::Result<()> {
    let mut packet = vec![0; MAX_PACKET + PADDING];
    let mut out = vec![0; OUTPUT_LEN];
    loop {
        for _ in 0..BURST {
            match core.tun.read(&mut packet[..MAX_PACKET]) {
                Ok(len) => send_packet(core, &mut packet, len, &mut out),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        let [stop, _] = wait_readable([core.stop.as_fd(), core.tun.as_fd()], None)?;
        if stop {
            return Ok(());
        }
    }
}

fn send_packet(core: &Core, packet: &mut [u8], len: usize, out: &mut [u8]) {
    let table = core.table.load();
    let owner = packet.get(..len).and_then(packet::destination).and_then(|to| table.routes.lookup(to));
    let Some(peer) = owner else { return count(&core.drops.no_route) };
    let mtu = core.mtu.load(Ordering::Relaxed) as usize;
    let padded = packet::padded_len(len, mtu).min(packet.len());
    packet[len..padded].fill(0);

    let mut link = peer.link();
    let endpoint = link.endpoint;
    let (Some(tunnel), Some(endpoint)) = (&mut link.tunnel, endpoint) else {
        return count(&core.drops.no_endpoint);
    };
    let sealed = tunnel.seal(&packet[..padded], out, Instant::now());
    drop(link);
    if let Some(len) = sealed {
        core.transmit(peer, &out[..len], endpoint);
    }
}

/// Reads datagrams from both sockets, opens them and gives the packets to the device.
pub(super) fn read_udp(core: &Core) -> io::Result<()> {
    let mut datagram = vec![0; OUTPUT_LEN];
    let mut out = vec![0; OUTPUT_LEN];
    while !core.stop.is_raised() {
        core.sockets_changed.lower();
        match core.sockets.load_full() {
            Some(sockets) => read_sockets(core, &sockets, &mut datagram, &mut out)?,
            None => drop(wait_readable([core.stop.as_fd(), core.sockets_changed.as_fd()], None)?),
        }
    }
    Ok(())
}

/// Reads one pair of sockets until it is replaced or the engine stops.
fn read_sockets(core: &Core, sockets: &Arc<UdpPair>, datagram: &mut [u8], out: &mut [u8]) -> io::Result<()> {
    let mut fds = sockets.fds();
    let (stop, changed) = (core.stop.as_fd(), core.sockets_changed.as_fd());
    let v4 = fds.next().unwrap_or(stop);
    let v6 = fds.next().unwrap_or(stop);
    loop {
        let [stop, changed, ..] = wait_readable([stop, changed, v4, v6], None)?;
        if stop || changed {
            return Ok(());
        }
        for socket in sockets.sockets() {
            for _ in 0..BURST {
                let Some((len, from)) = receive(socket, datagram) else { break };
                handle_datagram(core, &datagram[..len], from, out);
            }
        }
    }
}

/// Takes one datagram. Errors of a datagram socket are of single packets and pass.
fn receive(socket: &UdpSocket, datagram: &mut [u8]) -> Option<(usize, SocketAddr)> {
    socket.recv_from(datagram).ok()
}

/// One datagram, and what it is judged by.
struct Inbound<'a> {
    core: &'a Core,
    table: &'a Table,
    datagram: &'a [u8],
    from: SocketAddr,
}

fn handle_datagram(core: &Core, datagram: &[u8], from: SocketAddr, out: &mut [u8]) {
    let Some(message) = Message::parse(datagram) else { return count(&core.drops.malformed) };
    let table = core.table.load();
    let inbound = Inbound { core, table: &table, datagram, from };
    let peer = match message {
        Message::Initiation { .. } => inbound.initiator(out),
        Message::Response { receiver, .. } => table.receiver(receiver).filter(|_| inbound.passes_limiter(out)),
        Message::Cookie { receiver } | Message::Data { receiver, .. } => table.receiver(receiver),
    };
    match peer {
        Some(peer) => inbound.handle(peer, message, out),
        None => count(&core.drops.malformed),
    }
}

impl Inbound<'_> {
    /// Who opens a handshake, by the static key inside; `None` when it is nobody we know, or has to come back with a
    /// cookie.
    fn initiator(&self, out: &mut [u8]) -> Option<&Arc<Peer>> {
        if !self.passes_limiter(out) {
            return None;
        }
        let identity = self.core.identity.load();
        let identity = identity.as_ref()?;
        let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(self.datagram) else { return None };
        let half = parse_handshake_anon(&identity.private_key, &identity.public_key, &initiation).ok()?;
        self.table.by_key.get(&PublicKey::new(half.peer_static_public))
    }

    /// Checks a handshake message's first authenticator and, under load, its cookie; sends a cookie where it is due.
    fn passes_limiter(&self, out: &mut [u8]) -> bool {
        let identity = self.core.identity.load();
        let Some(identity) = identity.as_ref() else { return false };
        let Some(room) = out.get_mut(..COOKIE_LEN) else { return false };
        match identity.limiter.verify_packet(Some(self.from.ip()), self.datagram, room) {
            Ok(_) => true,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                if let Some(sockets) = self.core.sockets.load().as_ref() {
                    // To an unproven address: no peer's counter moves, and a loss does not matter.
                    let _ = sockets.send(cookie, self.from);
                }
                false
            }
            Err(_) => false,
        }
    }

    fn handle(&self, peer: &Arc<Peer>, message: Message, out: &mut [u8]) {
        let drops = &self.core.drops;
        let mut link = peer.link();
        let Some(tunnel) = &mut link.tunnel else { return count(&drops.refused) };
        let Ok((opened, effects)) = tunnel.open(message, self.datagram, out, Instant::now()) else {
            return count(&drops.refused);
        };
        let waiting = tunnel.can_flush();
        if opened != Opened::CookieKept {
            // Authentic and fresh: the peer is where this came from. A cookie proves less.
            link.endpoint = Some(self.from);
        }
        drop(link);
        if effects.handshake_done {
            peer.note_handshake(SystemTime::now());
        }
        match opened {
            Opened::CookieKept => {}
            Opened::Packet(len) => self.deliver(peer, &out[..len]),
            Opened::Keepalive => peer.count_received(self.datagram.len()),
            // What waits lets the peer use the new session as well as an empty packet does.
            Opened::Established(_) if waiting => peer.count_received(self.datagram.len()),
            Opened::Respond(len) | Opened::Established(len) => {
                peer.count_received(self.datagram.len());
                self.core.transmit(peer, &out[..len], self.from);
            }
        }
        if waiting {
            flush(self.core, peer, out);
        }
    }

    /// Gives an inner packet to the device if its source belongs to the peer by the most specific prefix of the whole
    /// table; only then it is counted, as in the kernel.
    fn deliver(&self, peer: &Arc<Peer>, packet: &[u8]) {
        let owner = packet::source(packet).and_then(|source| self.table.routes.lookup(source));
        if !owner.is_some_and(|owner| Arc::ptr_eq(owner, peer)) {
            return count(&self.core.drops.foreign_source);
        }
        peer.count_received(self.datagram.len());
        if self.core.tun.write(packet).is_err() {
            count(&self.core.drops.device);
        }
    }
}

/// Sends what waited for the session.
fn flush(core: &Core, peer: &Peer, out: &mut [u8]) {
    loop {
        let mut link = peer.link();
        let Link { tunnel: Some(tunnel), endpoint: Some(endpoint) } = &mut *link else { return };
        let endpoint = *endpoint;
        let Some(len) = tunnel.poll_transmit(out, Instant::now()) else { return };
        drop(link);
        core.transmit(peer, &out[..len], endpoint);
    }
}
