//! What documents mean, one claim at a time.

use super::model::{Mesh, UDP};
use crate::policy::Direction;

fn network_policy(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: np, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn cilium(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: demo}}\nspec: {spec}\n---\n"
    )
}

fn clusterwide(spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: all}}\nspec: {spec}\n---\n"
    )
}

const OUTSIDE: [&str; 5] = ["@host", "@remote-node", "@unknown", "192.0.2.1", "2001:db8::1"];

#[test]
fn without_policy_all_is_open() {
    let mesh = Mesh::new("");
    assert_eq!(mesh.who_reaches("db", 80, &OUTSIDE).len(), mesh.endpoints().count() + OUTSIDE.len());
}

#[test]
fn network_policy_denies_by_default_what_it_selects_and_nothing_else() {
    let mesh = Mesh::new(&network_policy("demo", "{podSelector: {matchLabels: {app: db}}}"));
    assert_eq!(mesh.who_reaches("db", 80, &OUTSIDE), ["@host"]);
    assert_eq!(mesh.ingress("web", "db", 80), "open");
    assert_eq!(mesh.egress("db", "192.0.2.1", 80), "open");
    // Same labels in another cluster: not ours to police.
    assert_eq!(mesh.ingress("us-db", "web", 80), "open");
}

#[test]
fn empty_pod_selector_is_the_whole_namespace() {
    let mesh = Mesh::new(&network_policy("demo", "{podSelector: {}, policyTypes: [Ingress, Egress]}"));
    for subject in ["web", "db", "other-source"] {
        assert_eq!(mesh.ingress(subject, "web", 80), "default");
        assert_eq!(mesh.egress(subject, "@host", 80), "default");
    }
    assert_eq!(mesh.ingress("ops", "web", 80), "open");
}

#[test]
fn empty_from_is_everybody() {
    for rule in ["{}", "{from: []}", "{ports: []}"] {
        let mesh = Mesh::new(&network_policy("demo", &format!("{{podSelector: {{}}, ingress: [{rule}]}}")));
        assert_eq!(mesh.who_reaches("db", 80, &OUTSIDE).len(), mesh.endpoints().count() + OUTSIDE.len(), "{rule}");
    }
}

#[test]
fn network_policy_peers_are_of_the_own_cluster_and_namespace() {
    let rule = |peer: &str| network_policy("demo", &format!("{{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}"));
    let reach = |peer: &str| Mesh::new(&rule(peer)).who_reaches("db", 80, &OUTSIDE);
    assert_eq!(reach("{podSelector: {matchLabels: {app: web}}}"), ["web", "@host"]);
    assert_eq!(reach("{podSelector: {}}"), ["web", "db", "other-source", "@host"]);
    assert_eq!(reach("{namespaceSelector: {}}"), ["web", "db", "ops", "other-source", "@host"]);
    let ops = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}";
    assert_eq!(reach(ops), ["ops", "@host"]);
    assert_eq!(reach("{namespaceSelector: {matchLabels: {team: blue}}}"), ["ops", "@host"]);
    let not_blue = "{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [blue]}]}}";
    assert_eq!(reach(not_blue), ["web", "db", "other-source", "@host"]);
    let both = "{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [web]}]}}";
    assert_eq!(reach(both), ["web", "ops", "@host"]);
    assert_eq!(
        reach("{podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}"),
        ["other-source", "@host"]
    );
}

/// CVE-2026-56743: with a cluster name other than the default, a rule with an ipBlock alone let everybody of the
/// namespace in.
#[test]
fn ip_block_with_a_cluster_name_is_no_wildcard() {
    let rule = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}";
    let mesh = Mesh::new(&network_policy("demo", rule));
    assert_eq!(mesh.who_reaches("db", 80, &OUTSIDE), ["@host", "192.0.2.1"]);
    // Not even if it names the addresses of the mesh itself.
    let mesh = Mesh::new(&network_policy("demo", &rule.replace("192.0.2.0/24", "0.0.0.0/0")));
    assert_eq!(mesh.who_reaches("db", 80, &OUTSIDE), ["@host", "192.0.2.1"]);
}

