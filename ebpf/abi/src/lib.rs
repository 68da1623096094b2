//! The contract between the eBPF programs and user space: what is in each map, what an event looks like, what the
//! programs are called. One layout, compiled on both sides. It decides nothing; the decisions are in `ebpf/logic`.
//!
//! Multi-byte numbers are in the machine's order, but for [`Be16`], [`Be32`] and the address types, which hold the bytes
//! as they are on the wire. Every struct is `repr(C)` without hidden padding; fields called `pad` are 0.
//!
//! # Programs
//!
//! | program | hook | what it does |
//! |---|---|---|
//! | `from_endpoint` | TCX ingress of each endpoint's host side and of `fabric0p` | source check, services guard, flow, egress policy; then local delivery (with ingress policy), encapsulation, native routing, or on to the stack |
//! | `to_endpoint` | TCX egress of each endpoint's host side | judges what comes from the stack; packets with [`mark::JUDGED`] pass |
//! | `from_network` | TCX ingress of underlay devices | decapsulates on links without encryption, native delivery, reverse masquerade, refuses clear packets of encrypted links |
//! | `to_network` | TCX egress of underlay devices | refuses owned packets in clear, masquerades endpoints' packets to the world |
//! | `from_wireguard` | TCX ingress of the WireGuard device (bare IP packets) | decapsulation in tunnel modes, bare packets in native mode, identity, ingress policy |
//! | `connect4` `connect6` `sendmsg4` `sendmsg6` | the cgroup hook of that name | service address to backend |
//! | `recvmsg4` `recvmsg6` `getpeername4` `getpeername6` | the cgroup hook of that name | backend back to service address |
//!
//! # Maps
//!
//! Names are in [`map`]; sizes there are defaults that a loader may override. LPM keys are the struct named here
//! with a prefix length in front, as aya's `Key` puts it.
//!
//! | map | kind | key → value | who writes |
//! |---|---|---|---|
//! | `CONFIG` | array of 1 | 0 → [`Config`] | agent |
//! | `EPOCH` | array of 1 | 0 → `u32` | agent: +1 **after** each change of `DEVICES`, `ENDPOINTS`, `IPCACHE*`, `OWNED`, `NODES`, `POLICY` that may alter a decision about a live flow (any change but an addition of an address that had no entry) |
//! | `DEVICES` | hash | ifindex `u32` → [`DeviceEntry`] | agent: who sends from this device |
//! | `ENDPOINTS` | hash | [`AddrKey`] → [`EndpointEntry`] | agent: every address that is on this node: endpoints', and the node's own (overlay and underlay addresses, with the record of `fabric0p` and [`endpoint_flags::HOST`]) |
//! | `IPCACHE_EXACT` | hash | [`AddrKey`] → [`IpcacheEntry`] | agent: all /32 and /128 |
//! | `IPCACHE` | LPM | [`AddrKey`] (prefix length [`AddrKey::prefix_len`]) → [`IpcacheEntry`] | agent: shorter prefixes (CIDR rules, node ranges) |
//! | `OWNED` | LPM | [`AddrKey`] → [`OwnedPrefix`] | agent: prefixes of the mesh, and service ranges with [`owned_flags::SERVICE`] |
//! | `NODES` | hash | [`AddrKey`] → [`NodeEntry`] | agent: underlay and overlay addresses of every node, its own with [`node_flags::LOCAL`] |
//! | `POLICY` | LPM | [`PolicyKey`] (prefix length [`PolicyKey::prefix_len`]) → [`PolicyEntry`] | agent |
//! | `FLOW4`, `FLOW6` | LRU hash | [`FlowKey4`], [`FlowKey6`] → [`FlowImage`] | programs; the agent may delete what is past its `lifetime` |
//! | `NAT4`, `NAT6` | LRU hash | [`NatKey4`], [`NatKey6`] → [`NatImage4`], [`NatImage6`] | programs |
//! | `FRAG4`, `FRAG6` | LRU hash | [`FragKey4`], [`FragKey6`] → [`FragValue`] | programs |
//! | `SERVICES` | hash | [`ServiceKey`] → [`ServiceEntry`] | agent |
//! | `BACKENDS` | array | index `u32` → [`Backend`] | agent: a service's backends stand side by side from its `base`; write a new run, then the service, and reuse the old run a second later |
//! | `SOCKETS` | LRU hash | [`SocketKey`] → [`SocketEntry`] | programs |
//! | `METRICS` | per-CPU array | [`metric_index`] → [`Metric`] | programs |
//! | `EVENTS` | ring buffer | [`Event`] records | programs |
//! | `EVENT_BUDGET` | per-CPU array of 1 | 0 → [`EventBudget`] | programs |
//! | `WORKSPACE` | per-CPU array of 1 | the programs' working memory: of no meaning between packets, need not be pinned | programs |
//!
//! Devices of endpoints (and `fabric0`) are best given `gso_max_size` 65000: a super-packet of full size does not fit into the
//! outer headers' length fields, which are 0 then, as the kernel itself does; a plain router on the way may not understand it.
//!
//! An identity that changes on an address, a service's backends, a config value: each is one map write and takes
//! effect for the next packet.
#![no_std]
#![warn(missing_docs)]
#![expect(
    clippy::inline_always,
    reason = "the BPF target needs one program without calls: a function left as a call is refused by the verifier"
)]

mod address;
mod config;
mod conntrack;
mod drop_reason;
mod endpoint;
mod event;
mod ids;
mod ipcache;
pub mod map;
mod packet;
#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya's marker for plain data")]
mod pod;
mod policy;
mod service;
#[expect(unsafe_code, reason = "cells that other CPUs write, and the marker for plain packet bytes")]
mod shared;

pub use address::{Addr, Addr4, Addr6, AddrKey, Be16, Be32, Family};
pub use config::{Config, EventBudget, RoutingMode, config_flags, mark};
pub use conntrack::{
    FlowEntry, FlowImage, FlowKey, FlowKey4, FlowKey6, FragKey, FragKey4, FragKey6, FragValue, NatDirection, NatImage,
    NatImage4, NatImage6, NatKey, NatKey4, NatKey6, Way, flow_flags,
};
pub use drop_reason::DropReason;
pub use endpoint::{DeviceEntry, EndpointEntry, endpoint_flags};
pub use event::{Event, EventKind, Metric, TracePoint, event_flags, metric_index};
pub use ids::{Direction, identity};
pub use ipcache::{IpcacheEntry, NodeEntry, OwnedPrefix, ipcache_flags, node_flags, owned_flags};
pub use packet::{
    EtherType, Ethernet, ExtensionHeader, FragmentHeader, Geneve, Icmp, Ipv4, Ipv6, Ports, Protocol, TcpStart, Udp,
    Vxlan, tcp_flags,
};
pub use policy::{Effect, PolicyEntry, PolicyKey};
pub use service::{Backend, ServiceEntry, ServiceKey, SocketEntry, SocketKey, service_flags};
pub use shared::{Shared32, Shared64, Wire};

/// Part of the pin directory's name. It moves with every change of a layout or of a map's meaning.
pub const ABI_VERSION: u32 = 1;
