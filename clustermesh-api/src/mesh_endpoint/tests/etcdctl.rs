//! A real client of etcd: what it may see, and what it is told otherwise.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::world::{World, leaf, within};
use crate::pki::Role;
use crate::store::Transaction;
use crate::tls::Grant;

const VISIBLE: [&str; 5] = [
    "cilium/.heartbeat",
    "cilium/cluster-config/eu",
    "cilium/state/ip/v1/default/10.1.0.1",
    "cilium/state/nodes/v1/eu/n1",
    "cilium/synced/eu/cilium/state/nodes/v1",
];
const PRIVATE: [&str; 7] = [
    "fabric/tokens/secret",
    "fabric/links/us",
    "cilium/cache/ip/v1/us/10.2.0.1",
    "cilium/cluster-config/us",
    "cilium/cluster-config/eu2",
    "cilium/synced/us/cilium/cache/nodes/v1",
    "cilium/synced/eu2/cilium/state/nodes/v1",
];

struct Output {
    out: String,
    err: String,
    success: bool,
}

async fn etcdctl(credentials: &[String], arguments: &[&str]) -> Output {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(credentials).args(arguments).kill_on_drop(true);
    let output = within(command.output()).await.expect("etcdctl is installed");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { out: text(output.stdout), err: text(output.stderr), success: output.status.success() }
}

