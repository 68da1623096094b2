//! Hooks on devices: a context becomes a call of `logic`, a decision becomes helpers and a return code.

use aya_ebpf::{
    helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
    macros::classifier,
    programs::TcContext,
};
use fabric_ebpf_abi::{
    Addr4, Config, Direction, DropReason, EndpointEntry, EtherType, Ethernet, Family, TracePoint, endpoint_flags, mark,
};
use fabric_ebpf_logic::{
    Action, Packet, Workspace,
    encap::{self, Inner},
    pipeline::{
        from_endpoint as from, from_network as network, from_wireguard as wireguard, to_endpoint as to,
        to_network as out,
    },
};

use crate::{
    kernel::Kernel,
    maps,
    skb::Skb,
    tell::{self, News},
};

/// The next program, or the stack (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// This CPU's working memory.
#[inline(always)]
fn workspace<'a>() -> Option<&'a mut Workspace> {
    // SAFETY: the pointer comes from a look-up that did not miss. Programs on devices run with interrupts' lower halves off and
    // do not nest on a CPU, and each takes the reference once.
    maps::WORKSPACE.get_ptr_mut(0).map(|ws| unsafe { &mut *ws })
}

/// What an endpoint sends.
#[classifier]
pub fn from_endpoint(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(ws) = workspace() else { return DROP };
    skb.pull();
    from::decide(&Kernel, &skb, skb.ifindex(), ws);
    finish(
        skb,
        ws,
        &Hook { point: TracePoint::FromEndpoint, direction: Direction::Egress, ethernet: true, silent: false },
    )
}

/// What the stack sends to an endpoint.
#[classifier]
pub fn to_endpoint(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if skb.mark() & mark::MASK == mark::JUDGED {
        return NEXT;
    }
    let Some(ws) = workspace() else { return DROP };
    skb.pull();
    to::decide(&Kernel, &skb, skb.ifindex(), ws);
    finish(
        skb,
        ws,
        &Hook { point: TracePoint::ToEndpoint, direction: Direction::Ingress, ethernet: true, silent: false },
    )
}

/// What arrives from the underlay.
#[classifier]
pub fn from_network(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(ws) = workspace() else { return DROP };
    skb.pull();
    network::decide(&Kernel, &skb, ws);
    finish(
        skb,
        ws,
        &Hook { point: TracePoint::FromNetwork, direction: Direction::Ingress, ethernet: true, silent: true },
    )
}

/// What leaves for the underlay.
#[classifier]
pub fn to_network(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(ws) = workspace() else { return DROP };
    skb.pull();
    out::decide(&Kernel, &skb, ws);
    finish(skb, ws, &Hook { point: TracePoint::ToNetwork, direction: Direction::Egress, ethernet: true, silent: true })
}

/// What WireGuard decrypted.
#[classifier]
pub fn from_wireguard(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(ws) = workspace() else { return DROP };
    skb.pull();
    wireguard::decide(&Kernel, &skb, ws);
    finish(
        skb,
        ws,
        &Hook { point: TracePoint::FromCrypto, direction: Direction::Ingress, ethernet: false, silent: true },
    )
}

/// What differs between the hooks once the decision is made.
struct Hook {
    /// Where a packet is dropped, or passes.
    point: TracePoint,
    direction: Direction,
    /// Packets have an Ethernet header.
    ethernet: bool,
    /// Packets that pass are the node's own: neither counted nor told.
    silent: bool,
}

/// Counts and tells, then does what was decided. What fails while it is done drops the packet. A call of its own, so
/// that its stack is not there while the decision is made: of the 512 bytes, decisions need nearly all.
#[inline(never)]
fn finish(skb: Skb, ws: &Workspace, hook: &Hook) -> i32 {
    let action = ws.action();
    let (point, direction, encrypted) = match action {
        Action::Pass if hook.silent => return NEXT,
        Action::Pass if matches!(hook.point, TracePoint::FromEndpoint) => (TracePoint::ToStack, hook.direction, false),
        Action::Deliver => (TracePoint::ToEndpoint, Direction::Ingress, !hook.ethernet),
        Action::Tunnel if !ws.encrypts() => (TracePoint::ToOverlay, hook.direction, false),
        Action::Native if !ws.encrypts() => (TracePoint::ToNetwork, hook.direction, false),
        Action::Tunnel | Action::Native => (TracePoint::ToCrypto, hook.direction, true),
        _ => (hook.point, hook.direction, false),
    };
    if let Action::Drop = action {
        tell::tell(skb, &News { reason: ws.reason(), direction: ws.trail.direction, point, encrypted }, &ws.trail);
        return DROP;
    }
    tell::tell(skb, &News { reason: 0, direction: direction as u32, point, encrypted }, &ws.trail);
    match carry_out(skb, action, ws, hook) {
        Ok(code) => code,
        Err(reason) => {
            tell::count(reason as u32, direction as u32, skb.len());
            DROP
        }
    }
}

