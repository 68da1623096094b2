//! Hubble's filters: fields of one are ANDed, entries of a field are ORed, several filters are ORed; what the whitelist
//! lets through and the blacklist does not is shown. A field that is not understood is refused by its name.

use std::net::IpAddr;

use clustermesh_api_proto::flow::layer4::Protocol;
use clustermesh_api_proto::flow::{Endpoint, Flow, FlowFilter, Layer4};
use fabric_core::labels::{KeySyntax, LabelSelector, LabelSet};
use fabric_core::prefix::Prefix;

/// No request needs more; each costs on every flow.
const MAX_FILTERS: usize = 64;
const MAX_ENTRIES: usize = 256;

/// A request's filters, checked.
#[derive(Debug, Default)]
pub(super) struct Filters {
    whitelist: Vec<Filter>,
    blacklist: Vec<Filter>,
}

/// A filter that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter {field}: {why}")]
pub(super) struct InvalidFilter {
    field: &'static str,
    why: String,
}

#[derive(Debug)]
struct Filter {
    raw: FlowFilter,
    source_ip: Vec<Prefix>,
    destination_ip: Vec<Prefix>,
    source_label: Vec<LabelSelector>,
    destination_label: Vec<LabelSelector>,
}

impl Filters {
    pub(super) fn new(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, InvalidFilter> {
        if whitelist.len() + blacklist.len() > MAX_FILTERS {
            return Err(InvalidFilter { field: "whitelist", why: format!("more than {MAX_FILTERS} filters") });
        }
        let parse = |all: &[FlowFilter]| all.iter().map(Filter::new).collect::<Result<Vec<_>, _>>();
        Ok(Self { whitelist: parse(whitelist)?, blacklist: parse(blacklist)? })
    }

    pub(super) fn pass(&self, flow: &Flow) -> bool {
        let wanted = self.whitelist.is_empty() || self.whitelist.iter().any(|f| f.matches(flow));
        wanted && !self.blacklist.iter().any(|f| f.matches(flow))
    }
}

impl Filter {
    fn new(raw: &FlowFilter) -> Result<Self, InvalidFilter> {
        refuse_unsupported(raw)?;
        Ok(Self {
            source_ip: prefixes("source_ip", &raw.source_ip)?,
            destination_ip: prefixes("destination_ip", &raw.destination_ip)?,
            source_label: selectors("source_label", &raw.source_label)?,
            destination_label: selectors("destination_label", &raw.destination_label)?,
            raw: raw.clone(),
        })
    }

    fn matches(&self, flow: &Flow) -> bool {
        self.sides(flow) && self.layers(flow) && self.rest(flow)
    }

    fn sides(&self, flow: &Flow) -> bool {
        let raw = &self.raw;
        let ip = flow.ip.as_ref();
        let source = ip.and_then(|ip| ip.source.parse().ok());
        let destination = ip.and_then(|ip| ip.destination.parse().ok());
        within(&self.source_ip, source)
            && within(&self.destination_ip, destination)
            && side(flow.source.as_ref(), &raw.source_pod, &self.source_label, &raw.source_identity)
            && side(flow.destination.as_ref(), &raw.destination_pod, &self.destination_label, &raw.destination_identity)
            && cluster(flow.source.as_ref(), &raw.source_cluster_name)
            && cluster(flow.destination.as_ref(), &raw.destination_cluster_name)
    }

    fn layers(&self, flow: &Flow) -> bool {
        let raw = &self.raw;
        let (name, source, destination) = layer4(flow.l4.as_ref());
        let port = |wanted: &[String], port: Option<u32>| {
            wanted.is_empty() || port.is_some_and(|p| wanted.iter().any(|w| *w == p.to_string()))
        };
        let protocol = |wanted: &String| {
            let wanted = wanted.to_ascii_lowercase();
            wanted == name || (wanted == "icmp" && name.starts_with("icmp"))
        };
        let version = flow.ip.as_ref().map_or(0, |ip| ip.ip_version);
        port(&raw.source_port, source)
            && port(&raw.destination_port, destination)
            && (raw.protocol.is_empty() || raw.protocol.iter().any(protocol))
            && any(&raw.ip_version, &version)
    }

