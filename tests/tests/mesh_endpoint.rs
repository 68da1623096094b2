//! The mesh endpoint as `etcdctl` sees it: all that a remote may see, nothing else, and no write.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fabric_cli::context::Contexts;
use fabric_cli::lab::Output;
use fabric_tests::Mesh;
use serde_json::{Value, json};

/// Certificate files for etcdctl.
struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of_context(mesh: &Mesh, cluster: &str) -> Self {
        let contexts = Contexts::load(&mesh.demo.lab.dir().join("contexts")).unwrap();
        let context = contexts.pick(Some(cluster)).unwrap();
        let write = |name: &str, text: &str| mesh.demo.file(&format!("{cluster}-{name}"), text).unwrap();
        Self {
            authority: write("ca.pem", &context.authority_pem),
            certificate: write("cert.pem", &context.certificate_pem),
            key: write("key.pem", &context.key_pem),
        }
    }
}

fn etcdctl(mesh: &Mesh, files: &Files, args: &[&str]) -> Output {
    let path = |p: &Path| p.display().to_string();
    let node = mesh.node("eu1").unwrap().addresses().v4;
    let endpoint = format!("https://{node}:2379");
    let (ca, cert, key) = (path(&files.authority), path(&files.certificate), path(&files.key));
    let mut all =
        vec!["ETCDCTL_API=3", "etcdctl", "--endpoints", &endpoint, "--cacert", &ca, "--cert", &cert, "--key", &key];
    all.extend(args);
    mesh.demo.lab.try_exec(mesh.demo.operator.namespace(), "env", &all).unwrap()
}

const CART: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, annotations: {service.cilium.io/global: 'true'}}
spec:
  selector: {app: cart}
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
";

#[test]
fn remote_sees_exactly_what_the_wire_says() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let cart = mesh.workload("eu1", "cart", "cart").unwrap();
    mesh.apply("eu", CART).unwrap();
    let files = Files::of_context(&mesh, "eu");
    let identity = cart.identity;
    let mut wanted: BTreeSet<String> = [
        "cilium/cluster-config/eu".to_owned(),
        format!("cilium/state/identities/v1/id/{identity}"),
        format!("cilium/state/ip/v1/default/{}", cart.v4),
        format!("cilium/state/ip/v1/default/{}", cart.v6),
        "cilium/state/nodes/v1/eu/eu1".to_owned(),
        "cilium/state/services/v1/eu/shop/cart".to_owned(),
    ]
    .into();
    for kind in ["nodes", "identities", "ip", "services"] {
        wanted.insert(format!("cilium/synced/eu/cilium/state/{kind}/v1"));
    }
    mesh.wait("the service is published", || {
        Ok(values(&mesh, &files, "cilium/state/services/").first().is_some_and(|v| v.contains(&cart.v4)).then_some(()))
    })
    .unwrap();
    let mut seen = BTreeSet::new();
    // The cluster's configuration is granted as one key, not as a prefix.
    for range in [&["--prefix", "cilium/state/"][..], &["cilium/cluster-config/eu"], &["--prefix", "cilium/synced/eu/"]]
    {
        let out = etcdctl(&mesh, &files, &[&["get", "--keys-only"], range].concat());
        assert_eq!(out.code, 0, "{out:?}");
        seen.extend(out.stdout.lines().filter(|l| !l.is_empty()).map(str::to_owned));
    }
    assert_eq!(seen, wanted);
    values_have_ciliums_shape(&mesh, &files, &cart);
    nothing_private_is_visible(&mesh, &files);
    writes_are_refused(&mesh, &files);
}

