//! Real devices in namespaces made here; needs root.

use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A pair of named namespaces, gone with the value.
struct Lab {
    host: String,
    inside: String,
}

impl Lab {
    fn new(test: &str) -> Self {
        let unique = format!("{test}{}", std::process::id());
        let lab = Self { host: format!("fabtest-h-{unique}"), inside: format!("fabtest-i-{unique}") };
        for name in [&lab.host, &lab.inside] {
            assert!(Command::new("ip").args(["netns", "add", name]).status().unwrap().success());
        }
        lab
    }

    fn outside(&self, arguments: &str) -> String {
        ip(&self.host, arguments)
    }

    fn within(&self, arguments: &str) -> String {
        ip(&self.inside, arguments)
    }
}

fn netns(name: &str) -> Netns {
    Netns::open(&PathBuf::from("/run/netns").join(name)).unwrap()
}

fn ip(netns: &str, arguments: &str) -> String {
    let output = Command::new("ip").args(["-n", netns]).args(arguments.split(' ')).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.host, &self.inside] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    eprintln!("skipped: needs root");
    false
}

fn wiring() -> Wiring {
    Wiring {
        host_interface: "fab0123abcd".to_owned(),
        host_mac: "02:00:00:00:00:01".parse().unwrap(),
        interface: "eth0".to_owned(),
        mac: "02:00:00:00:00:02".parse().unwrap(),
        addresses: vec!["10.64.1.2".parse().unwrap(), "fdfa:1::2".parse().unwrap()],
        mtu: 1390,
        narrower: vec![("10.65.0.0/16".parse().unwrap(), 1300)],
        host_sources: Vec::new(),
    }
}

/// The node's side of a wiring, in the laboratory's host namespace. Sysctls of the host's side are written in the
/// caller's namespace, so all of it runs on a thread that is in the host namespace.
async fn in_host<T: Send + 'static>(lab: &Lab, work: impl AsyncFnOnce(Netlink, Netns) -> T + Send + 'static) -> T {
    let inside = netns(&lab.inside);
    netns(&lab.host)
        .run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // The thread has the outer runtime entered; block_on on a fresh one needs a thread of its own context.
            runtime.block_on(async move { work(Netlink::open().unwrap(), inside).await })
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_workload_gets_addresses_routes_neighbours_and_mtu() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("w");
    in_host(&lab, async |host, inside| {
        let link = wiring().make(&host, &inside).await.unwrap();
        assert!(!link.up, "the node's side must stay down until it is opened");
        wiring().open(&host, link.index).await.unwrap();
        // Again: nothing changes, the pair is kept.
        let again = wiring().make(&host, &inside).await.unwrap();
        assert_eq!(again.index, link.index);
        assert!(again.up);
    })
    .await;

    let link = lab.within("-o link show eth0");
    assert!(link.contains("mtu 1390") && link.contains("02:00:00:00:00:02"), "{link}");
    let addresses = lab.within("-o addr show dev eth0 scope global");
    assert!(addresses.contains("10.64.1.2/32") && addresses.contains("fdfa:1::2/128"), "{addresses}");
    assert!(!addresses.contains("tentative"), "{addresses}");
    let routes = lab.within("route");
    assert!(routes.contains("default via 169.254.1.1 dev eth0") && routes.contains("mtu 1390"), "{routes}");
    assert!(routes.contains("10.65.0.0/16 via 169.254.1.1 dev eth0") && routes.contains("mtu 1300"), "{routes}");
    let routes = lab.within("-6 route");
    assert!(routes.contains("default via fe80::1 dev eth0"), "{routes}");
    let neighbours = lab.within("neigh show nud permanent");
    for gateway in ["169.254.1.1 dev eth0", "fe80::1 dev eth0"] {
        assert!(neighbours.contains(&format!("{gateway} lladdr 02:00:00:00:00:01")), "{neighbours}");
    }
    let outside = lab.outside("route show table 2500") + &lab.outside("-6 route show table 2500");
    assert!(outside.contains("10.64.1.2 dev fab0123abcd"), "{outside}");
    assert!(outside.contains("fdfa:1::2 dev fab0123abcd"), "{outside}");
    let neighbours = lab.outside("neigh show nud permanent");
    assert!(neighbours.contains("10.64.1.2 dev fab0123abcd lladdr 02:00:00:00:00:02"), "{neighbours}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_changed_mtu_reaches_the_namespace_and_old_routes_go() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("m");
    in_host(&lab, async |host, inside| {
        wiring().make(&host, &inside).await.unwrap();
        let changed = Wiring { mtu: 1340, narrower: Vec::new(), ..wiring() };
        changed.make(&host, &inside).await.unwrap();
    })
    .await;
    assert!(lab.within("-o link show eth0").contains("mtu 1340"));
    assert!(lab.outside("-o link show fab0123abcd").contains("mtu 1340"));
    let routes = lab.within("route");
    assert!(routes.contains("mtu 1340") && !routes.contains("10.65.0.0/16"), "{routes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_foreign_device_of_that_name_is_left_alone() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("f");
    lab.within("link add eth0 type veth peer name other0");
    let refused = in_host(&lab, async |host, inside| wiring().make(&host, &inside).await).await;
    assert!(matches!(refused, Err(WiringError::NameTaken { .. })), "{refused:?}");
    assert!(lab.outside("-o link show").lines().all(|line| !line.contains("fab0123abcd")));
    assert!(lab.within("-o link show eth0").contains("eth0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn removing_the_nodes_side_removes_everything() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("d");
    in_host(&lab, async |host, inside| {
        let link = wiring().make(&host, &inside).await.unwrap();
        wiring().open(&host, link.index).await.unwrap();
        host.delete_link(link.index).await.unwrap();
        host.delete_link(link.index).await.unwrap();
    })
    .await;
    assert!(!lab.within("-o link show").contains("eth0"));
    assert!(!lab.outside("route show table all").contains("10.64.1.2"));
}
