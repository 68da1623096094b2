//! Bad documents. The snapshots are what a person reads; each must name place, reason and what to do.

use super::super::*;

/// Each document, a line of dashes, what is said.
fn say(cases: &[&str]) -> String {
    let answers = cases.iter().map(|text| match parse(text) {
        Ok(objects) => format!("ACCEPTED {:?}", objects.iter().map(|one| one.key().to_string()).collect::<Vec<_>>()),
        Err(error) => error.to_string(),
    });
    answers.collect::<Vec<String>>().join("\n")
}

fn network_policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: a\n  namespace: demo\nspec:\n  {spec}\n"
    )
}

fn cilium(spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: a\n  namespace: demo\nspec:\n  {spec}\n"
    )
}

fn service(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  {spec}\n")
}

fn each(wrap: fn(&str) -> String, specs: &[&str]) -> String {
    let texts: Vec<String> = specs.iter().map(|spec| wrap(spec)).collect();
    say(&texts.iter().map(String::as_str).collect::<Vec<&str>>())
}

#[test]
fn whole_documents() {
    insta::assert_snapshot!(say(&[
        "a: [1",
        "\tx: 1",
        "just text",
        "- a\n- b\n",
        "kind: Service\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
        "apiVersion: networking.k8s.io/v1beta1\nkind: NetworkPolicy\n",
        "apiVersion: v1\nkind: Service\nspec: {}\n",
        "apiVersion: v1\nkind: Service\nmetadata:\n",
        "apiVersion: v1\nkind: Service\nmetadata: {generateName: a-}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: A_b}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: x.y}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {-x: y}}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: 1}}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, anotations: {}}\n",
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: a, namespace: b}\n",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}}\n",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}}\nspecs: []\n",
    ]));
}

#[test]
fn network_policies() {
    insta::assert_snapshot!(each(
        network_policy,
        &[
            "{}",
            "podSelector:",
            "podSelector: []",
            "podSelector: {matchLabels: {app: 1}}",
            "podSelector: {matchLabels: {'app:x': y}}",
            "podSelector: {matchLabels: {io.cilium.k8s.policy.cluster: us}}",
            "podSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}",
            "podSelector: {matchExpressions: [{key: a, operator: In}]}",
            "podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}",
            "podSelector: {matchLabel: {app: x}}",
            "{podSelector: {}, policyTypes: [ingress]}",
            "{podSelector: {}, ingress: {}}",
            "{podSelector: {}, ingress: [{from: [{}]}]}",
            "{podSelector: {}, ingress: [{from: [{podSelector:}]}]}",
            "{podSelector: {}, ingress: [{to: []}]}",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/8}}]}]}",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}]}]}",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}",
            "{podSelector: {}, ingress: [{ports: [{port: http}]}]}",
            "{podSelector: {}, ingress: [{ports: [{port: '80'}]}]}",
            "{podSelector: {}, ingress: [{ports: [{port: 0}]}]}",
            "{podSelector: {}, ingress: [{ports: [{port: 70000}]}]}",
            "{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 79}]}]}",
            "{podSelector: {}, ingress: [{ports: [{endPort: 79}]}]}",
            "{podSelector: {}, ingress: [{ports: [{port: 80, protocol: ICMP}]}]}",
        ]
    ));
}

