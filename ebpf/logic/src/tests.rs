//! Decisions over maps in memory: tables of packets, and laws.

mod delivery;
mod encapsulation;
mod encryption;
mod flows;
mod laws;
mod masquerade;
mod services;

use core::net::IpAddr;

use fabric_ebpf_abi::DropReason;

use crate::{
    Decision, Workspace,
    fakes::{
        Bytes, Fakes,
        frame::{Payload, frame},
        scene,
    },
    pipeline,
};

fn from_endpoint(scene: &Fakes, device: u32, bytes: &[u8]) -> Workspace {
    let mut ws = Workspace::NEW;
    pipeline::from_endpoint::decide(scene, &Bytes(bytes), device, &mut ws);
    ws
}

fn to_endpoint(scene: &Fakes, device: u32, bytes: &[u8]) -> Workspace {
    let mut ws = Workspace::NEW;
    pipeline::to_endpoint::decide(scene, &Bytes(bytes), device, &mut ws);
    ws
}

fn from_network(scene: &Fakes, bytes: &[u8]) -> Workspace {
    let mut ws = Workspace::NEW;
    pipeline::from_network::decide(scene, &Bytes(bytes), &mut ws);
    ws
}

fn to_network(scene: &Fakes, bytes: &[u8]) -> Workspace {
    let mut ws = Workspace::NEW;
    pipeline::to_network::decide(scene, &Bytes(bytes), &mut ws);
    ws
}

fn from_wireguard(scene: &Fakes, bytes: &[u8]) -> Workspace {
    let mut ws = Workspace::NEW;
    pipeline::from_wireguard::decide(scene, &Bytes(bytes), &mut ws);
    ws
}

/// What becomes of a packet that endpoint A sends.
fn a_sends(scene: &Fakes, to: IpAddr, payload: &Payload) -> Decision {
    let src = scene::A_ADDR.ip(to.is_ipv6());
    from_endpoint(scene, scene::A_DEVICE, &frame(src, to, payload)).decision()
}

fn syn(dport: u16) -> Payload {
    Payload::Tcp { sport: 40_000, dport, flags: 2 }
}

fn ack(dport: u16) -> Payload {
    Payload::Tcp { sport: 40_000, dport, flags: 16 }
}

/// The answer of who listens on `port`.
fn syn_ack(port: u16) -> Payload {
    Payload::Tcp { sport: port, dport: 40_000, flags: 18 }
}

fn dropped(reason: DropReason) -> Decision {
    Decision::Drop(reason)
}

fn is_delivered_to(decision: Decision, device: u32) -> bool {
    matches!(decision, Decision::Deliver(endpoint) if endpoint.ifindex == device)
}
