//! Maps that hold one value, and the counters.

use std::{marker::PhantomData, path::Path};

use aya::Pod;
use fabric_ebpf_abi as abi;
use fabric_ebpf_abi::{Be16, RoutingMode, config_flags};

use super::{
    layouts::{ipv4, ipv6, raw_ipv4, raw_ipv6},
    table::MapError,
};
use crate::{
    hook::IfIndex,
    load::{LoadError, open_map},
    rows::{Direction, Metric, NodeConfig, Routing},
    sys::{map::RawMap, plain},
};

/// An array of one.
#[derive(Debug)]
pub(super) struct Cell<T> {
    map: RawMap,
    name: &'static str,
    kind: PhantomData<fn() -> T>,
}

impl<T: Pod> Cell<T> {
    pub(super) fn open(map_dir: &Path, name: &'static str, read_only: bool) -> Result<Self, LoadError> {
        Ok(Self { map: open_map(map_dir, name, read_only)?, name, kind: PhantomData })
    }

    pub(super) fn get(&self) -> Result<T, MapError> {
        let found = self.map.lookup(&plain::bytes(&0_u32));
        let bytes = found.map_err(|source| MapError::Read { map: self.name, source })?;
        bytes.and_then(|b| plain::value(&b)).ok_or(MapError::Foreign { map: self.name })
    }

    pub(super) fn set(&self, value: &T) -> Result<(), MapError> {
        let written = self.map.update(&plain::bytes(&0_u32), &plain::bytes(value), 0);
        written.map_err(|source| MapError::Write { map: self.name, source })
    }
}

pub(super) fn raw_config(config: &NodeConfig) -> abi::Config {
    let mode = match config.routing {
        Routing::Vxlan => RoutingMode::Vxlan,
        Routing::Geneve => RoutingMode::Geneve,
        Routing::Native => RoutingMode::Native,
    };
    let flags =
        [(config.verdict_events, config_flags::VERDICT_EVENTS), (config.trace_events, config_flags::TRACE_EVENTS)];
    let number = |device: Option<IfIndex>| device.map_or(0, IfIndex::number);
    abi::Config {
        mode: mode as u8,
        cluster_shift: config.cluster_shift,
        cluster: config.cluster,
        flags: flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit),
        node4: raw_ipv4(config.underlay_ipv4),
        node6: raw_ipv6(config.underlay_ipv6),
        masquerade4: raw_ipv4(config.masquerade_ipv4),
        masquerade6: raw_ipv6(config.masquerade_ipv6),
        underlay_ifindex: number(config.underlay_device),
        wireguard_ifindex: number(config.wireguard_device),
        host_ifindex: number(config.host_device),
        tunnel_port: Be16::new(config.tunnel_port),
        wireguard_port: Be16::new(config.wireguard_port),
        nat_first: config.masquerade_ports.0,
        nat_last: config.masquerade_ports.1,
        events_per_second: config.events_per_second,
    }
}

/// `None` of a node that is not set up.
pub(super) fn config(raw: &abi::Config) -> Option<NodeConfig> {
    let modes = [
        (RoutingMode::Vxlan, Routing::Vxlan),
        (RoutingMode::Geneve, Routing::Geneve),
        (RoutingMode::Native, Routing::Native),
    ];
    let routing = modes.into_iter().find(|(mode, _)| *mode as u8 == raw.mode)?.1;
    let device = |number: u32| IfIndex::new(number).ok();
    Some(NodeConfig {
        routing,
        tunnel_port: raw.tunnel_port.get(),
        wireguard_port: raw.wireguard_port.get(),
        cluster: raw.cluster,
        cluster_shift: raw.cluster_shift,
        underlay_ipv4: ipv4(raw.node4),
        underlay_ipv6: ipv6(raw.node6),
        masquerade_ipv4: ipv4(raw.masquerade4),
        masquerade_ipv6: ipv6(raw.masquerade6),
        masquerade_ports: (raw.nat_first, raw.nat_last),
        underlay_device: device(raw.underlay_ifindex),
        wireguard_device: device(raw.wireguard_ifindex),
        host_device: device(raw.host_ifindex),
        verdict_events: raw.flags & config_flags::VERDICT_EVENTS != 0,
        trace_events: raw.flags & config_flags::TRACE_EVENTS != 0,
        events_per_second: raw.events_per_second,
    })
}

