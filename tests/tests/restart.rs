//! Processes die; packets do not.

use std::time::Duration;

use fabric_cli::lab::signal;
use fabric_tests::traffic::Pinged;
use fabric_tests::{Capture, Mesh, Workload, mesh, traffic};

const CLEAR: &str = "!(udp.port == 51871 || tcp.port in {2379, 4250, 4244} || arp || icmpv6.type >= 133)";

struct Scene<'a> {
    mesh: &'a Mesh,
    eu: Workload<'a>,
    us: Workload<'a>,
    _echo: fabric_cli::lab::Process,
}

fn scene(mesh: &Mesh) -> Scene<'_> {
    let (eu, us) =
        (mesh.workload("eu1", "client", "client").unwrap(), mesh.workload("us1", "server", "server").unwrap());
    let echo = traffic::echo(&us).unwrap();
    mesh.wait("us answers", || Ok(mesh::reaches(&eu, &us.v4)?.then_some(()))).unwrap();
    Scene { mesh, eu, us, _echo: echo }
}

impl Scene<'_> {
    /// 1,000 packets a second and a TCP connection while `happens`; nothing may leave in clear.
    fn under_traffic(&self, seconds: f64, happens: impl FnOnce()) -> Pinged {
        let lab = &self.mesh.demo.lab;
        let mut capture = Capture::start(lab, self.mesh.demo.underlay.router(), "br-eu", "not udp port 51871").unwrap();
        let pings = traffic::ping(&self.eu, &self.us.v4, 1000, seconds).unwrap();
        let stream = traffic::stream(&self.eu, &self.us.v4, seconds).unwrap();
        happens();
        let within = Duration::from_secs_f64(seconds + 20.0);
        let seen = traffic::pinged(pings, within).unwrap();
        let lived = stream.finish(within);
        assert!(lived.is_ok(), "the TCP connection died: {lived:?}");
        capture.stop().unwrap();
        assert_eq!(capture.count(CLEAR).unwrap(), 0, "{}", capture.describe(CLEAR).unwrap());
        seen
    }

    /// Kills a process of a node and waits until another is in its place.
    fn kill(&self, node: &str, process: &str) {
        let node = self.mesh.node(node).unwrap();
        let old = node.signal(process, "KILL").unwrap();
        let back = || Ok(node.pid(process).ok().filter(|new| *new != old));
        self.mesh.wait(&format!("{process} is back"), back).unwrap();
    }
}

#[test]
fn killed_agent_loses_nothing() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let scene = scene(&mesh);
    let seen = scene.under_traffic(8.0, || {
        scene.kill("eu1", "agent");
        scene.kill("us1", "agent");
    });
    assert_eq!(seen.lost, 0, "{seen:?}");
    // And the agents that came back still do their work.
    let late = mesh.workload("us1", "late", "late").unwrap();
    mesh.wait("a new workload is reached", || Ok(mesh::reaches(&scene.eu, &late.v4)?.then_some(()))).unwrap();
}

#[test]
fn killed_api_and_etcd_lose_nothing() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let scene = scene(&mesh);
    let seen = scene.under_traffic(12.0, || {
        scene.kill("eu1", "api");
        kill_etcd(&mesh, "us1");
    });
    assert_eq!(seen.lost, 0, "{seen:?}");
    let late = mesh.workload("us1", "late", "late").unwrap();
    mesh.wait("a new workload is reached", || Ok(mesh::reaches(&scene.eu, &late.v4)?.then_some(()))).unwrap();
}

/// etcd is a child of the API; it comes back by itself.
fn kill_etcd(mesh: &Mesh, node: &str) {
    let node = mesh.node(node).unwrap();
    let old = etcd(node).expect("etcd runs");
    signal(old, "KILL").unwrap();
    mesh.wait("etcd is back", || Ok(etcd(node).filter(|new| *new != old))).unwrap();
}

fn etcd(node: &fabric_cli::lab::Node) -> Option<u32> {
    let api = node.pid("api").ok()?.to_string();
    let out = fabric_cli::lab::run("pgrep", &["-P", &api, "-x", "etcd"]).ok()?;
    out.stdout.lines().next()?.trim().parse().ok()
}

#[test]
fn killed_wireguard_engine_leaks_nothing_and_is_back_within_two_seconds() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let scene = scene(&mesh);
    let seen = scene.under_traffic(8.0, || scene.kill("eu1", "wireguard"));
    assert!(seen.longest_gap_ms < 2000, "{seen:?}");
    assert!(seen.lost > 0, "the engine was not in the path: {seen:?}");
}

#[test]
fn stopped_control_planes_change_nothing_on_the_wire() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let scene = scene(&mesh);
    let mut stopped = Vec::new();
    for node in ["eu1", "us1"] {
        let node = mesh.node(node).unwrap();
        stopped.extend([node.pid("api").unwrap(), etcd(node).unwrap()]);
    }
    let seen = scene.under_traffic(60.0, || stopped.iter().for_each(|pid| signal(*pid, "STOP").unwrap()));
    stopped.iter().for_each(|pid| signal(*pid, "CONT").unwrap());
    assert_eq!(seen.lost, 0, "{seen:?}");
    let late = mesh.workload("us1", "late", "late").unwrap();
    mesh.wait("the control planes go on", || Ok(mesh::reaches(&scene.eu, &late.v4)?.then_some(()))).unwrap();
}