    fn rest(&self, flow: &Flow) -> bool {
        let raw = &self.raw;
        let event = flow.event_type.unwrap_or_default();
        let of_type = |f: &clustermesh_api_proto::flow::EventTypeFilter| {
            f.r#type == event.r#type && (!f.match_sub_type || f.sub_type == event.sub_type)
        };
        let encrypted = flow.ip.as_ref().is_some_and(|ip| ip.encrypted);
        any(&raw.verdict, &flow.verdict)
            && any(&raw.drop_reason_desc, &flow.drop_reason_desc)
            && any(&raw.traffic_direction, &flow.traffic_direction)
            && any(&raw.encrypted, &encrypted)
            && any(&raw.uuid, &flow.uuid)
            && (raw.reply.is_empty() || flow.is_reply.is_some_and(|r| raw.reply.contains(&r)))
            && (raw.event_type.is_empty() || raw.event_type.iter().any(of_type))
            && (raw.node_name.is_empty() || raw.node_name.iter().any(|n| node_matches(n, &flow.node_name)))
    }
}

fn refuse_unsupported(raw: &FlowFilter) -> Result<(), InvalidFilter> {
    let used = [
        ("source_fqdn", raw.source_fqdn.is_empty()),
        ("destination_fqdn", raw.destination_fqdn.is_empty()),
        ("http_status_code", raw.http_status_code.is_empty()),
        ("http_method", raw.http_method.is_empty()),
        ("http_path", raw.http_path.is_empty()),
        ("http_url", raw.http_url.is_empty()),
        ("dns_query", raw.dns_query.is_empty()),
        ("source_service", raw.source_service.is_empty()),
        ("destination_service", raw.destination_service.is_empty()),
        ("source_workload", raw.source_workload.is_empty()),
        ("destination_workload", raw.destination_workload.is_empty()),
        ("trace_id", raw.trace_id.is_empty()),
        ("tcp_flags", raw.tcp_flags.is_empty()),
        ("source_ip_xlated", raw.source_ip_xlated.is_empty()),
        ("interface", raw.interface.is_empty()),
        ("node_labels", raw.node_labels.is_empty()),
        ("ip_trace_id", raw.ip_trace_id.is_empty()),
    ];
    match used.into_iter().find(|(_, empty)| !empty) {
        Some((field, _)) => Err(InvalidFilter { field, why: "is not supported".to_owned() }),
        None => Ok(()),
    }
}

fn prefixes(field: &'static str, texts: &[String]) -> Result<Vec<Prefix>, InvalidFilter> {
    bounded(field, texts)?;
    let parse = |text: &String| {
        let host = text.parse::<IpAddr>().map(Prefix::host).ok();
        let prefix = host.or_else(|| text.parse::<Prefix>().ok());
        prefix.ok_or_else(|| InvalidFilter { field, why: format!("{text:?} is neither an address nor a range") })
    };
    texts.iter().map(parse).collect()
}

fn selectors(field: &'static str, texts: &[String]) -> Result<Vec<LabelSelector>, InvalidFilter> {
    bounded(field, texts)?;
    let parse = |text: &String| {
        LabelSelector::parse_as(text, KeySyntax::Cilium).map_err(|e| InvalidFilter { field, why: e.to_string() })
    };
    texts.iter().map(parse).collect()
}

fn bounded(field: &'static str, texts: &[String]) -> Result<(), InvalidFilter> {
    if texts.len() > MAX_ENTRIES {
        return Err(InvalidFilter { field, why: format!("more than {MAX_ENTRIES} entries") });
    }
    Ok(())
}

fn any<T: PartialEq>(wanted: &[T], value: &T) -> bool {
    wanted.is_empty() || wanted.contains(value)
}

fn within(wanted: &[Prefix], address: Option<IpAddr>) -> bool {
    wanted.is_empty() || address.is_some_and(|a| wanted.iter().any(|p| p.contains(a)))
}

fn side(endpoint: Option<&Endpoint>, pods: &[String], labels: &[LabelSelector], identities: &[u32]) -> bool {
    if pods.is_empty() && labels.is_empty() && identities.is_empty() {
        return true;
    }
    let Some(endpoint) = endpoint else { return false };
    let pod = |wanted: &String| match wanted.split_once('/') {
        Some((namespace, prefix)) => {
            (namespace.is_empty() || endpoint.namespace == namespace) && endpoint.pod_name.starts_with(prefix)
        }
        None => endpoint.namespace == "default" && endpoint.pod_name.starts_with(wanted.as_str()),
    };
    let set = LabelSet::parse(endpoint.labels.iter().map(String::as_str)).unwrap_or_else(|_| LabelSet::empty());
    (pods.is_empty() || pods.iter().any(pod))
        && (labels.is_empty() || labels.iter().any(|s| s.matches(&set)))
        && any(identities, &endpoint.identity)
}

fn cluster(endpoint: Option<&Endpoint>, wanted: &[String]) -> bool {
    wanted.is_empty() || endpoint.is_some_and(|e| wanted.contains(&e.cluster_name))
}

/// `cluster/node` or `node`; a `*` at the end stands for anything.
fn node_matches(wanted: &str, name: &str) -> bool {
    let bare = name.split_once('/').map_or(name, |(_, node)| node);
    let one = |candidate: &str| match wanted.strip_suffix('*') {
        Some(prefix) => candidate.starts_with(prefix),
        None => candidate == wanted,
    };
    one(name) || one(bare)
}

fn layer4(l4: Option<&Layer4>) -> (&'static str, Option<u32>, Option<u32>) {
    match l4.and_then(|l| l.protocol.as_ref()) {
        Some(Protocol::Tcp(t)) => ("tcp", Some(t.source_port), Some(t.destination_port)),
        Some(Protocol::Udp(u)) => ("udp", Some(u.source_port), Some(u.destination_port)),
        Some(Protocol::Sctp(s)) => ("sctp", Some(s.source_port), Some(s.destination_port)),
        Some(Protocol::IcmPv4(_)) => ("icmpv4", None, None),
        Some(Protocol::IcmPv6(_)) => ("icmpv6", None, None),
        None => ("", None, None),
    }
}

#[cfg(test)]
mod tests {
    use clustermesh_api_proto::flow::{Ip, Tcp, Verdict};

