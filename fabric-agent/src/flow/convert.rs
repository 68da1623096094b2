//! An event with names: both sides' identities, labels, workloads, clusters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clustermesh_api_proto::flow::layer4::Protocol;
use clustermesh_api_proto::flow::{
    CiliumEventType, DropReason, Endpoint, EventEmitter, Flow, FlowType, IcmPv4, IcmPv6, Ip, IpVersion, Layer4,
    NetworkInterface, Sctp, Tcp, TcpFlags, TraceObservationPoint, TraceReason, TrafficDirection, Udp, Verdict,
};
use fabric_core::ids::Identity;
use fabric_core::labels::LabelSet;
use fabric_core::prefix::Prefix;

use fabric_ebpf_abi::{Event, EventKind, Family, TracePoint, event_flags};

use crate::tables::{Endpoints, Mesh, Tables};

/// The tables at one moment, as far as names come from them.
pub(super) struct Names<'a> {
    mesh: Mesh,
    endpoints: Endpoints,
    node: &'a str,
}

/// Ties the kernel's clock to the wall's.
pub(super) struct Clock {
    monotonic: Duration,
    wall: SystemTime,
}

impl Clock {
    pub(super) fn now() -> Self {
        use nix::time::{ClockId, clock_gettime};
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Self { monotonic, wall: SystemTime::now() }
    }

    fn wall(&self, time_ns: u64) -> SystemTime {
        let age = self.monotonic.saturating_sub(Duration::from_nanos(time_ns));
        self.wall.checked_sub(age).unwrap_or(self.wall)
    }
}

impl<'a> Names<'a> {
    pub(super) fn new(tables: &Tables, node: &'a str) -> Self {
        Self { mesh: tables.mesh.borrow().clone(), endpoints: Arc::clone(&tables.endpoints.borrow()), node }
    }