/// CVE-2025-30163: rules for one sort of peer matched another sort with the same labels.
#[test]
fn selectors_of_endpoints_match_no_node_and_no_world() {
    let negative = "matchExpressions: [{key: io.cilium.k8s.policy.cluster, operator: NotIn, values: [zz]}, \
                    {key: io.kubernetes.pod.namespace, operator: NotIn, values: [zz]}]";
    for peer in ["matchLabels: {host: ''}", "matchExpressions: [{key: app, operator: DoesNotExist}]", negative] {
        let rule = format!(
            "{{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{{{peer}}}]}}, {{fromCIDR: [203.0.113.0/24]}}]}}"
        );
        let mesh = Mesh::new(&cilium("a", &rule));
        let others = ["@remote-node", "@world", "@kube-apiserver", "192.0.2.1", "@unknown"];
        let reach = mesh.who_reaches("db", 80, &others);
        assert!(others.iter().all(|other| !reach.contains(other)), "{peer}: {reach:?}");
    }
}

#[test]
fn ip_blocks_heed_their_exceptions() {
    let rule = "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25, 192.0.2.0/30]}}]}, \
                {to: [{ipBlock: {cidr: 192.0.2.192/26}}], ports: [{port: 443}]}]}";
    let mesh = Mesh::new(&network_policy("demo", rule));
    assert_eq!(mesh.egress("db", "192.0.2.5", 80), "allow");
    assert_eq!(mesh.egress("db", "192.0.2.1", 80), "default");
    assert_eq!(mesh.egress("db", "192.0.2.129", 80), "default");
    assert_eq!(mesh.egress("db", "192.0.2.200", 443), "allow");
    assert_eq!(mesh.egress("db", "192.0.2.200", 80), "default");
    assert_eq!(mesh.egress("db", "198.51.100.1", 80), "default");
}

#[test]
fn ports_and_ranges() {
    let rule = "{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 8000, endPort: 8999}, {protocol: UDP}]}]}";
    let mesh = Mesh::new(&network_policy("demo", rule));
    for (port, verdict) in
        [(80, "allow"), (81, "default"), (7999, "default"), (8000, "allow"), (8999, "allow"), (9000, "default")]
    {
        assert_eq!(mesh.ingress("db", "web", port), verdict, "{port}");
    }
    assert_eq!(mesh.judge("db", Direction::Ingress, "us-web", UDP, 53), "allow");
    assert_eq!(mesh.judge("db", Direction::Ingress, "us-web", 132, 80), "default");
    assert_eq!(mesh.judge("db", Direction::Ingress, "us-web", 1, 8), "default");
}

#[test]
fn a_selector_without_cluster_means_the_own_one() {
    let reach = |peer: &str| {
        let spec =
            format!("{{endpointSelector: {{matchLabels: {{app: db}}}}, ingress: [{{fromEndpoints: [{peer}]}}]}}");
        Mesh::new(&cilium("a", &spec)).who_reaches("db", 80, &OUTSIDE)
    };
    assert_eq!(reach("{matchLabels: {k8s:app: web}}"), ["web", "@host"]);
    assert_eq!(reach("{matchLabels: {any:app: web}}"), ["web", "other-source", "@host"]);
    assert_eq!(reach("{}"), ["web", "db", "other-source", "@host"]);
    assert_eq!(reach("{matchLabels: {app: web, io.cilium.k8s.policy.cluster: us}}"), ["us-web", "@host"]);
    assert_eq!(reach("{matchLabels: {app: web, k8s:io.cilium.k8s.policy.cluster: e}}"), ["e-web", "@host"]);
    let every_cluster =
        "{matchLabels: {k8s:app: web}, matchExpressions: [{key: io.cilium.k8s.policy.cluster, operator: Exists}]}";
    assert_eq!(reach(every_cluster), ["web", "us-web", "e-web", "eu2-web", "@host"]);
    let namespace = "{matchLabels: {k8s:io.kubernetes.pod.namespace: default, io.cilium.k8s.policy.cluster: us}}";
    assert_eq!(reach(namespace), ["default-web", "@host"]);
    let by_label = "{matchLabels: {k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name: ops}}";
    assert_eq!(reach(by_label), ["ops", "@host"]);
}

#[test]
fn rules_without_peers() {
    let reach = |rule: &str| {
        let spec = format!("{{endpointSelector: {{}}, ingress: [{rule}]}}");
        Mesh::new(&cilium("a", &spec)).who_reaches("db", 80, &OUTSIDE).len()
    };
    let all = Mesh::new("").endpoints().count() + OUTSIDE.len();
    assert_eq!(reach("{}"), 1, "default deny alone");
    assert_eq!(reach("{fromEndpoints: []}"), 1);
    assert_eq!(reach("{fromEndpoints: [], toPorts: [{ports: [{port: '80'}]}]}"), 1);
    assert_eq!(reach("{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}"), all);
    assert_eq!(reach("{toPorts: [{ports: [{port: '0', protocol: TCP}]}]}"), all);
    assert_eq!(reach("{toPorts: [{ports: [{port: '81', protocol: TCP}]}]}"), 1);
    assert_eq!(reach("{fromEntities: [none]}"), 1);
    assert_eq!(reach("{fromEntities: [none, all]}"), all);
}

