//! Tests of `tunnel`.

use super::*;
use crate::proto::packet::{DATA_OVERHEAD, INITIATION_LEN, RESPONSE_LEN};

struct Pair {
    a: Tunnel,
    b: Tunnel,
    waiting: Arc<AtomicUsize>,
    now: Instant,
}

fn identity(key: &PrivateKey) -> Identity {
    Identity::new(key, 1000)
}

fn build(own: &PrivateKey, peer: PublicKey, index: u32, waiting: &Arc<AtomicUsize>) -> Option<Tunnel> {
    let identity = identity(own);
    let params =
        TunnelParams { identity: &identity, peer, preshared_key: None, index, queued_bytes: Arc::clone(waiting) };
    Tunnel::new(params, Instant::now())
}

fn pair() -> Pair {
    let (a, b) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let waiting = Arc::new(AtomicUsize::new(0));
    Pair {
        a: build(&a, b.public_key(), 1, &waiting).unwrap(),
        b: build(&b, a.public_key(), 2, &waiting).unwrap(),
        waiting,
        now: Instant::now(),
    }
}

fn out() -> Vec<u8> {
    vec![0; OUTPUT_LEN]
}

fn deliver(to: &mut Tunnel, datagram: &[u8], now: Instant) -> (Result<(Opened, Effects), Refused>, Vec<u8>) {
    let mut buffer = out();
    let result = to.open(Message::parse(datagram).unwrap(), datagram, &mut buffer, now);
    let len = match &result {
        Ok((Opened::Packet(n) | Opened::Respond(n) | Opened::Established(n), _)) => *n,
        _ => 0,
    };
    buffer.truncate(len);
    (result, buffer)
}

/// A minimal IPv4 packet of `len` bytes.
fn packet(len: u8) -> Vec<u8> {
    let mut bytes = vec![0; len.into()];
    bytes[0] = 0x45;
    bytes[3] = len;
    bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes
}

impl Pair {
    /// A opens a handshake because of `first`, and both have the session afterwards.
    fn connect(&mut self, first: &[u8]) {
        let mut buffer = out();
        let len = self.a.seal(first, &mut buffer, self.now).unwrap();
        assert_eq!(len, INITIATION_LEN);
        let (result, response) = deliver(&mut self.b, &buffer[..len], self.now);
        assert_eq!(result, Ok((Opened::Respond(RESPONSE_LEN), Effects::default())));
        let (result, _keepalive) = deliver(&mut self.a, &response, self.now);
        assert_eq!(result, Ok((Opened::Established(DATA_OVERHEAD), Effects { handshake_done: true })));
    }
}

#[test]
fn queued_packet_completes_the_handshake_on_both_sides() {
    let mut pair = pair();
    pair.connect(&packet(48));
    let mut buffer = out();
    let len = pair.a.poll_transmit(&mut buffer, pair.now).unwrap();
    assert_eq!(len, 48 + DATA_OVERHEAD);
    assert_eq!(pair.a.poll_transmit(&mut out(), pair.now), None);
    let (result, inner) = deliver(&mut pair.b, &buffer[..len], pair.now);
    assert_eq!(result, Ok((Opened::Packet(48), Effects { handshake_done: true })));
    assert_eq!(inner, packet(48));
    assert_eq!(pair.waiting.load(Ordering::Relaxed), 0);
    let (replay, _) = deliver(&mut pair.b, &buffer[..len], pair.now);
    assert_eq!(replay, Err(Refused::NotAuthentic));
}

#[test]
fn queue_is_bounded_and_keeps_the_newest() {
    let mut pair = pair();
    for n in 0..QUEUE_PACKETS + 50 {
        pair.a.seal(&packet(20 + u8::try_from(n % 100).unwrap()), &mut out(), pair.now);
    }
    assert_eq!(pair.a.queue.len(), QUEUE_PACKETS);
    let bytes: usize = pair.a.queue.iter().map(Vec::len).sum();
    assert_eq!(pair.waiting.load(Ordering::Relaxed), bytes);
    let Pair { a, waiting, .. } = pair;
    drop(a);
    assert_eq!(waiting.load(Ordering::Relaxed), 0, "a tunnel that goes gives its share back");
}

