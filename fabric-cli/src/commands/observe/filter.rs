//! Flags to Hubble's filters: fields of one filter are ANDed, filters are ORed, so "either side" makes two.

use clustermesh_api_proto::flow::{FlowFilter, Verdict};

use super::ObserveArgs;

/// The whitelist; empty = everything.
pub(super) fn whitelist(args: &ObserveArgs) -> Vec<FlowFilter> {
    let directed = directed(args);
    if !either_side(args) {
        return if directed == FlowFilter::default() { Vec::new() } else { vec![directed] };
    }
    vec![with_source(directed.clone(), args), with_destination(directed, args)]
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn directed(args: &ObserveArgs) -> FlowFilter {
    FlowFilter {
        verdict: args.verdict.iter().map(|v| Verdict::from(*v).into()).collect(),
        source_pod: args.from_pod.clone(),
        destination_pod: args.to_pod.clone(),
        source_label: args.from_label.clone(),
        destination_label: args.to_label.clone(),
        source_ip: args.from_ip.clone(),
        destination_ip: args.to_ip.clone(),
        source_identity: args.from_identity.clone(),
        destination_identity: args.to_identity.clone(),
        source_port: texts(&args.from_port),
        destination_port: texts(&args.to_port),
        protocol: args.protocol.clone(),
        node_name: args.node_name.clone(),
        ..FlowFilter::default()
    }
}

fn either_side(args: &ObserveArgs) -> bool {
    !(args.pod.is_empty()
        && args.label.is_empty()
        && args.ip.is_empty()
        && args.identity.is_empty()
        && args.cluster.is_empty()
        && args.port.is_empty())
}

fn with_source(mut filter: FlowFilter, args: &ObserveArgs) -> FlowFilter {
    filter.source_pod.extend(args.pod.iter().cloned());
    filter.source_label.extend(args.label.iter().cloned());
    filter.source_ip.extend(args.ip.iter().cloned());
    filter.source_identity.extend(&args.identity);
    filter.source_cluster_name.extend(args.cluster.iter().cloned());
    filter.source_port.extend(texts(&args.port));
    filter
}

fn with_destination(mut filter: FlowFilter, args: &ObserveArgs) -> FlowFilter {
    filter.destination_pod.extend(args.pod.iter().cloned());
    filter.destination_label.extend(args.label.iter().cloned());
    filter.destination_ip.extend(args.ip.iter().cloned());
    filter.destination_identity.extend(&args.identity);
    filter.destination_cluster_name.extend(args.cluster.iter().cloned());
    filter.destination_port.extend(texts(&args.port));
    filter
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::commands::{Cli, Command};

    fn of(flags: &[&str]) -> Vec<FlowFilter> {
        let args = ["fabric", "observe"].iter().chain(flags).copied();
        match Cli::parse_from(args).command {
            Command::Observe(args) => whitelist(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_flag_lets_everything_through() {
        assert!(of(&[]).is_empty());
    }

    #[test]
    fn either_side_makes_two_filters_that_keep_the_rest() {
        let filters = of(&["--pod", "shop/web", "--verdict", "DROPPED"]);
        assert_eq!(filters.len(), 2);
        assert_eq!(filters[0].source_pod, ["shop/web"]);
        assert!(filters[0].destination_pod.is_empty());
        assert_eq!(filters[1].destination_pod, ["shop/web"]);
        assert!(filters.iter().all(|f| f.verdict == [Verdict::Dropped as i32]));
    }

    #[test]
    fn directed_flags_share_one_filter() {
        let filters = of(&["--from-label", "app=web", "--to-port", "80"]);
        assert_eq!(filters.len(), 1);
        assert_eq!(filters[0].source_label, ["app=web"]);
        assert_eq!(filters[0].destination_port, ["80"]);
    }
}