#[test]
fn entities() {
    let others =
        ["@host", "@remote-node", "@kube-apiserver", "@health", "@unmanaged", "@init", "@ingress", "192.0.2.1"];
    let reach = |entity: &str| {
        let spec = format!(
            "{{endpointSelector: {{}}, ingress: [{{fromEntities: [{entity}]}}, {{fromCIDR: [192.0.2.0/25], toPorts: [{{ports: [{{port: '1'}}]}}]}}]}}"
        );
        Mesh::new(&cilium("a", &spec)).who_reaches("db", 80, &others)
    };
    assert_eq!(reach("world"), ["@host", "192.0.2.1"]);
    assert_eq!(reach("host"), ["@host"]);
    assert_eq!(reach("remote-node"), ["@host", "@remote-node", "@kube-apiserver"]);
    assert_eq!(reach("kube-apiserver"), ["@host", "@kube-apiserver"]);
    // Endpoints of the own cluster, nodes of all clusters.
    let cluster = [
        "web",
        "db",
        "ops",
        "other-source",
        "@host",
        "@remote-node",
        "@kube-apiserver",
        "@health",
        "@unmanaged",
        "@init",
        "@ingress",
    ];
    assert_eq!(reach("cluster"), cluster);
}

#[test]
fn reserved_labels_name_reserved_identities() {
    let spec = "{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {reserved:remote-node: ''}}]}, {toEndpoints: [{matchLabels: {reserved:world: ''}}], toPorts: [{ports: [{port: '443'}]}]}]}";
    let mesh = Mesh::new(&cilium("a", spec));
    assert_eq!(mesh.egress("web", "@remote-node", 80), "allow");
    assert_eq!(mesh.egress("web", "@kube-apiserver", 80), "allow");
    assert_eq!(mesh.egress("web", "@host", 80), "default");
    assert_eq!(mesh.egress("web", "192.0.2.1", 443), "allow");
    assert_eq!(mesh.egress("web", "db", 443), "default");
}

#[test]
fn deny_wins_however_specific_either_is() {
    let allow = "ingress: [{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}, {fromEntities: [all]}]";
    let cases = [
        ("{fromEndpoints: [{matchLabels: {tier: front}}]}", ("deny", "deny")),
        ("{fromEntities: [all]}", ("deny", "deny")),
        ("{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}", ("deny", "allow")),
        ("{toPorts: [{ports: [{port: '64', endPort: 127}]}]}", ("deny", "deny")),
        ("{toPorts: [{ports: [{port: '0', protocol: TCP}]}]}", ("deny", "deny")),
        ("{fromEndpoints: [{matchLabels: {app: db}}]}", ("allow", "allow")),
        ("{}", ("allow", "allow")),
    ];
    for (deny, expected) in cases {
        let mesh = Mesh::new(&cilium("a", &format!("{{endpointSelector: {{}}, {allow}, ingressDeny: [{deny}]}}")));
        assert_eq!((mesh.ingress("db", "web", 80), mesh.ingress("db", "web", 81)), expected, "{deny}");
        assert_eq!(mesh.ingress("db", "@host", 80), "open", "{deny}");
    }
}

#[test]
fn deny_without_default_deny_leaves_the_rest_open() {
    let spec = "{endpointSelector: {}, enableDefaultDeny: {ingress: false}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: web}}]}]}";
    let mesh = Mesh::new(&cilium("a", spec));
    assert_eq!(mesh.ingress("db", "web", 80), "deny");
    assert_eq!(mesh.ingress("db", "us-web", 80), "open");
    assert_eq!(mesh.ingress("db", "192.0.2.1", 80), "open");
    assert_eq!(mesh.egress("db", "web", 80), "open");
    // One policy that turns it on is enough.
    let both = cilium("a", spec) + &cilium("b", "{endpointSelector: {matchLabels: {app: db}}, ingress: [{}]}");
    assert_eq!(Mesh::new(&both).ingress("db", "us-web", 80), "default");
    assert_eq!(Mesh::new(&both).ingress("web", "us-web", 80), "open");
}