#[test]
fn low_order_keys_get_no_tunnel_and_no_answer() {
    let own = PrivateKey::generate().unwrap();
    let waiting = Arc::new(AtomicUsize::new(0));
    assert!(build(&own, PublicKey::new([0; 32]), 1, &waiting).is_none());

    let mut pair = pair();
    let mut buffer = out();
    let len = pair.a.seal(&packet(20), &mut buffer, pair.now).unwrap();
    buffer[8..40].fill(0);
    let (result, _) = deliver(&mut pair.b, &buffer[..len], pair.now);
    assert_eq!(result, Err(Refused::NotAllowed));
}

#[test]
fn counter_at_the_end_is_refused_before_it_can_overflow() {
    let mut pair = pair();
    pair.connect(&packet(20));
    let mut buffer = out();
    let len = pair.a.poll_transmit(&mut buffer, pair.now).unwrap();
    buffer[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let (result, _) = deliver(&mut pair.b, &buffer[..len], pair.now);
    assert_eq!(result, Err(Refused::NotAllowed));
}

#[test]
fn initiations_in_quick_succession_are_answered_once() {
    let mut pair = pair();
    let mut buffer = out();
    let len = pair.a.initiate_eagerly(&mut buffer, pair.now).unwrap();
    assert!(deliver(&mut pair.b, &buffer[..len], pair.now).0.is_ok());
    let len = pair.a.initiate_eagerly(&mut buffer, pair.now).unwrap();
    let (result, _) = deliver(&mut pair.b, &buffer[..len], pair.now + Duration::from_millis(1));
    assert_eq!(result, Err(Refused::NotAllowed));
    let (result, _) = deliver(&mut pair.b, &buffer[..len], pair.now + INITIATIONS_APART);
    assert!(result.is_ok());
}

#[test]
fn eager_initiation_is_repeated_until_answered() {
    let mut pair = pair();
    let mut buffer = out();
    assert_eq!(pair.a.initiate_eagerly(&mut buffer, pair.now), Some(INITIATION_LEN));
    assert_eq!(pair.a.handle_timeout(&mut buffer, pair.now + Duration::from_millis(500)), None);
    let later = pair.now + EAGER_EVERY;
    assert_eq!(pair.a.handle_timeout(&mut buffer, later), Some(INITIATION_LEN));
    let (_, response) = deliver(&mut pair.b, &buffer[..INITIATION_LEN], later);
    deliver(&mut pair.a, &response, later).0.unwrap();
    assert_eq!(pair.a.handle_timeout(&mut buffer, later + EAGER_EVERY), None);
}

#[test]
fn persistent_keepalive_counts_from_the_last_traffic() {
    let mut pair = pair();
    pair.connect(&packet(20));
    pair.a.poll_transmit(&mut out(), pair.now);
    pair.a.set_keepalive(5);
    let mut buffer = out();
    let at = |secs| pair.now + Duration::from_secs(secs);
    assert_eq!(pair.a.handle_timeout(&mut buffer, at(4)), None);
    assert_eq!(pair.a.handle_timeout(&mut buffer, at(5)), Some(DATA_OVERHEAD));
    assert_eq!(pair.a.handle_timeout(&mut buffer, at(9)), None);
    assert_eq!(pair.a.handle_timeout(&mut buffer, at(10)), Some(DATA_OVERHEAD));
}

#[test]
fn response_of_somebody_else_leaves_the_handshake_alone() {
    let (mut honest, mut stranger) = (pair(), pair());
    let mut first = out();
    let len = honest.a.seal(&packet(20), &mut first, honest.now).unwrap();
    let mut other = out();
    let other_len = stranger.a.seal(&packet(20), &mut other, honest.now).unwrap();
    let (_, mut forged) = deliver(&mut stranger.b, &other[..other_len], honest.now);
    forged[8..12].copy_from_slice(&first[4..8]);
    assert_eq!(deliver(&mut honest.a, &forged, honest.now).0, Err(Refused::NotAuthentic));
    let (_, response) = deliver(&mut honest.b, &first[..len], honest.now);
    assert!(deliver(&mut honest.a, &response, honest.now).0.is_ok());
}

proptest::proptest! {
    #[test]
    fn flipped_bits_are_never_taken(at in 0usize..80, bit in 0u8..8) {
        let mut pair = pair();
        pair.connect(&packet(48));
        let mut buffer = out();
        let len = pair.a.poll_transmit(&mut buffer, pair.now).unwrap();
        buffer[at] ^= 1 << bit;
        if let Some(message) = Message::parse(&buffer[..len]) {
            let result = pair.b.open(message, &buffer[..len], &mut out(), pair.now);
            proptest::prop_assert!(result.is_err());
        }
    }
}