#[inline(always)]
fn carry_out(skb: Skb, action: Action, ws: &Workspace, hook: &Hook) -> Result<i32, DropReason> {
    match action {
        Action::Pass | Action::Drop => Ok(NEXT),
        Action::Masquerade => {
            if let Some(rewrite) = ws.rewrite() {
                skb.rewrite(rewrite)?;
            }
            Ok(NEXT)
        }
        Action::Deliver => arrive(skb, ws, ws.endpoint(), hook.ethernet),
        Action::Tunnel => {
            let (node, vni) = ws.tunnel();
            tunnel(skb, node, vni, ws.encrypts())
        }
        Action::Native => {
            skb.decrement_ttl(family(skb)?)?;
            to_underlay(skb, config()?, ws.encrypts())
        }
    }
}

#[inline(always)]
fn config() -> Result<&'static Config, DropReason> {
    maps::CONFIG.get(0).ok_or(DropReason::WriteError)
}

#[inline(always)]
fn family(skb: Skb) -> Result<Family, DropReason> {
    match skb.read::<Ethernet>(0) {
        Some(Ethernet { ethertype: EtherType::IPV6, .. }) => Ok(Family::V6),
        Some(_) => Ok(Family::V4),
        None => Err(DropReason::WriteError),
    }
}

#[inline(always)]
fn tunnel(skb: Skb, node: Addr4, vni: u32, encrypt: bool) -> Result<i32, DropReason> {
    let config = config()?;
    let inner = Inner { len: skb.len().wrapping_sub(14), hash: skb.hash(), vni, node };
    skb.encapsulate(&encap::outer(config, &inner))?;
    to_underlay(skb, config, encrypt)
}

/// Into the WireGuard device, which takes the Ethernet header off, or to the next hop on the underlay.
///
/// The device does not bind the kernel's look-up of an IPv6 next hop: unmarked, a packet for the mesh would find the route to
/// `fabric0`, and its own destination as next hop.
#[inline(always)]
fn to_underlay(skb: Skb, config: &Config, encrypt: bool) -> Result<i32, DropReason> {
    if !encrypt {
        skb.set_mark(mark::UNDERLAY);
    }
    // SAFETY: helpers that take numbers; without parameters the next hop comes from the routing table.
    let code = unsafe {
        if encrypt {
            bpf_redirect(config.wireguard_ifindex, 0)
        } else {
            bpf_redirect_neigh(config.underlay_ifindex, core::ptr::null_mut(), 0, 0)
        }
    };
    Ok(code as i32)
}

/// Takes off what a packet arrived in, and hands it to its endpoint.
#[inline(always)]
fn arrive(skb: Skb, ws: &Workspace, endpoint: &EndpointEntry, ethernet: bool) -> Result<i32, DropReason> {
    if let Some(rewrite) = ws.rewrite() {
        skb.rewrite(rewrite)?;
    }
    let family = if ws.inner6() { Family::V6 } else { Family::V4 };
    if ws.strip() != 0 {
        skb.strip(ws.strip(), family)?;
    }
    if !ethernet {
        skb.grow_ethernet()?;
    }
    deliver(skb, endpoint, family)
}

/// Into an endpoint: as a router would, and past its own stack's device where that is in another namespace.
#[inline(always)]
fn deliver(skb: Skb, endpoint: &EndpointEntry, family: Family) -> Result<i32, DropReason> {
    let ethertype = match family {
        Family::V4 => EtherType::IPV4,
        Family::V6 => EtherType::IPV6,
    };
    skb.write_ethernet(Ethernet { dst: words(endpoint.mac), src: words(endpoint.host_mac), ethertype })?;
    if endpoint.flags & endpoint_flags::HOST == 0 {
        skb.decrement_ttl(family)?;
    }
    if endpoint.flags & endpoint_flags::SAME_NETNS != 0 {
        skb.set_mark(mark::JUDGED);
        // SAFETY: a helper that takes numbers.
        return Ok(unsafe { bpf_redirect(endpoint.ifindex, 0) } as i32);
    }
    skb.make_ours();
    // SAFETY: a helper that takes numbers.
    Ok(unsafe { bpf_redirect_peer(endpoint.ifindex, 0) } as i32)
}

#[inline(always)]
fn words(mac: [u8; 6]) -> [u16; 3] {
    let [a, b, c, d, e, f] = mac;
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])]
}
