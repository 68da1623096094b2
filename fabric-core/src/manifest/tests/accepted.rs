//! Good documents: what comes out, and that the canonical form says the same.

use super::super::*;
use crate::policy::{Entity, PortMatch, Protocol};
use crate::service::{Affinity, ClusterIps, Families, Sharing};

const ALL_KINDS: &str = include_str!("../testdata/all-kinds.yaml");

fn one(text: &str) -> Object {
    let mut objects = parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(objects.len(), 1);
    objects.remove(0)
}

#[test]
fn all_kinds_are_read() {
    let keys: Vec<String> = parse(ALL_KINDS).unwrap().iter().map(|object| object.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "Service demo/echo",
            "NetworkPolicy default/web",
            "CiliumNetworkPolicy demo/backend",
            "CiliumClusterwideNetworkPolicy baseline",
            "ClusterLink us",
        ]
    );
}

#[test]
fn canonical_form_reads_back_as_the_same_object() {
    for object in parse(ALL_KINDS).unwrap() {
        let again = Object::from_json(&object.to_json()).unwrap();
        assert_eq!(again, object);
        assert_eq!(again.to_json(), object.to_json());
        assert!(!object.to_json().contains("resourceVersion") && !object.to_json().contains("status"));
    }
}

#[test]
fn canonical_forms_are_kept() {
    let lines: Vec<String> = parse(ALL_KINDS).unwrap().iter().map(Object::to_json).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn order_and_spelling_do_not_change_the_canonical_form() {
    let a = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}}\n";
    let b = r#"{"spec": {"podSelector": {}}, "metadata": {"uid": "x", "namespace": "default", "name": "a"},
        "kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1"}"#;
    assert_eq!(one(a).to_json(), one(b).to_json());
}

fn network_policy(spec: &str) -> NetworkPolicy {
    let text = format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: a}}\nspec: {spec}\n");
    let Spec::NetworkPolicy(policy) = one(&text).spec else { panic!() };
    policy
}

#[test]
fn policy_types_default_as_in_kubernetes() {
    let cases = [
        ("{podSelector: {}}", (true, false)),
        ("{podSelector: {}, egress: []}", (true, false)),
        ("{podSelector: {}, egress: [{}]}", (true, true)),
        ("{podSelector: {}, policyTypes: []}", (true, false)),
        ("{podSelector: {}, policyTypes: [Egress]}", (false, true)),
        ("{podSelector: {}, policyTypes: [Ingress], egress: [{}]}", (true, false)),
        ("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}", (false, true)),
        ("{podSelector: {}, policyTypes: [Ingress, Egress]}", (true, true)),
    ];
    for (spec, expected) in cases {
        let policy = network_policy(spec);
        assert_eq!((policy.ingress.is_some(), policy.egress.is_some()), expected, "{spec}");
    }
}

#[test]
fn ports_of_network_policies() {
    let policy = network_policy(
        "{podSelector: {}, ingress: [{ports: [{port: 80}, {protocol: UDP}, {port: 8000, endPort: 8080, protocol: SCTP}]}]}",
    );
    let tcp = PortMatch { protocol: Some(Protocol::Tcp), first: 80, last: 80 };
    let range = PortMatch { protocol: Some(Protocol::Sctp), first: 8000, last: 8080 };
    assert_eq!(policy.ingress.unwrap()[0].ports, [tcp, PortMatch::all_of(Protocol::Udp), range]);
}

#[test]
fn default_deny_of_cilium_policies() {
    let of = |spec: &str| {
        let text =
            format!("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: a}}\nspec: {spec}\n");
        let Spec::CiliumNetworkPolicy(policy) = one(&text).spec else { panic!() };
        (policy.specs[0].ingress.default_deny, policy.specs[0].egress.default_deny)
    };
    assert_eq!(of("{endpointSelector: {}, ingress: []}"), (false, false));
    assert_eq!(of("{endpointSelector: {}, ingress: [{}]}"), (true, false));
    assert_eq!(of("{endpointSelector: {}, egressDeny: [{toEntities: [world]}]}"), (false, true));
    let off = "{endpointSelector: {}, ingress: [{}], enableDefaultDeny: {ingress: false, egress: true}}";
    assert_eq!(of(off), (false, true));
}

#[test]
fn cilium_peers_and_ports() {
    let Spec::CiliumNetworkPolicy(policy) = &parse(ALL_KINDS).unwrap()[2].spec else { panic!() };
    let [spec] = policy.specs.as_slice() else { panic!() };
    assert_eq!(spec.ingress.allow.len(), 3);
    let dns = PortMatch { protocol: None, first: 53, last: 53 };
    assert_eq!(spec.egress.allow[0].ports, [dns, PortMatch { protocol: Some(Protocol::Tcp), first: 8000, last: 8100 }]);
    let icmp = PortMatch { protocol: Some(Protocol::Icmpv6), first: 128, last: 128 };
    assert!(spec.ingress.allow[2].ports.contains(&icmp));
    assert_eq!(spec.ingress.deny[0].peers, CiliumPeers::Entities(vec![Entity::World, Entity::RemoteNode]));
}

#[test]
fn services() {
    let Spec::Service(service) = &parse(ALL_KINDS).unwrap()[0].spec else { panic!() };
    assert_eq!(service.sharing, Sharing { global: true, shared: true, affinity: Affinity::Local });
    assert_eq!((&service.cluster_ips, service.families), (&ClusterIps::Allotted, Families::Dual));
    assert_eq!(service.ports[0].target_port, 8080);
    let headless = one("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: None}\n");
    let Spec::Service(headless) = headless.spec else { panic!() };
    assert_eq!(headless.cluster_ips, ClusterIps::Headless);
}

#[test]
fn annotations_and_addresses_can_be_changed() {
    let service = parse(ALL_KINDS).unwrap().remove(0);
    let local = Sharing { affinity: Affinity::None, global: true, shared: false };
    let changed = service.with_annotations(&crate::service::annotations::write(local)).unwrap();
    let Spec::Service(spec) = &changed.spec else { panic!() };
    assert_eq!(spec.sharing, local);
    let addresses = ["172.30.0.7".parse().unwrap(), "fdfa:5e:1ce::7".parse().unwrap()];
    let placed = changed.with_cluster_ips(&addresses).unwrap();
    let Spec::Service(spec) = &placed.spec else { panic!() };
    assert_eq!(spec.cluster_ips, ClusterIps::Given(addresses.to_vec()));
    assert_eq!(Object::from_json(&placed.to_json()).unwrap(), placed);
    assert!(service.with_annotations(&[("service.cilium.io/affinity", Some("near"))]).is_err());
}

#[test]
fn kinds_have_short_names() {
    for (text, kind) in
        [("svc", Kind::Service), ("networkpolicy", Kind::NetworkPolicy), ("CCNP", Kind::CiliumClusterwideNetworkPolicy)]
    {
        assert_eq!(text.parse::<Kind>().unwrap(), kind);
    }
    assert!("pod".parse::<Kind>().is_err());
}