#[test]
fn cilium_policies() {
    insta::assert_snapshot!(each(
        cilium,
        &[
            "{}",
            "nodeSelector: {}",
            "{endpointSelector: {}, ingress: [{fromEndpoints: [{}], fromEntities: [world]}]}",
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}}]}]}",
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: []}]}]}",
            "{endpointSelector: {}, ingress: [{toPorts: [{}]}]}",
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: 80}]}]}]}",
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: http}]}]}]}",
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '99999'}]}]}]}",
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '8', protocol: ICMP}]}]}]}",
            "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: '443'}], terminatingTLS: {}}]}]}",
            "{endpointSelector: {}, ingress: [{icmps: [{fields: [{type: EchoRequest}]}]}]}",
            "{endpointSelector: {}, ingress: [{icmps: [{fields: [{type: 300}]}]}]}",
            "{endpointSelector: {}, ingress: [{authentication: {mode: required}}]}",
            "{endpointSelector: {}, ingress: [{fromRequires: [{}]}]}",
            "{endpointSelector: {}, ingress: [{fromEntities: [internet]}]}",
            "{endpointSelector: {}, ingress: [{toEndpoints: [{}]}]}",
            "{endpointSelector: {}, ingress: [{fromEndpoint: [{}]}]}",
            "{endpointSelector: {}, egress: [{toFQDNs: [{matchName: example.com}]}]}",
            "{endpointSelector: {}, egress: [{toServices: []}]}",
            "{endpointSelector: {}, egress: [{toGroups: []}]}",
            "{endpointSelector: {}, egress: [{toCIDRSet: [{cidrGroupRef: x}]}]}",
            "{endpointSelector: {}, egress: [{toCIDR: [10.0.0.0]}, {toCIDR: [ten]}]}",
            "{endpointSelector: {matchLabels: {k8s:io.kubernetes.pod.namespace: other}}}",
            "{endpointSelector: {matchLabels: {reserved:host: ''}}}",
            "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {reserved:hosts: ''}}]}]}",
            "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchExpressions: [{key: reserved:host, operator: DoesNotExist}]}]}]}",
            "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {reserved:host: '', app: x}}]}]}",
            "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {'cidr:10.0.0.0/8': ''}}]}]}",
            "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: US_1}}]}]}",
            "{endpointSelector: {}, enableDefaultDeny: {ingress: 'no'}}",
            "{endpointSelector: {}, enableDefaultDeny: {inbound: true}}",
        ]
    ));
}

#[test]
fn services_and_links() {
    let services = each(
        service,
        &[
            "{}",
            "{ports: [{port: 80, targetPort: http}]}",
            "{ports: [{port: 80}, {port: 81}]}",
            "{ports: [{name: a, port: 80}, {name: b, port: 80}]}",
            "{ports: [{port: 80, nodePort: 30000}]}",
            "{ports: [{port: 80}], type: LoadBalancer}",
            "{ports: [{port: 80}], sessionAffinity: ClientIP}",
            "{ports: [{port: 80}], internalTrafficPolicy: Local}",
            "{ports: [{port: 80}], externalIPs: [192.0.2.1]}",
            "{ports: [{port: 80}], clusterIP: 172.30.0.300}",
            "{ports: [{port: 80}], clusterIP: 172.30.0.3, clusterIPs: [172.30.0.4]}",
            "{ports: [{port: 80, protocol: udp}]}",
        ],
    );
    let noted = |note: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  annotations:\n    {note}\nspec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    let notes = [
        noted("service.cilium.io/global: true"),
        noted("service.cilium.io/global: 'yes'"),
        noted("io.cilium/service-affinity: near"),
        noted("service.cilium.io/lb-algorithm: maglev"),
    ];
    let notes = say(&notes.iter().map(String::as_str).collect::<Vec<_>>());
    let link = |spec: &str| {
        format!("apiVersion: fabric.io/v1alpha1\nkind: ClusterLink\nmetadata: {{name: us}}\nspec: {spec}\n")
    };
    let cluster = "cluster: {name: us, id: 9, prefixes: [10.73.0.0/16]}";
    let links = [
        link("{}"),
        link("{cluster: {name: eu, id: 9, prefixes: [10.73.0.0/16]}}"),
        link("{cluster: {name: us, id: 900, prefixes: [10.73.0.0/16]}}"),
        link("{cluster: {name: us, id: 9, prefixes: []}}"),
        link(&format!("{{{cluster}, authority: '-----BEGIN EC PRIVATE KEY-----'}}")),
        link(&format!("{{{cluster}, authority: '-----BEGIN CERTIFICATE-----', meshEndpoints: [example.com]}}")),
    ];
    let links = say(&links.iter().map(String::as_str).collect::<Vec<_>>());
    insta::assert_snapshot!([services, notes, links].join("\n"));
}
