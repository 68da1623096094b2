//! Real rules in namespaces made here; needs root.

use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::sys::netns::Netns;

/// A named namespace, gone with the value.
struct Lab(String);

impl Lab {
    fn new(test: &str) -> Self {
        let lab = Self(format!("fabtest-r-{test}{}", std::process::id()));
        assert!(Command::new("ip").args(["netns", "add", &lab.0]).status().unwrap().success());
        lab
    }

    async fn netlink(&self) -> Netlink {
        let netns = Netns::open(&PathBuf::from("/run/netns").join(&self.0)).unwrap();
        Netlink::open_in(&netns).await.unwrap()
    }

    fn ip(&self, arguments: &str) -> String {
        let output = Command::new("ip").args(["-n", &self.0]).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Lines about table 2500, or of our protocol number.
    fn ours(&self, family: &str) -> Vec<String> {
        let all = self.ip(&format!("{family} rule"));
        all.lines().filter(|line| line.contains("2500") || line.contains("proto 250")).map(str::to_owned).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    eprintln!("skipped: needs root");
    false
}

const RULE: &str = "100:\tnot from all fwmark 0x100/0xf00 lookup 2500 proto 250";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn there_is_one_rule_per_family_however_often_it_is_asked_for() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("o");
    let netlink = lab.netlink().await;
    for _ in 0..2 {
        netlink.ensure_rules().await.unwrap();
        assert_eq!((lab.ours("-4"), lab.ours("-6")), (vec![RULE.to_owned()], vec![RULE.to_owned()]));
    }
    netlink.delete_rules().await.unwrap();
    netlink.delete_rules().await.unwrap();
    assert!(lab.ours("-4").is_empty() && lab.ours("-6").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rules_of_ours_that_differ_go_and_those_of_others_stay() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("d");
    for family in ["-4", "-6"] {
        for wrong in [
            "from all lookup 2500 priority 100",
            "not fwmark 0x100/0xf00 lookup 2500 priority 90",
            "not fwmark 0x100/0xf00 iif lo lookup 2500 priority 100",
            "not fwmark 0x100/0xf00 lookup 2500 priority 100 suppress_prefixlength 0",
        ] {
            lab.ip(&format!("{family} rule add {wrong} protocol 250"));
        }
        lab.ip(&format!("{family} rule add from all fwmark 0x1 lookup 2500 priority 7 protocol 4"));
    }
    let netlink = lab.netlink().await;
    netlink.ensure_rules().await.unwrap();
    for family in ["-4", "-6"] {
        let rules = lab.ours(family);
        assert_eq!(rules.len(), 2, "{rules:?}");
        assert!(rules[0].starts_with("7:") && rules[1] == RULE, "{rules:?}");
        // Behind the right one, and what the kernel takes for it when asked to remove it.
        lab.ip(&format!("{family} rule add from all lookup 2500 priority 100 protocol 250"));
    }
    for rest in [3, 2] {
        for family in ["-4", "-6"] {
            assert_eq!(lab.ours(family).len(), rest, "{:?}", lab.ours(family));
            assert!(lab.ours(family).contains(&RULE.to_owned()), "{:?}", lab.ours(family));
        }
        netlink.ensure_rules().await.unwrap();
        netlink.ensure_rules().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_packet_for_the_underlay_passes_over_mesh_routes() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("l");
    lab.ip("link add mesh0 type veth peer name under0");
    for device in ["mesh0", "under0"] {
        lab.ip(&format!("link set {device} up"));
    }
    let netlink = lab.netlink().await;
    netlink.ensure_rules().await.unwrap();
    let mesh = netlink.existing_link("mesh0").await.unwrap().index;
    for (prefix, within, everything) in
        [("10.65.0.0/16", "10.65.1.2", "0.0.0.0/0"), ("fdfa:2::/48", "fdfa:2::2", "::/0")]
    {
        lab.ip(&format!("route add {everything} dev under0"));
        let route = super::super::Route::device(prefix.parse().unwrap(), mesh);
        netlink.replace_route(&route).await.unwrap();
        assert!(netlink.own_routes().await.unwrap().contains(&route), "{prefix}");
        assert!(lab.ip(&format!("route get {within}")).contains("dev mesh0"), "{within}");
        assert!(lab.ip(&format!("route get {within} mark 0xf00")).contains("dev mesh0"), "{within}");
        assert!(lab.ip(&format!("route get {within} mark 0x100")).contains("dev under0"), "{within}");
        netlink.delete_route(&route).await.unwrap();
        assert!(netlink.own_routes().await.unwrap().is_empty(), "{prefix}");
    }
}
