//! Random policies, identities and packets: compiled entries and the reference must agree.

use proptest::prelude::*;

use super::model::{Mesh, assert_agree};
use crate::ids::Identity;
use crate::policy::reference::{Other, Packet, evaluate};
use crate::policy::{Decision, Direction};

fn pick(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    (0..words.len()).prop_map(move |at| words[at])
}

fn selector() -> impl Strategy<Value = String> {
    let labels = pick(&["", "app: web", "app: db", "any:app: web", "k8s:tier: front", "k8s:app: web, tier: front"]);
    let place = pick(&[
        "",
        "io.cilium.k8s.policy.cluster: us",
        "k8s:io.cilium.k8s.policy.cluster: eu2",
        "k8s:io.kubernetes.pod.namespace: ops",
        "io.kubernetes.pod.namespace: demo, io.cilium.k8s.policy.cluster: e",
    ]);
    let expressions = pick(&[
        "",
        "{key: tier, operator: DoesNotExist}",
        "{key: app, operator: NotIn, values: [db, x]}",
        "{key: io.cilium.k8s.policy.cluster, operator: Exists}",
        "{key: io.cilium.k8s.policy.cluster, operator: NotIn, values: [eu]}",
        "{key: io.kubernetes.pod.namespace, operator: In, values: [ops, demo]}",
    ]);
    (labels, place, expressions).prop_map(|(labels, place, expressions)| {
        let both: Vec<&str> = [labels, place].into_iter().filter(|text| !text.is_empty()).collect();
        format!("{{matchLabels: {{{}}}, matchExpressions: [{expressions}]}}", both.join(", "))
    })
}

fn cidr() -> impl Strategy<Value = String> {
    pick(&[
        "{cidr: 0.0.0.0/0}",
        "{cidr: 10.0.0.0/8}",
        "{cidr: 10.1.0.0/16, except: [10.1.2.0/24]}",
        "{cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.0.2.0/24]}",
        "{cidr: 10.1.2.0/24}",
        "{cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}",
        "{cidr: '::/0'}",
    ])
    .prop_map(str::to_owned)
}

/// What stands in the field of peers, without its prefix `from` or `to`; empty for no field.
fn peers() -> impl Strategy<Value = String> {
    let list = |one: BoxedStrategy<String>| proptest::collection::vec(one, 0..3).prop_map(|list| list.join(", "));
    prop_oneof![
        2 => Just(String::new()),
        5 => list(selector().boxed()).prop_map(|list| format!("Endpoints: [{list}]")),
        2 => list(cidr().boxed()).prop_map(|list| format!("CIDRSet: [{list}]")),
        2 => list(pick(&["all", "none", "world", "cluster", "host", "remote-node", "init"]).prop_map(str::to_owned).boxed())
            .prop_map(|list| format!("Entities: [{list}]")),
        1 => Just("Endpoints: [{matchLabels: {reserved:remote-node: ''}}]".to_owned()),
    ]
}

fn ports() -> impl Strategy<Value = &'static str> {
    pick(&[
        "",
        "toPorts: [{ports: [{port: '80', protocol: TCP}]}]",
        "toPorts: [{ports: [{port: '80'}]}]",
        "toPorts: [{ports: [{port: '0', protocol: UDP}]}]",
        "toPorts: [{ports: [{port: '0'}]}]",
        "toPorts: [{ports: [{port: '70', endPort: 90, protocol: TCP}, {port: '53', protocol: UDP}]}]",
        "toPorts: [{ports: [{port: '1', endPort: 65535, protocol: TCP}]}]",
        "icmps: [{fields: [{type: 8}, {type: 128, family: IPv6}]}]",
    ])
}

fn rules(prefix: &'static str) -> impl Strategy<Value = String> {
    let rule = (peers(), ports()).prop_map(move |(peers, ports)| {
        let peers = if peers.is_empty() { peers } else { format!("{prefix}{peers}") };
        let both: Vec<&str> = [peers.as_str(), ports].into_iter().filter(|text| !text.is_empty()).collect();
        format!("{{{}}}", both.join(", "))
    });
    proptest::collection::vec(rule, 0..3).prop_map(|rules| format!("[{}]", rules.join(", ")))
}

fn cilium_spec() -> impl Strategy<Value = String> {
    let subject = pick(&["{}", "{matchLabels: {app: db}}", "{matchLabels: {any:app: web}}"]);
    let defaults =
        pick(&["", "", ", enableDefaultDeny: {ingress: false}", ", enableDefaultDeny: {ingress: true, egress: false}"]);
    (subject, rules("from"), rules("from"), rules("to"), rules("to"), defaults).prop_map(
        |(subject, ingress, ingress_deny, egress, egress_deny, defaults)| {
            format!(
                "{{endpointSelector: {subject}, ingress: {ingress}, ingressDeny: {ingress_deny}, egress: {egress}, \
                 egressDeny: {egress_deny}{defaults}}}"
            )
        },
    )
}

fn kubernetes_spec() -> impl Strategy<Value = String> {
    let peer = prop_oneof![
        pick(&["{podSelector: {}}", "{podSelector: {matchLabels: {app: web}}}", "{namespaceSelector: {}}"])
            .prop_map(str::to_owned),
        pick(&[
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}, podSelector: {}}",
            "{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [blue]}]}}",
        ])
        .prop_map(str::to_owned),
        cidr().prop_map(|block| format!("{{ipBlock: {block}}}")),
    ];
    let ports = pick(&["", "{port: 80}", "{protocol: UDP}", "{port: 70, endPort: 90}, {port: 53, protocol: UDP}"]);
    let peers = proptest::collection::vec(peer, 0..3);
    let types = pick(&["[]", "[Ingress]", "[Egress]", "[Ingress, Egress]"]);
    (peers, ports, types, any::<bool>()).prop_map(|(peers, ports, types, to)| {
        let (section, field) = if to { ("egress", "to") } else { ("ingress", "from") };
        let rule = format!("{{{field}: [{}], ports: [{ports}]}}", peers.join(", "));
        format!("{{podSelector: {{}}, policyTypes: {types}, {section}: [{rule}]}}")
    })
}