fn values(mesh: &Mesh, files: &Files, prefix: &str) -> Vec<String> {
    let out = etcdctl(mesh, files, &["get", "--prefix", "--print-value-only", prefix]);
    assert_eq!(out.code, 0, "{out:?}");
    out.stdout.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

fn value(mesh: &Mesh, files: &Files, key: &str) -> Value {
    let out = etcdctl(mesh, files, &["get", "--print-value-only", key]);
    assert_eq!(out.code, 0, "{out:?}");
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{key}: {e}: {out:?}"))
}

/// Field for field, as a real writer's.
fn values_have_ciliums_shape(mesh: &Mesh, files: &Files, cart: &fabric_tests::Workload<'_>) {
    let config = value(mesh, files, "cilium/cluster-config/eu");
    let id = config["id"].as_u64().unwrap();
    assert_eq!(config["capabilities"]["syncedCanaries"], true, "{config}");
    assert_eq!(config["capabilities"]["maxConnectedClusters"], 255, "{config}");
    assert_eq!(u64::from(cart.identity >> 16), id);
    let node_ip = mesh.node("eu1").unwrap().addresses().v4.to_string();
    let ip = value(mesh, files, &format!("cilium/state/ip/v1/default/{}", cart.v4));
    let wanted = json!({
        "IP": cart.v4, "Mask": null, "HostIP": node_ip, "ID": cart.identity, "Key": 255, "Metadata": "",
        "K8sNamespace": "shop", "K8sPodName": "cart",
    });
    assert_eq!(ip, wanted);
    let node = value(mesh, files, "cilium/state/nodes/v1/eu/eu1");
    for (field, wanted) in
        [("Name", json!("eu1")), ("Cluster", json!("eu")), ("ClusterID", json!(id)), ("EncryptionKey", json!(255))]
    {
        assert_eq!(node[field], wanted, "{node}");
    }
    assert_eq!(node["WireguardPubKey"].as_str().unwrap().len(), 44, "{node}");
    assert!(
        node["IPAddresses"].to_string().contains(&format!("{{\"Type\":\"InternalIP\",\"IP\":\"{node_ip}\"}}"))
            || node["IPAddresses"].to_string().contains(&format!("{{\"IP\":\"{node_ip}\",\"Type\":\"InternalIP\"}}")),
        "{node}"
    );
    let labels = &values(mesh, files, "cilium/state/identities/")[0];
    assert_eq!(labels, "k8s:app=cart;k8s:io.cilium.k8s.policy.cluster=eu;k8s:io.kubernetes.pod.namespace=shop;");
    let service = value(mesh, files, "cilium/state/services/v1/eu/shop/cart");
    assert_eq!(service["backends"][&cart.v4]["http"], json!({"Protocol": "TCP", "Port": 8080}), "{service}");
    assert_eq!((&service["shared"], &service["includeExternal"]), (&json!(true), &json!(true)), "{service}");
    assert!(!values(mesh, files, "cilium/.heartbeat").is_empty());
}

/// The store holds much more; for a remote it is not there, by whatever range it is asked for.
fn nothing_private_is_visible(mesh: &Mesh, files: &Files) {
    for range in
        [vec!["--prefix", ""], vec!["--prefix", "fabric/"], vec!["--from-key", ""], vec!["--prefix", "cilium/cache/"]]
    {
        let mut args = vec!["get", "--keys-only"];
        args.extend(range);
        let out = etcdctl(mesh, files, &args);
        assert_ne!(out.code, 0, "{out:?}");
        assert!(out.stderr.contains("etcdserver: permission denied"), "{out:?}");
    }
}

fn writes_are_refused(mesh: &Mesh, files: &Files) {
    for args in [
        vec!["put", "cilium/state/nodes/v1/eu/evil", "{}"],
        vec!["del", "cilium/cluster-config/eu"],
        vec!["lease", "grant", "60"],
        vec!["compaction", "1"],
        vec!["user", "list"],
        vec!["member", "list"],
    ] {
        let out = etcdctl(mesh, files, &args);
        assert_ne!(out.code, 0, "{args:?}: {out:?}");
        assert!(out.stderr.contains("permission denied"), "{args:?}: {out:?}");
    }
}

#[test]
fn strangers_do_not_get_in_and_the_known_without_a_grant_read_nothing() {
    let mesh = Mesh::start(1, "vxlan", true).unwrap();
    let own = Files::of_context(&mesh, "eu");
    let foreign = Files::of_context(&mesh, "us");
    let stranger = Files { authority: own.authority.clone(), ..foreign };
    let out = etcdctl(&mesh, &stranger, &["--command-timeout=3s", "get", "--prefix", "cilium/state/"]);
    assert_ne!(out.code, 0, "{out:?}");
    assert!(!out.stderr.contains("permission denied"), "a foreign authority passed the handshake: {out:?}");
    // A node of the own cluster is known, but it has no business here.
    let pki = mesh.node("eu1").unwrap().dir().join("state/pki");
    let node = Files { authority: own.authority, certificate: pki.join("node.crt"), key: pki.join("node.key") };
    let out = etcdctl(&mesh, &node, &["get", "--prefix", "cilium/state/"]);
    assert_ne!(out.code, 0, "{out:?}");
    assert!(out.stderr.contains("etcdserver: permission denied"), "{out:?}");
}