    use super::*;

    fn flow() -> Flow {
        let end = |app: &str, identity| Endpoint {
            labels: vec![format!("k8s:app={app}")],
            namespace: "shop".to_owned(),
            pod_name: format!("{app}-1"),
            cluster_name: "eu".to_owned(),
            identity,
            ..Endpoint::default()
        };
        Flow {
            verdict: Verdict::Dropped.into(),
            ip: Some(Ip { source: "10.1.0.5".to_owned(), destination: "10.2.0.9".to_owned(), ..Ip::default() }),
            l4: Some(Layer4 {
                protocol: Some(Protocol::Tcp(Tcp { source_port: 4000, destination_port: 5432, flags: None })),
            }),
            source: Some(end("web", 65_792)),
            destination: Some(end("db", 131_328)),
            node_name: "eu/eu1".to_owned(),
            is_reply: Some(false),
            ..Flow::default()
        }
    }

    fn passes(filter: FlowFilter) -> bool {
        Filters::new(&[filter], &[]).unwrap().pass(&flow())
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|v| (*v).to_owned()).collect()
    }

    #[test]
    fn each_field_lets_through_and_holds_back() {
        let default = FlowFilter::default;
        let pairs = vec![
            (
                FlowFilter { source_ip: texts(&["10.1.0.0/16"]), ..default() },
                FlowFilter { source_ip: texts(&["10.1.0.6"]), ..default() },
            ),
            (
                FlowFilter { source_pod: texts(&["shop/web"]), ..default() },
                FlowFilter { source_pod: texts(&["web"]), ..default() },
            ),
            (
                FlowFilter { destination_label: texts(&["app=db"]), ..default() },
                FlowFilter { destination_label: texts(&["app=web"]), ..default() },
            ),
            (
                FlowFilter { destination_identity: vec![131_328], ..default() },
                FlowFilter { destination_identity: vec![1], ..default() },
            ),
            (
                FlowFilter { verdict: vec![Verdict::Dropped.into()], ..default() },
                FlowFilter { verdict: vec![Verdict::Forwarded.into()], ..default() },
            ),
            (
                FlowFilter { destination_port: texts(&["5432"]), ..default() },
                FlowFilter { destination_port: texts(&["80"]), ..default() },
            ),
            (
                FlowFilter { protocol: texts(&["TCP"]), ..default() },
                FlowFilter { protocol: texts(&["udp"]), ..default() },
            ),
            (FlowFilter { reply: vec![false], ..default() }, FlowFilter { reply: vec![true], ..default() }),
            (
                FlowFilter { node_name: texts(&["eu/*"]), ..default() },
                FlowFilter { node_name: texts(&["eu2"]), ..default() },
            ),
            (
                FlowFilter { source_cluster_name: texts(&["eu"]), ..default() },
                FlowFilter { source_cluster_name: texts(&["us"]), ..default() },
            ),
        ];
        for (yes, no) in pairs {
            assert!(passes(yes.clone()), "{yes:?}");
            assert!(!passes(no.clone()), "{no:?}");
        }
    }

    #[test]
    fn fields_are_anded_filters_are_ored_and_the_blacklist_wins() {
        let web = FlowFilter { source_label: texts(&["app=web"]), ..FlowFilter::default() };
        let both = FlowFilter { destination_port: texts(&["80"]), ..web.clone() };
        assert!(!passes(both.clone()));
        assert!(Filters::new(&[both, web.clone()], &[]).unwrap().pass(&flow()));
        assert!(!Filters::new(&[], &[web]).unwrap().pass(&flow()));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let error = |filter| Filters::new(&[filter], &[]).unwrap_err().field;
        assert_eq!(error(FlowFilter { dns_query: texts(&["x"]), ..FlowFilter::default() }), "dns_query");
        assert_eq!(error(FlowFilter { source_ip: texts(&["nonsense"]), ..FlowFilter::default() }), "source_ip");
        assert_eq!(error(FlowFilter { source_label: texts(&["a in ("]), ..FlowFilter::default() }), "source_label");
    }
}