    /// The flow that Hubble's readers see for an event.
    pub(super) fn flow(&self, event: &Event, clock: &Clock) -> Flow {
        let dropped = event.reason != 0;
        let reply = event.flags & event_flags::REPLY != 0;
        let reason = DropReason::try_from(i32::from(event.reason)).unwrap_or_default();
        let sub_type = if event.kind == EventKind::Drop as u8 { event.reason } else { event.point };
        let addresses = tuple(event);
        let mut flow = Flow {
            time: Some(clock.wall(event.time_ns).into()),
            verdict: if dropped { Verdict::Dropped } else { Verdict::Forwarded }.into(),
            drop_reason: u32::from(event.reason),
            drop_reason_desc: if dropped { reason } else { DropReason::Unknown }.into(),
            r#type: FlowType::L3L4.into(),
            node_name: self.node.to_owned(),
            event_type: Some(CiliumEventType { r#type: i32::from(event.kind), sub_type: i32::from(sub_type) }),
            traffic_direction: direction(event.direction).into(),
            trace_observation_point: point(event.point).into(),
            trace_reason: trace_reason(event.flags).into(),
            is_reply: Some(reply),
            reply,
            interface: Some(NetworkInterface { index: event.ifindex, name: String::new() }),
            emitter: Some(EventEmitter { name: "Fabric".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }),
            ..Flow::default()
        };
        if let Some((version, source, destination)) = addresses {
            flow.ip = Some(Ip {
                source: source.to_string(),
                destination: destination.to_string(),
                ip_version: version.into(),
                encrypted: event.flags & event_flags::ENCRYPTED != 0,
                source_xlated: String::new(),
            });
            flow.l4 = layer4(event);
            flow.source = Some(self.endpoint(event.src_identity, source));
            flow.destination = Some(self.endpoint(event.dst_identity, destination));
        }
        flow
    }

    fn endpoint(&self, identity: u32, address: IpAddr) -> Endpoint {
        let local = self.endpoints.values().find(|e| e.addresses.contains(&address));
        let known = self.mesh.addresses.get(&Prefix::host(address));
        let labels = self.labels(identity);
        let mut endpoint = Endpoint {
            identity,
            cluster_name: labels.as_ref().and_then(|l| l.cluster()).unwrap_or_default().to_owned(),
            namespace: labels.as_ref().and_then(|l| l.namespace()).unwrap_or_default().to_owned(),
            labels: labels.map(|l| l.to_strings()).unwrap_or_default(),
            ..Endpoint::default()
        };
        if let Some(local) = local {
            endpoint.id = u32::from(local.number);
            endpoint.pod_name = local.name.to_string();
        } else if let Some(known) = known.filter(|k| k.identity.value() == identity) {
            endpoint.pod_name.clone_from(&known.name);
        }
        endpoint
    }

    fn labels(&self, identity: u32) -> Option<LabelSet> {
        let identity = Identity::new(identity).ok()?;
        if let Some(name) = identity.reserved_name() {
            return LabelSet::reserved(name).ok();
        }
        if let Some(row) = self.mesh.identities.get(&identity) {
            return Some(row.labels.clone());
        }
        // An endpoint whose identity the stream has not brought yet.
        let own = self.endpoints.values().find(|e| e.identity == Some(identity));
        own.map(|e| e.identity_labels.clone())
    }
}

fn tuple(event: &Event) -> Option<(IpVersion, IpAddr, IpAddr)> {
    let (version, family) = if event.family == Family::V4 as u8 {
        (IpVersion::IPv4, Family::V4)
    } else if event.family == Family::V6 as u8 {
        (IpVersion::IPv6, Family::V6)
    } else {
        return None;
    };
    Some((version, event.src.ip(family), event.dst.ip(family)))
}

fn layer4(event: &Event) -> Option<Layer4> {
    let (source_port, destination_port) = (u32::from(event.sport.get()), u32::from(event.dport.get()));
    let protocol = match event.proto {
        6 => Protocol::Tcp(Tcp { source_port, destination_port, flags: Some(tcp_flags(event.tcp_flags)) }),
        17 => Protocol::Udp(Udp { source_port, destination_port }),
        132 => Protocol::Sctp(Sctp { source_port, destination_port }),
        // Type and code travel in the ports' places.
        1 => Protocol::IcmPv4(IcmPv4 { r#type: source_port, code: destination_port }),
        58 => Protocol::IcmPv6(IcmPv6 { r#type: source_port, code: destination_port }),
        _ => return None,
    };
    Some(Layer4 { protocol: Some(protocol) })
}

fn tcp_flags(bits: u8) -> TcpFlags {
    let has = |bit: u8| bits & bit != 0;
    TcpFlags {
        fin: has(1),
        syn: has(2),
        rst: has(4),
        psh: has(8),
        ack: has(16),
        urg: has(32),
        ece: has(64),
        cwr: has(128),
        ns: false,
    }
}

fn direction(number: u8) -> TrafficDirection {
    match number {
        1 => TrafficDirection::Ingress,
        2 => TrafficDirection::Egress,
        _ => TrafficDirection::Unknown,
    }
}

fn point(number: u8) -> TraceObservationPoint {
    if number == TracePoint::ToEndpoint as u8 {
        return TraceObservationPoint::ToEndpoint;
    }
    TraceObservationPoint::try_from(i32::from(number)).unwrap_or_default()
}

fn trace_reason(flags: u8) -> TraceReason {
    if flags & event_flags::REPLY != 0 {
        TraceReason::Reply
    } else if flags & event_flags::ESTABLISHED != 0 {
        TraceReason::Established
    } else {
        TraceReason::New
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fabric_ebpf_abi::{Addr, Be16};

    use super::*;
    use crate::tables::address::AddressRow;
    use crate::tables::identity::IdentityRow;

    fn names() -> Names<'static> {
        let labels = |app: &str, cluster: &str| {
            let texts = [
                format!("k8s:app={app}"),
                format!("k8s:io.cilium.k8s.policy.cluster={cluster}"),
                "k8s:io.kubernetes.pod.namespace=shop".to_owned(),
            ];
            LabelSet::parse(texts.iter().map(String::as_str)).unwrap()
        };
        let identity = |id: u32, app: &str, cluster: &str| {
            let id = Identity::new(id).unwrap();
            (id, IdentityRow { id, labels: labels(app, cluster) })
        };
        let address: IpAddr = "10.1.0.5".parse().unwrap();
        let row = AddressRow {
            prefix: Prefix::host(address),
            identity: Identity::new(65_792).unwrap(),
            host: None,
            encryption_key: fabric_core::ids::KeyIndex::NONE,
            cluster: "eu".to_owned(),
            kubernetes_namespace: "shop".to_owned(),
            name: "web-1".to_owned(),
        };
        let mesh = Mesh {
            identities: Arc::new(BTreeMap::from([identity(65_792, "web", "eu"), identity(131_328, "db", "us")])),
            addresses: Arc::new(BTreeMap::from([(row.prefix, row)])),
            ..Mesh::default()
        };
        Names { mesh, endpoints: Endpoints::default(), node: "us/us1" }
    }

    fn drop_event() -> Event {
        Event {
            time_ns: 0,
            kind: EventKind::Drop as u8,
            reason: 133,
            direction: 1,
            point: 0,
            family: Family::V4 as u8,
            proto: 6,
            tcp_flags: 2,
            flags: 0,
            src_identity: 65_792,
            dst_identity: 131_328,
            src: Addr([u32::from_ne_bytes([10, 1, 0, 5]), 0, 0, 0]),
            dst: Addr([u32::from_ne_bytes([10, 2, 0, 9]), 0, 0, 0]),
            sport: Be16::new(4000),
            dport: Be16::new(5432),
            ifindex: 7,
            len: 60,
            rule: 0,
        }
    }

    #[test]
    fn drop_carries_both_sides_names() {
        let flow = names().flow(&drop_event(), &Clock::now());
        assert_eq!(flow.verdict(), Verdict::Dropped);
        assert_eq!(flow.drop_reason_desc(), DropReason::PolicyDenied);
        assert_eq!(flow.traffic_direction(), TrafficDirection::Ingress);
        let (source, destination) = (flow.source.unwrap(), flow.destination.unwrap());
        assert_eq!((source.pod_name.as_str(), source.cluster_name.as_str()), ("web-1", "eu"));
        assert!(destination.labels.contains(&"k8s:app=db".to_owned()), "{destination:?}");
        assert_eq!(destination.namespace, "shop");
        assert_eq!(flow.ip.unwrap().destination, "10.2.0.9");
        assert_eq!(flow.event_type.unwrap().sub_type, 133);
    }

    #[test]
    fn packet_that_was_not_understood_has_no_sides() {
        let flow = names().flow(&Event { family: 0, ..drop_event() }, &Clock::now());
        assert_eq!((flow.ip, flow.source, flow.l4), (None, None, None));
    }

    #[test]
    fn reserved_identities_have_their_names() {
        let flow = names().flow(&Event { src_identity: 2, ..drop_event() }, &Clock::now());
        assert_eq!(flow.source.unwrap().labels, ["reserved:world"]);
    }
}
