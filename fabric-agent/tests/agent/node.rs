//! A machine for the agent: a network namespace with an underlay device, its own pins, cgroup, state, workloads.

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clustermesh_api_proto::fabric::v1::local_client::LocalClient;
use fabric_core::config::NodeConfig;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::api::FakeApi;

/// Every node's address: each has a namespace of its own.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

pub(crate) struct Node {
    unique: String,
    dir: tempfile::TempDir,
    cgroup: PathBuf,
    machine: bool,
}

/// An agent that runs; killed by ending its tasks without a word.
pub(crate) struct Agent {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), fabric_agent::RunError>>,
}

impl Agent {
    /// Ends it at once. Its maps, links and devices stay, as after a kill.
    pub(crate) async fn kill(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

pub(crate) fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    eprintln!("skipped: needs root");
    false
}

/// Waits for a condition, with a deadline.
pub(crate) async fn wait_for<F: Future<Output = bool>>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) {
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < end, "waited {deadline:?} for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Node {
    pub(crate) fn new(test: &str) -> Self {
        Self::make(test, false)
    }

    pub(crate) fn machine(test: &str) -> Self {
        Self::make(test, true)
    }

    fn make(test: &str, machine: bool) -> Self {
        let unique = format!("fabagent-{test}-{}", std::process::id());
        let root = fabric_agent_datapath::probe::cgroup2_mount().expect("cgroup v2 is mounted");
        let cgroup = root.join(&unique);
        std::fs::create_dir(&cgroup).unwrap();
        let node = Self { unique, dir: tempfile::tempdir().unwrap(), cgroup, machine };
        run("ip", &["netns", "add", &node.unique]);
        node.ip("link set lo up");
        node.ip("link add eth0 mtu 1500 type veth peer name far0");
        node.ip("link set far0 up");
        node.ip("link set eth0 up");
        node.ip("addr add 192.0.2.1/24 dev eth0");
        node.ip("route add default via 192.0.2.254 dev eth0");
        node
    }

    pub(crate) fn is_machine(&self) -> bool {
        self.machine
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn config(&self, api: &FakeApi) -> NodeConfig {
        let text = serde_json::json!({
            "cluster": "eu",
            "name": "n1",
            "kind": if self.machine { "machine" } else { "node" },
            "addresses": [ADDRESS],
            "api_endpoints": [api.address],
            "state_dir": self.state_dir(),
            "run_dir": self.dir.path().join("run"),
            "bpf_dir": Path::new("/sys/fs/bpf").join(&self.unique),
            "cgroup": self.cgroup,
            "wireguard": {"socket_dir": self.dir.path().join("wg"), "mode": "user"},
        });
        serde_json::from_value(text).unwrap()
    }

    /// Runs the test's body inside the namespace, on a runtime whose threads are all there.
    pub(crate) fn run(&self, body: impl AsyncFnOnce(&Self) + Send) {
        let path = Path::new("/run/netns").join(&self.unique);
        let inside = || {
            let file = std::fs::File::open(&path).unwrap();
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(body(self));
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap();
    }

    pub(crate) fn start_agent(&self, api: &FakeApi) -> Agent {
        let _ = tracing_subscriber::fmt().with_env_filter("fabric_agent=debug").with_test_writer().try_init();
        let (config, stop) = (self.config(api), CancellationToken::new());
        let cancel = stop.clone();
        let task = tokio::spawn(async move {
            let outcome = fabric_agent::run(config, cancel).await;
            if let Err(error) = &outcome {
                eprintln!("the agent ended: {error:?}");
            }
            outcome
        });
        Agent { stop, task }
    }

    pub(crate) async fn try_local(&self) -> Option<LocalClient<Channel>> {
        fabric_agent::connect(&self.dir.path().join("run/agent.sock")).await.ok()
    }

    pub(crate) async fn local(&self) -> LocalClient<Channel> {
        self.try_local().await.expect("the agent answers")
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        let all: Vec<&str> = ["-n", &self.unique].into_iter().chain(arguments.split(' ')).collect();
        run("ip", &all)
    }

    fn workload(&self, name: &str) -> String {
        format!("{}-{name}", self.unique)
    }

    /// Path of a workload's namespace, made on first use.
    pub(crate) fn workload_netns(&self, name: &str) -> String {
        let netns = self.workload(name);
        let path = format!("/run/netns/{netns}");
        if !Path::new(&path).exists() {
            run("ip", &["netns", "add", &netns]);
        }
        path
    }

    pub(crate) fn remove_workload_netns(&self, name: &str) {
        run("ip", &["netns", "del", &self.workload(name)]);
    }

    pub(crate) fn ip_in(&self, name: &str, arguments: &str) -> String {
        let netns = self.workload(name);
        let all: Vec<&str> = ["-n", &netns].into_iter().chain(arguments.split(' ')).collect();
        run("ip", &all)
    }

    /// Whether the node gets an answer, within a few seconds.
    pub(crate) fn ping(&self, address: &str) -> bool {
        let arguments = ["netns", "exec", &self.unique, "ping", "-c", "1", "-W", "3", address];
        Command::new("ip").args(arguments).output().unwrap().status.success()
    }

    /// What the agent leaves is removed by its own clean-up, and then there is nothing.
    pub(crate) fn clean_up(self) {
        let config: serde_json::Value = serde_json::json!({
            "cluster": "eu", "name": "n1", "addresses": [ADDRESS], "api_endpoints": ["192.0.2.1:1"],
            "state_dir": self.state_dir(), "run_dir": self.dir.path().join("run"),
            "bpf_dir": Path::new("/sys/fs/bpf").join(&self.unique), "cgroup": self.cgroup,
            "wireguard": {"socket_dir": self.dir.path().join("wg"), "mode": "user"},
        });
        let config: NodeConfig = serde_json::from_value(config).unwrap();
        self.run(async |_| {
            fabric_agent::cleanup(&config).unwrap();
            fabric_agent::cleanup(&config).unwrap();
        });
        let links = self.ip("-o link show");
        assert!(!links.contains("fab"), "{links}");
        assert!(!self.ip("route show table all").contains("10.65."));
        assert!(!self.ip("rule").contains("2500") && !self.ip("-6 rule").contains("2500"));
        assert!(!Path::new("/sys/fs/bpf").join(&self.unique).exists());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let pins = Path::new("/sys/fs/bpf").join(&self.unique);
        let _ = fabric_agent_datapath::cleanup(&pins);
        for line in run("ip", &["netns", "list"]).lines() {
            let name = line.split(' ').next().unwrap_or_default();
            if name == self.unique || name.starts_with(&format!("{}-", self.unique)) {
                run("ip", &["netns", "del", name]);
            }
        }
        let _ = std::fs::remove_dir(&self.cgroup);
    }
}