/// The counters per CPU.
#[derive(Debug)]
pub(super) struct Metrics {
    map: RawMap,
}

impl Metrics {
    pub(super) fn open(map_dir: &Path, read_only: bool) -> Result<Self, LoadError> {
        Ok(Self { map: open_map(map_dir, abi::map::METRICS, read_only)? })
    }

    /// Those that are not zero, summed over CPUs.
    pub(super) fn list(&self) -> Result<Vec<Metric>, MapError> {
        let map = abi::map::METRICS;
        let listed = self.map.all(256).map_err(|source| MapError::Read { map, source })?;
        let mut metrics = Vec::new();
        for (key, values) in listed {
            let index = plain::value::<u32>(&key).ok_or(MapError::Foreign { map })?;
            let (packets, bytes) = sum(&values);
            if packets > 0 {
                let Ok(reason) = u8::try_from(index / 4) else { continue };
                metrics.push(Metric { reason, direction: direction(index % 4), packets, bytes });
            }
        }
        metrics.sort();
        Ok(metrics)
    }
}

fn sum(values: &[u8]) -> (u64, u64) {
    let of_cpus = values.chunks_exact(size_of::<abi::Metric>()).filter_map(plain::value::<abi::Metric>);
    of_cpus.fold((0, 0), |(packets, bytes), m| (packets + m.packets, bytes + m.bytes))
}

fn direction(number: u32) -> Option<Direction> {
    match number {
        n if n == abi::Direction::Ingress as u32 => Some(Direction::Ingress),
        n if n == abi::Direction::Egress as u32 => Some(Direction::Egress),
        _ => None,
    }
}

/// What each CPU did not send for want of budget.
#[derive(Debug)]
pub(super) struct Budget {
    map: RawMap,
}

impl Budget {
    pub(super) fn open(map_dir: &Path, read_only: bool) -> Result<Self, LoadError> {
        Ok(Self { map: open_map(map_dir, abi::map::EVENT_BUDGET, read_only)? })
    }

    pub(super) fn suppressed(&self) -> Result<u64, MapError> {
        let map = abi::map::EVENT_BUDGET;
        let found = self.map.lookup(&plain::bytes(&0_u32)).map_err(|source| MapError::Read { map, source })?;
        let values = found.unwrap_or_default();
        let of_cpus = values.chunks_exact(size_of::<abi::EventBudget>()).filter_map(plain::value::<abi::EventBudget>);
        Ok(of_cpus.map(|b| b.suppressed).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_is_read_back_and_an_empty_one_is_none() {
        assert_eq!(config(&abi::Config::EMPTY), None);
        for routing in [Routing::Vxlan, Routing::Geneve, Routing::Native] {
            let mut whole = NodeConfig::new(7, routing);
            assert_eq!(config(&raw_config(&whole)), Some(whole));
            whole.underlay_ipv4 = Some([192, 168, 0, 1].into());
            whole.masquerade_ipv6 = Some("fd77::1".parse().unwrap());
            whole.wireguard_device = IfIndex::new(9).ok();
            whole.trace_events = false;
            assert_eq!(config(&raw_config(&whole)), Some(whole));
        }
    }

    #[test]
    fn counters_are_summed_over_cpus() {
        let of_cpu = |packets, bytes| plain::bytes(&abi::Metric { packets, bytes });
        assert_eq!(sum(&[of_cpu(1, 100), of_cpu(2, 50)].concat()), (3, 150));
    }
}
