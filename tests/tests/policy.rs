//! Policy on identities, across clusters.

use std::time::{Duration, Instant};

use fabric_tests::{Mesh, Workload, mesh, traffic};
use serde_json::Value;

const ONLY_FRONT_OF_EU: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: back-in, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: back}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: front, io.cilium.k8s.policy.cluster: eu}}]
";

const DENY_FRONT_OF_EU: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: back-deny, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: back}}
  ingressDeny:
  - fromEndpoints: [{matchLabels: {app: front, io.cilium.k8s.policy.cluster: eu}}]
";

const NOBODY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: shop}
spec:
  podSelector: {matchLabels: {app: back}}
  policyTypes: [Ingress]
";

#[test]
fn policy_on_the_remote_clusters_name_and_labels() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let front = mesh.workload("eu1", "front", "front").unwrap();
    let other = mesh.workload("eu1", "other", "other").unwrap();
    let neighbour = mesh.workload("us1", "neighbour", "front").unwrap();
    let back = mesh.workload("us1", "back", "back").unwrap();
    for from in [&front, &other, &neighbour] {
        mesh.wait("everybody reaches it without a policy", || Ok(mesh::reaches(from, &back.v4)?.then_some(())))
            .unwrap();
    }
    mesh.apply("us", ONLY_FRONT_OF_EU).unwrap();
    for from in [&other, &neighbour] {
        mesh.wait("others are denied", || Ok((!mesh::reaches(from, &back.v4)?).then_some(()))).unwrap();
    }
    assert!(mesh::reaches(&front, &back.v4).unwrap(), "front of eu is allowed on IPv4");
    assert!(mesh::reaches(&front, &back.v6).unwrap(), "front of eu is allowed on IPv6");
    assert!(!mesh::reaches(&other, &back.v6).unwrap(), "other of eu is denied on IPv6 too");
    // What the policy does not select stays as it was, and so does the way back of allowed flows.
    assert!(mesh::reaches(&back, &other.v4).unwrap(), "a reply follows its forward flow");
    shows_in_observe(&mesh, &other, &back);
    mesh.ops(&["delete", "cnp", "back-in", "-n", "shop", "--context", "us"]).unwrap();
    mesh.wait("all is allowed again", || Ok(mesh::reaches(&other, &back.v4)?.then_some(()))).unwrap();
}

/// The drop is at the right end, with reason 133 and both sides' labels.
fn shows_in_observe(mesh: &Mesh, from: &Workload<'_>, to: &Workload<'_>) {
    let args = ["observe", "--context", "us", "--verdict", "DROPPED", "--last", "200", "-o", "jsonl"];
    let drop = mesh.wait("the drop shows", || {
        let flows = mesh.ops(&args)?;
        let flows = flows.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        Ok(flows.into_iter().find(|f| f.pointer("/flow/IP/source") == Some(&Value::from(from.v4.as_str()))))
    });
    let drop = drop.unwrap();
    let at = |path: &str| drop.pointer(path).cloned().unwrap_or_default();
    assert_eq!(at("/flow/drop_reason"), 133, "{drop}");
    assert_eq!(at("/flow/traffic_direction"), "INGRESS", "{drop}");
    assert!(at("/flow/node_name").as_str().unwrap().ends_with("us1"), "{drop}");
    assert_eq!(at("/flow/source/identity"), from.identity, "{drop}");
    assert_eq!(at("/flow/destination/identity"), to.identity, "{drop}");
    assert!(at("/flow/source/labels").to_string().contains("app=other"), "{drop}");
    assert!(at("/flow/destination/labels").to_string().contains("app=back"), "{drop}");
}

#[test]
fn a_policy_change_reaches_live_connections_within_a_second() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let front = mesh.workload("eu1", "front", "front").unwrap();
    let back = mesh.workload("us1", "back", "back").unwrap();
    let _echo = traffic::echo(&back).unwrap();
    mesh.wait("back answers", || Ok(mesh::reaches(&front, &back.v4)?.then_some(()))).unwrap();
    let (seconds, started) = (6.0, Instant::now());
    let pings = traffic::ping(&front, &back.v4, 1000, seconds).unwrap();
    mesh.apply("us", DENY_FRONT_OF_EU).unwrap();
    let applied = started.elapsed().as_secs_f64();
    let seen = traffic::pinged(pings, Duration::from_secs(20)).unwrap();
    // A flow that was established before is cut as well: all that came later than a second is lost.
    let at_least = ((seconds - applied - 1.0) * 1000.0) as u64;
    assert!(at_least > 1000, "applying took {applied} s: nothing was measured");
    assert!(seen.lost >= at_least, "the live flow went on: {seen:?}, applied after {applied} s");
    assert!(!mesh::reaches(&front, &back.v4).unwrap());
}

#[test]
fn kubernetes_default_deny_begins_with_the_first_policy_that_selects() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let front = mesh.workload("eu1", "front", "front").unwrap();
    let back = mesh.workload("us1", "back", "back").unwrap();
    let unselected = mesh.workload("us1", "free", "free").unwrap();
    mesh.wait("back answers", || Ok(mesh::reaches(&front, &back.v4)?.then_some(()))).unwrap();
    mesh.apply("us", NOBODY).unwrap();
    mesh.wait("back is closed", || Ok((!mesh::reaches(&front, &back.v4)?).then_some(()))).unwrap();
    assert!(mesh::reaches(&front, &unselected.v4).unwrap(), "a policy closes what it selects, no more");
    assert!(mesh::reaches(&back, &front.v4).unwrap(), "a policy on ingress leaves egress open");
}

#[test]
fn egress_policy_is_enforced_at_the_sender() {
    let mesh = Mesh::connected(1, "geneve", true).unwrap();
    let front = mesh.workload("eu1", "front", "front").unwrap();
    let back = mesh.workload("us1", "back", "back").unwrap();
    let other = mesh.workload("us1", "other", "other").unwrap();
    mesh.wait("back answers", || Ok(mesh::reaches(&front, &back.v4)?.then_some(()))).unwrap();
    let only_back = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: front-out, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: front}}
  egress:
  - toEndpoints: [{matchLabels: {app: back, io.cilium.k8s.policy.cluster: us}}]
";
    mesh.apply("eu", only_back).unwrap();
    mesh.wait("others are denied", || Ok((!mesh::reaches(&front, &other.v4)?).then_some(()))).unwrap();
    assert!(mesh::reaches(&front, &back.v4).unwrap());
    assert!(mesh::reaches(&other, &front.v4).unwrap(), "egress policy does not close ingress");
}