async fn filled() -> World {
    let world = World::start().await;
    for keys in [&VISIBLE[..], &PRIVATE[..]] {
        let write = |transaction: Transaction, key: &&str| transaction.put(key.to_string(), format!("value of {key}"));
        let transaction = keys.iter().fold(Transaction::new(), write);
        assert!(world.store.transact(transaction).await.unwrap().done().is_some());
    }
    world.settle().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_certificate_lists_what_is_meant_for_it_and_nothing_else_exists() {
    let world = filled().await;
    world.link(Some(Grant::Read));
    let readers = [
        ("admin", leaf(&world.eu, Role::Admin("root".to_owned()))),
        ("remote", leaf(&world.eu, Role::Remote("remote".to_owned()))),
        ("mirror", leaf(&world.us, Role::Api)),
    ];
    for (name, reader) in &readers {
        let credentials = world.etcdctl_arguments(name, reader);
        let mut seen = Vec::new();
        for prefix in ["cilium/.heartbeat", "cilium/state/", "cilium/synced/eu/"] {
            let listed = etcdctl(&credentials, &["get", "--prefix", "--keys-only", prefix]).await;
            assert!(listed.success, "{name} {prefix}: {}", listed.err);
            seen.extend(listed.out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>());
        }
        let config = etcdctl(&credentials, &["get", "cilium/cluster-config/eu"]).await;
        assert_eq!(config.out, "cilium/cluster-config/eu\nvalue of cilium/cluster-config/eu\n");
        seen.push("cilium/cluster-config/eu".to_owned());
        seen.sort_unstable();
        assert_eq!(seen, VISIBLE, "{name}");
        for key in PRIVATE {
            let denied = etcdctl(&credentials, &["get", key]).await;
            assert!(!denied.success && denied.out.is_empty(), "{name} {key}");
            assert!(denied.err.contains("etcdserver: permission denied"), "{name} {key}: {}", denied.err);
        }
        for range in
            [&["get", "--prefix", ""][..], &["get", "--from-key", "cilium/state/"], &["get", "--prefix", "cilium/"]]
        {
            let denied = etcdctl(&credentials, range).await;
            assert!(denied.err.contains("etcdserver: permission denied"), "{name} {range:?}: {}", denied.err);
            assert!(denied.out.is_empty());
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_refused_as_etcd_refuses() {
    let world = filled().await;
    let credentials = world.etcdctl_arguments("admin", &leaf(&world.eu, Role::Admin("root".to_owned())));
    let before = world.settle().await;
    let writes: [&[&str]; 12] = [
        &["put", "cilium/state/x", "1"],
        &["del", "cilium/state/nodes/v1/eu/n1"],
        &["del", "--prefix", "cilium/state/"],
        &["compact", "2"],
        &["lease", "grant", "60"],
        &["lease", "list"],
        &["member", "list"],
        &["user", "list"],
        &["role", "add", "x"],
        &["auth", "enable"],
        &["alarm", "list"],
        &["defrag"],
    ];
    for arguments in writes {
        let denied = etcdctl(&credentials, arguments).await;
        assert!(!denied.success, "{arguments:?}: {}", denied.out);
        assert!(denied.err.contains("etcdserver: permission denied"), "{arguments:?}: {}", denied.err);
    }
    assert_eq!(world.settle().await, before, "nothing was written");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_fail_the_handshake_and_the_ungranted_are_denied() {
    let world = filled().await;
    let foreign = world.etcdctl_arguments("foreign", &leaf(&world.stranger, Role::Api));
    let refused = etcdctl(&foreign, &["get", "cilium/.heartbeat"]).await;
    assert!(!refused.success && !refused.err.contains("permission denied"), "{}", refused.err);

    // Known authorities, no right to read: our own node; a cluster whose link is there without a grant.
    world.link(Some(Grant::None));
    let cases = [
        ("node", leaf(&world.eu, Role::Node("n1".parse().unwrap()))),
        ("machine", leaf(&world.eu, Role::Machine("vm".parse().unwrap()))),
        ("peer", leaf(&world.us, Role::Api)),
        ("peer-node", leaf(&world.us, Role::Node("n1".parse().unwrap()))),
    ];
    for (name, leaf) in &cases {
        let credentials = world.etcdctl_arguments(name, leaf);
        for arguments in [&["get", "cilium/.heartbeat"][..], &["put", "a", "b"], &["endpoint", "status"]] {
            let denied = etcdctl(&credentials, arguments).await;
            let text = format!("{}{}", denied.out, denied.err);
            assert!(text.contains("permission denied"), "{name} {arguments:?}: {text}");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_changes_as_they_happen() {
    let world = filled().await;
    let credentials = world.etcdctl_arguments("admin", &leaf(&world.eu, Role::Admin("root".to_owned())));
    let mut child = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(&credentials)
        .args(["watch", "--prefix", "--prev-kv", "--rev=2", "cilium/state/"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || within(lines.next_line()).await.unwrap().unwrap();
    // The past first.
    for key in ["cilium/state/ip/v1/default/10.1.0.1", "cilium/state/nodes/v1/eu/n1"] {
        assert_eq!(
            [next().await, next().await, next().await],
            ["PUT".to_owned(), key.to_owned(), format!("value of {key}")]
        );
    }
    world.store.put("fabric/private", "hidden").await.unwrap();
    world.store.put("cilium/state/nodes/v1/eu/n1", "new").await.unwrap();
    world.store.delete(&crate::store::KeyRange::key("cilium/state/nodes/v1/eu/n1")).await.unwrap();
    let key = "cilium/state/nodes/v1/eu/n1";
    let before = format!("value of {key}");
    for line in ["PUT", key, &before, key, "new", "DELETE", key, "new", key] {
        assert_eq!(next().await, line);
    }
    child.kill().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_health_as_tools_ask_for_them() {
    let mut world = filled().await;
    let credentials = world.etcdctl_arguments("admin", &leaf(&world.eu, Role::Admin("root".to_owned())));
    let health = etcdctl(&credentials, &["endpoint", "health"]).await;
    assert!(health.success && format!("{}{}", health.out, health.err).contains("is healthy"), "{}", health.err);
    let status = etcdctl(&credentials, &["endpoint", "status", "-w", "json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    let real = world.store.status().await.unwrap();
    let header = &status[0]["Status"]["header"];
    assert_eq!(header["cluster_id"], real.header.cluster_id);
    assert_eq!(header["member_id"], real.header.member_id);
    assert_eq!(header["revision"], real.header.revision);
    assert_eq!(header["raft_term"], real.header.raft_term);
    assert_eq!(status[0]["Status"]["version"], real.version.as_str());
    // With etcd gone the same is served, and the status says why it may be old.
    world.kill_etcd().await;
    within(world.view.status_changes().wait_for(|status| !status.available)).await.unwrap();
    let listed = etcdctl(&credentials, &["get", "--prefix", "--keys-only", "cilium/state/"]).await;
    assert!(listed.success && listed.out.contains("cilium/state/nodes/v1/eu/n1"), "{}", listed.err);
    world.stop().await;
}