#[test]
fn clusterwide_policies_select_in_all_namespaces_of_the_own_cluster() {
    let spec = "{endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEndpoints: [{}]}]}";
    let mesh = Mesh::new(&clusterwide(spec));
    for subject in ["web", "ops"] {
        assert_eq!(mesh.who_reaches(subject, 80, &OUTSIDE), ["web", "db", "ops", "other-source", "@host"]);
    }
    assert_eq!(mesh.ingress("us-web", "192.0.2.1", 80), "open");
    assert_eq!(mesh.ingress("db", "192.0.2.1", 80), "open");
}

#[test]
fn icmp_types() {
    let spec = "{endpointSelector: {}, ingress: [{icmps: [{fields: [{type: 8}, {type: 128, family: IPv6}]}]}]}";
    let mesh = Mesh::new(&cilium("a", spec));
    assert_eq!(mesh.judge("db", Direction::Ingress, "us-web", 1, 8), "allow");
    assert_eq!(mesh.judge("db", Direction::Ingress, "us-web", 1, 0), "default");
    assert_eq!(mesh.judge("db", Direction::Ingress, "us-web", 58, 128), "allow");
    assert_eq!(mesh.judge("db", Direction::Ingress, "us-web", 58, 8), "default");
    assert_eq!(mesh.ingress("db", "us-web", 8), "default");
}

#[test]
fn entries_are_few_and_say_why() {
    let spec = "{endpointSelector: {matchLabels: {app: db}}, ingress: [{fromEndpoints: [{matchLabels: {app: web, io.cilium.k8s.policy.cluster: us}}], toPorts: [{ports: [{port: '5432', protocol: TCP}]}]}, {fromCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.0/28]}]}], ingressDeny: [{fromEntities: [world], toPorts: [{ports: [{port: '22'}]}]}]}";
    let mesh = Mesh::new(&cilium("a", spec));
    let compiled = mesh.compiler().compile(mesh.identity("db"), mesh.labels("db"));
    assert!(compiled.enforce_ingress && !compiled.enforce_egress);
    let lines: Vec<String> = compiled
        .entries()
        .map(|(key, value)| {
            let block = key.block;
            let origin = match &value.origin {
                crate::policy::Origin::Rule(rule) => rule.to_string(),
                other => format!("{other:?}"),
            };
            format!(
                "{} {} {}/{}/{} {:?} {} {origin}",
                key.direction, key.peer, block.protocol, block.port, block.prefix, value.action, value.precedence
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn one_peer_more_or_less_changes_only_its_own_entries() {
    let spec = "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: web, io.cilium.k8s.policy.cluster: us}}]}], egress: [{toEndpoints: [{matchLabels: {app: web, io.cilium.k8s.policy.cluster: us}}]}]}";
    let mut mesh = Mesh::new(&cilium("a", spec));
    let (subject, peer) = (mesh.identity("db"), mesh.identity("us-web"));
    let labels = mesh.labels("db").clone();
    let full = mesh.compiler().compile(subject, &labels);
    let peer_labels = mesh.identities.remove(peer).unwrap();
    let mut policy = full.clone();
    let gone = policy.replace_peer(peer, mesh.compiler().entries_of_peer(&labels, peer));
    assert_eq!((gone.put.len(), gone.delete.len()), (0, 2));
    assert_eq!(policy, mesh.compiler().compile(subject, &labels));
    assert_eq!(full.changes_to(&policy).delete, gone.delete);
    mesh.identities.insert(peer, peer_labels);
    let back = policy.replace_peer(peer, mesh.compiler().entries_of_peer(&labels, peer));
    assert_eq!((back.put.len(), back.delete.len()), (2, 0));
    assert_eq!(policy, full);
}

#[test]
fn order_of_arrival_does_not_matter() {
    let (a, b) = (
        cilium("a", "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80'}]}]}]}"),
        cilium("b", "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80'}]}]}]}"),
    );
    let compile = |text: &str| {
        let mesh = Mesh::new(text);
        mesh.compiler().compile(mesh.identity("db"), mesh.labels("db"))
    };
    assert_eq!(compile(&format!("{a}{b}")), compile(&format!("{b}{a}")));
}

#[test]
fn blocks_inside_the_mesh_are_found() {
    let rule = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.64.3.0/24}}, {ipBlock: {cidr: 10.0.0.0/8}}]}]}";
    let mesh = Mesh::new(&network_policy("demo", rule));
    let owned = ["10.64.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()];
    let found: Vec<_> = mesh.policies.iter().flat_map(|policy| policy.cidrs_without_effect(&owned)).collect();
    assert_eq!(found, ["10.64.3.0/24".parse().unwrap()]);
}
