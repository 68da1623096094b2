//! One peer's tunnel: boringtun's state machine and what it leaves open — padding aside, a bounded queue, persistent
//! keepalive as the kernel times it, the moment a handshake counts as complete, first handshakes that do not wait, and
//! messages that must not reach it.
//!
//! Time: boringtun reads the clock itself; `now` here is for what this module adds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;

use super::packet::{Message, REJECT_AFTER_MESSAGES, sender_index};
use crate::key::{PresharedKey, PrivateKey, PublicKey, is_low_order};

/// Room that every output buffer must have: the largest datagram there is.
pub(crate) const OUTPUT_LEN: usize = 1 << 16;
/// How often [`Tunnel::handle_timeout`] wants to be called.
pub(crate) const TICK: Duration = Duration::from_millis(200);

/// Packets of one peer that wait for its handshake; the oldest go first when there are more (the kernel's figure).
const QUEUE_PACKETS: usize = 128;
/// Bytes that wait, all peers together.
const QUEUED_BYTES_LIMIT: usize = 16 << 20;
/// For how long a fresh tunnel repeats its first initiation quickly.
const EAGER_FOR: Duration = Duration::from_secs(10);
/// How quickly. The other side takes up to 50 a second.
const EAGER_EVERY: Duration = Duration::from_secs(1);
/// A peer's initiations are taken at most this often (whitepaper 5.1, the kernel's 50 a second).
const INITIATIONS_APART: Duration = Duration::from_millis(20);

/// Who we are, shared by all tunnels of a device.
pub(crate) struct Identity {
    /// The private key in the library's form.
    pub(crate) private_key: x25519::StaticSecret,
    /// Its public half in the library's form.
    pub(crate) public_key: x25519::PublicKey,
    /// Decides under load who gets a cookie; checks the first authenticator of handshake messages.
    pub(crate) limiter: RateLimiter,
    /// Never under load: the tunnels' own check behind ours.
    unlimited: Arc<RateLimiter>,
}

impl Identity {
    /// Takes the device's key and how many handshake messages a second are answered without asking for a cookie.
    pub(crate) fn new(key: &PrivateKey, handshakes_per_second: u64) -> Self {
        let private_key = key.to_dalek();
        let public_key = x25519::PublicKey::from(&private_key);
        Self {
            limiter: RateLimiter::new(&public_key, handshakes_per_second),
            unlimited: Arc::new(RateLimiter::new(&public_key, u64::MAX)),
            private_key,
            public_key,
        }
    }
}

/// What became of a datagram. Lengths are of what now lies at the output's beginning.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// An inner packet; whether the peer may send it is still to be asked.
    Packet(usize),
    /// An empty packet.
    Keepalive,
    /// The peer opened a handshake; this is the response.
    Respond(usize),
    /// Our handshake was answered. The keepalive lets the peer use the session; queued packets do as well.
    Established(usize),
    /// The next initiation will carry the cookie.
    CookieKept,
}

/// Why a datagram was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not authentic, replayed, out of order too far, or for a session that is gone.
    NotAuthentic,
    /// The peer sends initiations too quickly, or a message with a worthless key or a counter past the limit.
    NotAllowed,
}

/// What one call made happen besides its result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// A handshake is complete.
    pub(crate) handshake_done: bool,
}

/// One peer's tunnel.
pub(crate) struct Tunnel {
    tunn: Tunn,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
    keepalive: Duration,
    last_traffic: Instant,
    eager_until: Option<Instant>,
    last_initiation: Option<Instant>,
    last_accepted: Option<Instant>,
    unconfirmed: Option<u32>,
}

/// What a tunnel is built from.
pub(crate) struct TunnelParams<'a> {
    /// Who we are.
    pub(crate) identity: &'a Identity,
    /// Whom it leads to.
    pub(crate) peer: PublicKey,
    /// Mixed into handshakes.
    pub(crate) preshared_key: Option<&'a PresharedKey>,
    /// The upper 24 bits of our indices.
    pub(crate) index: u32,
    /// Bytes waiting in all queues.
    pub(crate) queued_bytes: Arc<AtomicUsize>,
}

impl Tunnel {
    /// Builds a tunnel; `None` to a peer whose key has low order, which can authenticate nobody.
    pub(crate) fn new(params: TunnelParams<'_>, now: Instant) -> Option<Self> {
        if params.peer.is_low_order() {
            return None;
        }
        let tunn = Tunn::new(
            params.identity.private_key.clone(),
            x25519::PublicKey::from(*params.peer.as_bytes()),
            params.preshared_key.map(|key| *key.as_bytes()),
            None,
            params.index,
            Some(Arc::clone(&params.identity.unlimited)),
        );
        Some(Self {
            tunn,
            queue: VecDeque::new(),
            queued_bytes: params.queued_bytes,
            keepalive: Duration::ZERO,
            last_traffic: now,
            eager_until: None,
            last_initiation: None,
            last_accepted: None,
            unconfirmed: None,
        })
    }

    /// Sets the persistent keepalive in seconds; 0 is off.
    pub(crate) fn set_keepalive(&mut self, seconds: u16) {
        self.keepalive = Duration::from_secs(seconds.into());
    }

    fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    /// Seals a padded packet, or queues it while there is no session. Gives the length of the datagram to send.
    pub(crate) fn seal(&mut self, packet: &[u8], out: &mut [u8], now: Instant) -> Option<usize> {
        if self.has_session() {
            return self.seal_now(packet, out, now);
        }
        self.enqueue(packet);
        self.initiate(false, out, now)
    }

    fn seal_now(&mut self, packet: &[u8], out: &mut [u8], now: Instant) -> Option<usize> {
        if out.len() < packet.len() + super::packet::DATA_OVERHEAD {
            return None;
        }
        self.last_traffic = now;
        written(&self.tunn.encapsulate(packet, out))
    }

