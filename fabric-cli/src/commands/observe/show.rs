//! A flow as a line for people, and as JSON with the field names that Hubble's readers know.

use clustermesh_api_proto::flow::layer4::Protocol;
use clustermesh_api_proto::flow::{Endpoint, Flow, Layer4};
use serde_json::{Value, json};

/// `time  source → destination  protocol  VERDICT (reason)  direction  node`.
pub(super) fn line(flow: &Flow) -> String {
    let ip = flow.ip.clone().unwrap_or_default();
    let (protocol, sport, dport) = layer4(flow.l4.as_ref());
    let side = |e: Option<&Endpoint>, address: &str, port: Option<u32>| {
        let port = port.map_or(String::new(), |p| format!(":{p}"));
        format!("{}{port} ({})", name(e, address), who(e))
    };
    let reason = match flow.drop_reason_desc() as u32 {
        0 => String::new(),
        number => format!(" {} {number}", flow.drop_reason_desc().as_str_name()),
    };
    let arrow = if flow.is_reply == Some(true) { "<-" } else { "->" };
    format!(
        "{}: {} {arrow} {} {protocol} {}{reason} {} {}",
        time(flow),
        side(flow.source.as_ref(), &ip.source, sport),
        side(flow.destination.as_ref(), &ip.destination, dport),
        flow.verdict().as_str_name(),
        flow.traffic_direction().as_str_name().to_lowercase(),
        flow.node_name,
    )
}

fn name(endpoint: Option<&Endpoint>, address: &str) -> String {
    match endpoint {
        Some(e) if !e.pod_name.is_empty() => format!("{}/{}", e.namespace, e.pod_name),
        _ => address.to_owned(),
    }
}

/// The user's labels if there are any, else the number.
fn who(endpoint: Option<&Endpoint>) -> String {
    let Some(e) = endpoint else { return "unknown".to_owned() };
    let own = e.labels.iter().filter(|l| !l.contains("io.kubernetes") && !l.contains("io.cilium"));
    let own: Vec<&str> = own.map(|l| l.split_once(':').map_or(l.as_str(), |(_, rest)| rest)).collect();
    let cluster = if e.cluster_name.is_empty() { String::new() } else { format!(" {}", e.cluster_name) };
    format!("{}{}{cluster}", e.identity, if own.is_empty() { String::new() } else { format!(" {}", own.join(",")) })
}

fn layer4(l4: Option<&Layer4>) -> (&'static str, Option<u32>, Option<u32>) {
    match l4.and_then(|l| l.protocol.as_ref()) {
        Some(Protocol::Tcp(t)) => ("tcp", Some(t.source_port), Some(t.destination_port)),
        Some(Protocol::Udp(u)) => ("udp", Some(u.source_port), Some(u.destination_port)),
        Some(Protocol::Sctp(s)) => ("sctp", Some(s.source_port), Some(s.destination_port)),
        Some(Protocol::IcmPv4(_)) => ("icmpv4", None, None),
        Some(Protocol::IcmPv6(_)) => ("icmpv6", None, None),
        None => ("ip", None, None),
    }
}

fn time(flow: &Flow) -> String {
    flow.time.map(|t| t.to_string()).unwrap_or_default()
}

/// `{"flow": {...}, "node_name": ..., "time": ...}`.
pub(super) fn json(flow: &Flow, node: &str) -> Value {
    let ip = flow.ip.clone().unwrap_or_default();
    json!({
        "flow": {
            "time": time(flow),
            "uuid": flow.uuid,
            "verdict": flow.verdict().as_str_name(),
            "drop_reason": flow.drop_reason_desc() as u32,
            "drop_reason_desc": flow.drop_reason_desc().as_str_name(),
            "IP": {
                "source": ip.source,
                "destination": ip.destination,
                "ipVersion": ip.ip_version().as_str_name(),
                "encrypted": ip.encrypted,
            },
            "l4": l4_json(flow.l4.as_ref()),
            "source": endpoint_json(flow.source.as_ref()),
            "destination": endpoint_json(flow.destination.as_ref()),
            "Type": flow.r#type().as_str_name(),
            "node_name": flow.node_name,
            "event_type": flow.event_type.map(|e| json!({"type": e.r#type, "sub_type": e.sub_type})),
            "traffic_direction": flow.traffic_direction().as_str_name(),
            "trace_observation_point": flow.trace_observation_point().as_str_name(),
            "is_reply": flow.is_reply,
            "Summary": flow.summary,
        },
        "node_name": node,
        "time": time(flow),
    })
}

fn endpoint_json(endpoint: Option<&Endpoint>) -> Value {
    let Some(e) = endpoint else { return Value::Null };
    json!({
        "ID": e.id,
        "identity": e.identity,
        "namespace": e.namespace,
        "labels": e.labels,
        "pod_name": e.pod_name,
        "cluster_name": e.cluster_name,
    })
}

fn l4_json(l4: Option<&Layer4>) -> Value {
    let ports = |s: u32, d: u32| json!({"source_port": s, "destination_port": d});
    match l4.and_then(|l| l.protocol.as_ref()) {
        Some(Protocol::Tcp(t)) => json!({"TCP": ports(t.source_port, t.destination_port)}),
        Some(Protocol::Udp(u)) => json!({"UDP": ports(u.source_port, u.destination_port)}),
        Some(Protocol::Sctp(s)) => json!({"SCTP": ports(s.source_port, s.destination_port)}),
        Some(Protocol::IcmPv4(i)) => json!({"ICMPv4": {"type": i.r#type, "code": i.code}}),
        Some(Protocol::IcmPv6(i)) => json!({"ICMPv6": {"type": i.r#type, "code": i.code}}),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use clustermesh_api_proto::flow::{DropReason, Ip, Tcp, TrafficDirection, Verdict};

    use super::*;

    fn drop() -> Flow {
        let end = |identity, label: &str, cluster: &str| Endpoint {
            identity,
            labels: vec![format!("k8s:app={label}"), format!("k8s:io.cilium.k8s.policy.cluster={cluster}")],
            namespace: "shop".to_owned(),
            pod_name: label.to_owned(),
            cluster_name: cluster.to_owned(),
            ..Endpoint::default()
        };
        Flow {
            verdict: Verdict::Dropped.into(),
            drop_reason_desc: DropReason::PolicyDenied.into(),
            ip: Some(Ip { source: "10.1.0.2".to_owned(), destination: "10.2.0.3".to_owned(), ..Ip::default() }),
            l4: Some(Layer4 {
                protocol: Some(Protocol::Tcp(Tcp { source_port: 4000, destination_port: 5432, flags: None })),
            }),
            source: Some(end(131_073, "web", "us")),
            destination: Some(end(65_541, "db", "eu")),
            node_name: "eu/vm1".to_owned(),
            traffic_direction: TrafficDirection::Ingress.into(),
            ..Flow::default()
        }
    }

    #[test]
    fn line_names_both_sides_and_the_reason() {
        let line = line(&drop());
        let wanted = "shop/web:4000 (131073 app=web us) -> shop/db:5432 (65541 app=db eu) tcp DROPPED POLICY_DENIED 133 ingress eu/vm1";
        assert!(line.ends_with(wanted), "{line}");
    }

    #[test]
    fn json_has_hubbles_names() {
        let json = json(&drop(), "eu/vm1");
        assert_eq!(json.pointer("/flow/drop_reason"), Some(&Value::from(133)));
        assert_eq!(json.pointer("/flow/l4/TCP/destination_port"), Some(&Value::from(5432)));
        assert_eq!(json.pointer("/flow/source/labels/0"), Some(&Value::from("k8s:app=web")));
    }
}