fn documents() -> impl Strategy<Value = String> {
    let document = prop_oneof![
        3 => cilium_spec().prop_map(|spec| ("cilium.io/v2", "CiliumNetworkPolicy", "demo", spec)),
        1 => cilium_spec().prop_map(|spec| ("cilium.io/v2", "CiliumClusterwideNetworkPolicy", "", spec)),
        2 => kubernetes_spec().prop_map(|spec| ("networking.k8s.io/v1", "NetworkPolicy", "demo", spec)),
    ];
    proptest::collection::vec(document, 0..4).prop_map(|documents| {
        let texts = documents.iter().enumerate().map(|(n, (version, kind, namespace, spec))| {
            let place = if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
            format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: p{n}{place}}}\nspec: {spec}\n")
        });
        texts.collect::<Vec<String>>().join("---\n")
    })
}

const OTHERS: [&str; 11] = [
    "@host",
    "@remote-node",
    "@init",
    "@unknown",
    "10.0.0.1",
    "10.1.0.1",
    "10.1.2.3",
    "192.0.2.9",
    "203.0.113.1",
    "2001:db8::1",
    "2001:db8:1::1",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn compiled_entries_say_what_the_reference_says(
        documents in documents(),
        packets in proptest::collection::vec((0_usize..4, 0_usize..20, any::<bool>(), 0_usize..5, 0_usize..9), 24),
    ) {
        let mesh = Mesh::new(&documents);
        let peers: Vec<&str> = mesh.endpoints().chain(OTHERS).collect();
        for (subject, peer, ingress, protocol, port) in packets {
            let subject = ["web", "db", "ops", "us-web"][subject];
            let direction = if ingress { Direction::Ingress } else { Direction::Egress };
            let protocol = [6, 17, 132, 1, 58][protocol];
            let port = [0, 8, 53, 69, 70, 80, 90, 128, u16::MAX][port];
            mesh.judge(subject, direction, peers[peer % peers.len()], protocol, port);
        }
    }

    /// Identities that come, go and change their labels: step by step as from scratch.
    #[test]
    fn steps_lead_where_compiling_anew_leads(
        documents in documents(), steps in proptest::collection::vec((0_usize..9, 0_usize..9), 0..8),
    ) {
        let mut mesh = Mesh::new(&documents);
        let names: Vec<&str> = mesh.endpoints().collect();
        let labels = mesh.labels("db").clone();
        let subject = mesh.identity("db");
        let all: Vec<_> = names.iter().map(|name| (mesh.identity(name), mesh.labels(name).clone())).collect();
        let mut policy = mesh.compiler().compile(subject, &labels);
        for (at, with) in steps {
            let (identity, _) = all[at];
            if at == with {
                mesh.identities.remove(identity);
            } else {
                mesh.identities.insert(identity, all[with].1.clone());
            }
            policy.replace_peer(identity, mesh.compiler().entries_of_peer(&labels, identity));
            prop_assert_eq!(&policy, &mesh.compiler().compile(subject, &labels));
        }
    }

    /// The two lookups of the data path, denying entries before allowing ones, reach the same verdict as precedence.
    #[test]
    fn asking_for_denies_first_is_the_same(documents in documents(), peer in 0_usize..20, port in 0_usize..4) {
        let mesh = Mesh::new(&documents);
        let compiled = mesh.compiler().compile(mesh.identity("db"), mesh.labels("db"));
        let port = [53, 69, 80, 90][port];
        let identity = mesh.identities.iter().nth(peer).map_or(Identity::REMOTE_NODE, |(identity, _)| identity);
        for direction in Direction::BOTH.into_iter().filter(|direction| compiled.enforces(*direction)) {
            let any = |denies: bool| compiled.entries().any(|(key, value)| {
                let wanted = if denies { crate::policy::Action::Deny } else { crate::policy::Action::Allow };
                value.action == wanted && key.direction == direction && key.block.matches(6, port)
                    && (key.peer == identity || key.peer == Identity::UNKNOWN)
            });
            let expected = match (any(true), any(false)) {
                (true, _) => "denied",
                (false, true) => "allowed",
                (false, false) => "default",
            };
            let found = match compiled.decide(direction, identity, 6, port) {
                Decision::Denied(_) => "denied",
                Decision::Allowed(_) => "allowed",
                Decision::DeniedByDefault => "default",
                Decision::NotEnforced => "open",
            };
            prop_assert_eq!(found, expected);
        }
    }

    /// A rule that names nothing of a peer must not let it in: no identity that the reference cannot place.
    #[test]
    fn what_is_not_known_passes_only_rules_for_everybody(documents in documents()) {
        let mesh = Mesh::new(&documents);
        let compiled = mesh.compiler().compile(mesh.identity("db"), mesh.labels("db"));
        let stranger = Identity::of_cluster(crate::ids::ClusterId::MAX, 999);
        for direction in Direction::BOTH {
            let packet = Packet { direction, other: Other::Unknown, protocol: 6, port: 80 };
            let judgement = evaluate(mesh.policies.iter(), mesh.labels("db"), packet);
            assert_agree(compiled.decide(direction, stranger, 6, 80), &judgement, "stranger");
        }
    }
}