    /// Opens a handshake. Unless `again`, one that is under way is left to itself.
    fn initiate(&mut self, again: bool, out: &mut [u8], now: Instant) -> Option<usize> {
        let len = written(&self.tunn.format_handshake_initiation(out, again))?;
        self.last_initiation = Some(now);
        self.last_traffic = now;
        Some(len)
    }

    /// Opens a handshake now and repeats it each second for a while, because its reason is a change that the other side
    /// may learn of a moment later: our start, a new key, a new endpoint.
    pub(crate) fn initiate_eagerly(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        self.eager_until = now.checked_add(EAGER_FOR);
        self.initiate(true, out, now)
    }

    /// Sends an empty packet, which opens a handshake if there is no session.
    pub(crate) fn send_keepalive(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        if self.has_session() { self.seal_now(&[], out, now) } else { self.initiate(false, out, now) }
    }

    /// Takes a datagram that was addressed to this tunnel. `out` must have [`OUTPUT_LEN`] bytes.
    pub(crate) fn open(
        &mut self,
        message: Message,
        datagram: &[u8],
        out: &mut [u8],
        now: Instant,
    ) -> Result<(Opened, Effects), Refused> {
        self.admit(message, now)?;
        let len = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::Err(_) => return Err(Refused::NotAuthentic),
            TunnResult::Done => 0,
            TunnResult::WriteToNetwork(bytes)
            | TunnResult::WriteToTunnelV4(bytes, _)
            | TunnResult::WriteToTunnelV6(bytes, _) => bytes.len(),
        };
        let mut effects = Effects::default();
        let opened = match message {
            Message::Initiation { .. } => {
                self.last_accepted = Some(now);
                self.unconfirmed = out.get(..len).and_then(sender_index);
                Opened::Respond(len)
            }
            Message::Response { .. } => {
                effects.handshake_done = true;
                self.eager_until = None;
                Opened::Established(len)
            }
            Message::Cookie { .. } => return Ok((Opened::CookieKept, effects)),
            Message::Data { receiver, .. } => {
                if self.unconfirmed == Some(receiver) {
                    // The initiator has used the session, so it is complete for the responder too.
                    self.unconfirmed = None;
                    self.eager_until = None;
                    effects.handshake_done = true;
                }
                if len == 0 { Opened::Keepalive } else { Opened::Packet(len) }
            }
        };
        self.last_traffic = now;
        Ok((opened, effects))
    }

    fn admit(&self, message: Message, now: Instant) -> Result<(), Refused> {
        let allowed = match message {
            Message::Initiation { ephemeral } => {
                let quick = self.last_accepted.is_some_and(|last| now.duration_since(last) < INITIATIONS_APART);
                !quick && !is_low_order(&ephemeral)
            }
            Message::Response { ephemeral, .. } => !is_low_order(&ephemeral),
            // boringtun adds to the counter of an authentic message, which must not overflow.
            Message::Data { counter, .. } => counter < REJECT_AFTER_MESSAGES,
            Message::Cookie { .. } => true,
        };
        if allowed { Ok(()) } else { Err(Refused::NotAllowed) }
    }

    /// Whether packets wait and can go now.
    pub(crate) fn can_flush(&self) -> bool {
        !self.queue.is_empty() && self.has_session()
    }

    /// Seals the next packet that waited. Call until `None`.
    pub(crate) fn poll_transmit(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        if !self.can_flush() {
            return None;
        }
        let packet = self.dequeue()?;
        self.seal_now(&packet, out, now)
    }

    /// Does what is due. Call every [`TICK`]; gives the length of a datagram to send.
    pub(crate) fn handle_timeout(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        let initiations_before = self.tunn.is_expired();
        if let Some(len) = written(&self.tunn.update_timers(out)) {
            self.last_traffic = now;
            if len == super::packet::INITIATION_LEN {
                self.last_initiation = Some(now);
            }
            return Some(len);
        }
        if self.tunn.is_expired() && !initiations_before {
            // Nobody answered for 90 s, or nothing was said for long: what waits is stale.
            self.drop_queue();
        }
        if self.eager_until.is_some_and(|until| now < until) {
            let waited = self.last_initiation.is_none_or(|last| now.duration_since(last) >= EAGER_EVERY);
            return if waited { self.initiate(true, out, now) } else { None };
        }
        if !self.keepalive.is_zero() && now.duration_since(self.last_traffic) >= self.keepalive {
            return self.send_keepalive(out, now);
        }
        None
    }

    fn enqueue(&mut self, packet: &[u8]) {
        if packet.is_empty() {
            return;
        }
        while self.queue.len() >= QUEUE_PACKETS {
            self.dequeue();
        }
        let before = self.queued_bytes.fetch_add(packet.len(), Ordering::Relaxed);
        if before + packet.len() > QUEUED_BYTES_LIMIT {
            self.queued_bytes.fetch_sub(packet.len(), Ordering::Relaxed);
            return;
        }
        self.queue.push_back(packet.to_vec());
    }

    fn dequeue(&mut self) -> Option<Vec<u8>> {
        let packet = self.queue.pop_front()?;
        self.queued_bytes.fetch_sub(packet.len(), Ordering::Relaxed);
        Some(packet)
    }

    fn drop_queue(&mut self) {
        while self.dequeue().is_some() {}
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.drop_queue();
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("queued", &self.queue.len()).finish_non_exhaustive()
    }
}

fn written(result: &TunnResult<'_>) -> Option<usize> {
    match result {
        TunnResult::WriteToNetwork(bytes) => Some(bytes.len()),
        TunnResult::Done | TunnResult::Err(_) | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
            None
        }
    }
}

#[cfg(test)]
mod tests;
