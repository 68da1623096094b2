//! Packets for each hook: every party to every other, every kind; then damaged ones.

use std::{cell::Cell, net::IpAddr};

use fabric_ebpf_logic::{
    Action, Workspace,
    fakes::{
        frame::{Payload, Tunnel, checksum, ethernet, frame, packet, tunnelled},
        scene,
    },
};

/// Ethernet and IPv6 headers.
const SHORTEST: usize = 14 + 40;

/// One packet; whole, or damaged.
pub(crate) struct Sample {
    pub(crate) bytes: Vec<u8>,
    pub(crate) whole: bool,
}

/// A source of packets that gives the same ones for the same seed.
pub(crate) struct Packets {
    state: Cell<u64>,
    geneve: bool,
}

fn payloads() -> Vec<Payload> {
    let quoted =
        packet(scene::A_ADDR.ip(false), scene::REMOTE_ADDR.ip(false), &Payload::Udp { sport: 5000, dport: 53 });
    let mut all = vec![
        Payload::Udp { sport: 5000, dport: 53 },
        Payload::Udp { sport: 5000, dport: 8472 },
        Payload::Ping { id: 7 },
        Payload::Pong { id: 7 },
        Payload::Unreachable { quoted },
        Payload::Other { proto: 47 },
        Payload::Other { proto: 132 },
    ];
    for (sport, dport) in [(40_000, 80), (80, 40_000), (40_000, 443)] {
        all.extend([2, 18, 16, 17, 4].map(|flags| Payload::Tcp { sport, dport, flags }));
    }
    all.extend([128, 133, 135, 137, 3, 11].map(|kind| Payload::Icmp { kind }));
    all
}

const PARTIES: [scene::Party; 7] = [
    scene::A_ADDR,
    scene::B_ADDR,
    scene::HOST_ADDR,
    scene::REMOTE_ADDR,
    scene::UNPUBLISHED,
    scene::WORLD,
    scene::SERVICE,
];

impl Packets {
    pub(crate) fn new(seed: u64, geneve: bool) -> Self {
        Self { state: Cell::new(seed | 1), geneve }
    }

    /// A number below `n` (xorshift).
    fn below(&self, n: usize) -> usize {
        let mut x = self.state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state.set(x);
        usize::try_from(x >> 33).unwrap() % n
    }

    fn inner() -> Vec<(IpAddr, IpAddr, Payload)> {
        let mut all = Vec::new();
        for six in [false, true] {
            for src in PARTIES {
                for dst in PARTIES {
                    all.extend(payloads().into_iter().map(|p| (src.ip(six), dst.ip(six), p)));
                }
            }
        }
        let nodes = [IpAddr::V4(scene::NODE), IpAddr::V4(scene::REMOTE_NODE)];
        for node in nodes {
            for party in PARTIES {
                for payload in payloads() {
                    all.push((party.ip(false), node, payload.clone()));
                    all.push((node, party.ip(false), payload));
                }
            }
        }
        all
    }

    fn around(&self, vni: u32, inner: &[u8]) -> Vec<u8> {
        tunnelled(&Tunnel { src: scene::REMOTE_NODE, dst: scene::NODE, vni, geneve: self.geneve }, inner)
    }

    /// The hand-made packets of a hook.
    pub(crate) fn whole(&self, hook: &str) -> Vec<Sample> {
        let mut all = Vec::new();
        let bare = hook == "from_wireguard";
        for (src, dst, payload) in Self::inner() {
            all.push(if bare { packet(src, dst, &payload) } else { frame(src, dst, &payload) });
            let arrives = bare || hook == "from_network";
            if arrives && dst == scene::A_ADDR.ip(dst.is_ipv6()) {
                for vni in [scene::REMOTE, scene::A, 0, 1, 2, 6, 7] {
                    let outer = self.around(vni, &frame(src, dst, &payload));
                    all.push(if bare { outer } else { ethernet(&outer) });
                }
            }
        }
        all.into_iter().map(|bytes| Sample { bytes, whole: true }).collect()
    }

    /// Some of them with bytes changed, or cut off.
    pub(crate) fn damaged(&self, hook: &str, n: usize) -> Vec<Sample> {
        let mut whole = self.whole(hook);
        whole.retain(|sample| sample.bytes.len() >= SHORTEST);
        let damage = |_| {
            let mut bytes = whole[self.below(whole.len())].bytes.clone();
            for _ in 0..=self.below(3) {
                let at = self.below(bytes.len());
                bytes[at] = self.below(256).to_le_bytes()[0];
            }
            if self.below(3) == 0 {
                // Test-run itself refuses packets that end before their IP header does.
                bytes.truncate(SHORTEST + self.below(bytes.len()));
            }
            Sample { bytes, whole: false }
        };
        (0..n).map(damage).collect()
    }
}

/// What left the program is a right packet: addresses, lengths, checksums.
pub(crate) fn check_output(hook: &str, ws: &Workspace, out: &[u8]) {
    match ws.action() {
        Action::Drop | Action::Pass => {}
        Action::Tunnel => {
            let (node, vni) = ws.tunnel();
            assert_eq!(std::net::Ipv4Addr::from(node), scene::REMOTE_NODE);
            check_ip(&out[14..]);
            assert_eq!(usize::from(u16::from_be_bytes([out[16], out[17]])), out.len() - 14);
            let field = u32::from_be_bytes(out[46..50].try_into().unwrap());
            assert_eq!(field, vni << 8);
            check_transport(&out[64..]);
        }
        Action::Deliver => {
            assert_eq!(out[..6], ws.endpoint().mac);
            assert_eq!(out[6..12], ws.endpoint().host_mac);
            assert_eq!(out[12..14], if ws.inner6() { [0x86, 0xdd] } else { [8, 0] }, "{hook}");
            check_transport(&out[14..]);
        }
        Action::Native | Action::Masquerade => check_transport(&out[14..]),
    }
}

fn check_ip(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        assert_eq!(checksum(&[&packet[..20]]), 0, "the header's checksum of {packet:02x?}");
    }
}

fn check_transport(packet: &[u8]) {
    check_ip(packet);
    let (proto, addresses, body) = if packet[0] >> 4 == 4 {
        (packet[9], &packet[12..20], &packet[20..])
    } else {
        (packet[6], &packet[8..40], &packet[40..])
    };
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    let sum = match proto {
        1 => checksum(&[body]),
        6 | 17 | 58 => checksum(&[addresses, &len, &[0, 0, 0, proto], body]),
        _ => 0,
    };
    assert_eq!(sum, 0, "the checksum of protocol {proto} in {packet:02x?}");
}
