//! A machine enrolled as a workload.

use std::time::{Duration, Instant};

use fabric_tests::{Mesh, Workload, mesh, traffic};

const ONLY_FRONT: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db-in, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: front, io.cilium.k8s.policy.cluster: us}}]
";

fn token(mesh: &Mesh, name: &str, ttl: &str) -> String {
    let args =
        ["token", "create", "--name", name, "-n", "shop", "--labels", "app=db", "--ttl", ttl, "--context", "eu", "-q"];
    mesh.ops(&args).unwrap().trim().to_owned()
}

/// The machine as a workload; its addresses are what the cluster allotted.
fn joined(mesh: &Mesh) -> Workload<'_> {
    let token = token(mesh, "vm1", "1h");
    mesh.demo.join(&mesh.demo.vm, &token, None).unwrap();
    mesh.demo.wait_ready(&mesh.demo.vm).unwrap();
    let nodes = mesh.items(&["node", "list", "--context", "eu"]).unwrap();
    let vm = nodes.iter().find(|n| n["name"] == "vm1").expect("the machine is listed");
    let ranges: Vec<&str> = vm["ranges"].as_array().unwrap().iter().filter_map(|r| r.as_str()).collect();
    let of =
        |v6: bool| ranges.iter().find(|r| r.contains(':') == v6).and_then(|r| r.split('/').next()).unwrap().to_owned();
    let identities = mesh.items(&["identity", "list", "--context", "eu"]).unwrap();
    let own =
        identities.iter().find(|i| i["labels"].to_string().contains("k8s:app=db")).expect("its identity is listed");
    Workload {
        node: &mesh.demo.vm,
        namespace: mesh.demo.vm.namespace().to_owned(),
        identity: u32::try_from(own["id"].as_u64().unwrap()).unwrap(),
        v4: of(false),
        v6: of(true),
        mtu: 0,
    }
}

#[test]
fn one_command_makes_a_machine_a_workload_that_is_reached_and_policed_both_ways() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let front = mesh.workload("us1", "front", "front").unwrap();
    let other = mesh.workload("us1", "other", "other").unwrap();
    let vm = joined(&mesh);
    let _echo = traffic::echo(&vm).unwrap();
    for from in [&front, &other] {
        for address in [&vm.v4, &vm.v6] {
            mesh.wait("the machine answers", || Ok(mesh::reaches(from, address)?.then_some(()))).unwrap();
        }
        traffic::transfer(from, &vm.v4, 1_000_000).unwrap();
    }
    mesh.wait("the machine reaches others", || Ok(mesh::reaches(&vm, &front.v4)?.then_some(()))).unwrap();
    mesh.apply("eu", ONLY_FRONT).unwrap();
    mesh.wait("others are denied", || Ok((!mesh::reaches(&other, &vm.v4)?).then_some(()))).unwrap();
    assert!(mesh::reaches(&front, &vm.v4).unwrap());
    let egress =
        ONLY_FRONT.replace("db-in", "db-out").replace("ingress:", "egress:").replace("fromEndpoints", "toEndpoints");
    mesh.apply("eu", &egress).unwrap();
    mesh.wait("it may not reach others either", || Ok((!mesh::reaches(&vm, &other.v4)?).then_some(()))).unwrap();
    assert!(mesh::reaches(&vm, &front.v4).unwrap());
    revoked_machine_is_gone_everywhere(&mesh, &front, &vm);
}

fn revoked_machine_is_gone_everywhere(mesh: &Mesh, front: &Workload<'_>, vm: &Workload<'_>) {
    mesh.ops(&["node", "revoke", "vm1", "--context", "eu"]).unwrap();
    let revoked = Instant::now();
    mesh.wait("it is not reached any more", || Ok((!mesh::reaches(front, &vm.v4)?).then_some(()))).unwrap();
    for cluster in ["eu", "us"] {
        mesh.wait("it is listed nowhere", || {
            let nodes = mesh.items(&["node", "list", "--context", cluster])?;
            Ok((!nodes.iter().any(|n| n["name"] == "vm1")).then_some(()))
        })
        .unwrap();
    }
    // One ping waits for up to a second before it says that there is no answer.
    let took = revoked.elapsed();
    assert!(took < Duration::from_secs(3), "gone after {took:?}");
}

#[test]
fn token_works_once_and_not_for_ever_and_says_why() {
    let mesh = Mesh::start(1, "vxlan", true).unwrap();
    let used = token(&mesh, "vm1", "1h");
    mesh.demo.join(&mesh.demo.vm, &used, None).unwrap();
    mesh.demo.wait_ready(&mesh.demo.vm).unwrap();
    let again = mesh.demo.operator.fabric(&join_flags(&mesh, &used)).unwrap();
    assert_eq!(again.code, 4, "{again:?}");
    assert!(again.stderr.contains("FAB-3103"), "{again:?}");
    let short = token(&mesh, "vm2", "1s");
    let made = Instant::now();
    mesh.wait("a second and more has passed", || Ok((made.elapsed() > Duration::from_millis(1500)).then_some(())))
        .unwrap();
    let late = mesh.demo.operator.fabric(&join_flags(&mesh, &short)).unwrap();
    assert_eq!(late.code, 4, "{late:?}");
    assert!(late.stderr.contains("FAB-3102"), "{late:?}");
    let mangled = format!("{}x", &used[..used.len() - 1]);
    let bad = mesh.demo.operator.fabric(&join_flags(&mesh, &mangled)).unwrap();
    assert_eq!(bad.code, 2, "{bad:?}");
    assert!(bad.stderr.contains("FAB-3101"), "{bad:?}");
}

fn join_flags<'a>(mesh: &'a Mesh, token: &'a str) -> Vec<&'a str> {
    let flags: Vec<String> = mesh.demo.operator.place_flags();
    let flags: &'static [String] = Box::leak(flags.into_boxed_slice());
    ["join", token, "--foreground"].into_iter().chain(flags.iter().map(String::as_str)).collect()
}
