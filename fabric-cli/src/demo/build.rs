//! Builds the demo's machines and starts the clusters on them, with the commands of `docs/quickstart.md`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Plan;
use crate::lab::{Lab, Node, NodeSpec, Process, Underlay, wait_until};

/// Names that people can tell apart; as many as there may be clusters.
const NAMES: [&str; 4] = ["eu", "us", "ap", "sa"];

/// Name of the enrolled machine.
pub const VM: &str = "vm1";

/// An Internet-like underlay.
const MTU: u32 = 1500;

/// What a machine takes to come up, at the most.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(30);

/// A cluster of the demo.
#[derive(Debug)]
pub struct Cluster {
    /// `eu`, `us`, …
    pub name: &'static str,
    /// Its nodes; the API runs on the first.
    pub nodes: Vec<Node>,
}

/// All machines; dropping it removes them.
#[derive(Debug)]
pub struct Demo {
    /// In the order of [`NAMES`].
    pub clusters: Vec<Cluster>,
    /// A machine on a link of its own, not enrolled yet.
    pub vm: Node,
    /// Where commands are typed.
    pub operator: Node,
    /// Between all of them.
    pub underlay: Underlay,
    /// Everything's owner.
    pub lab: Lab,
    processes: std::sync::Mutex<Vec<Process>>,
}

impl Demo {
    /// Makes the machines; nothing of Fabric runs yet.
    ///
    /// # Errors
    /// When not root, or `ip` refuses.
    pub fn new(plan: &Plan) -> Result<Self> {
        Self::with_executable(plan, &std::env::current_exe().context("cannot find our own executable")?)
    }

    /// The same with another executable than our own.
    ///
    /// # Errors
    /// As [`Demo::new`].
    pub fn with_executable(plan: &Plan, fabric: &Path) -> Result<Self> {
        let mut lab = Lab::new("demo")?;
        if plan.keep {
            lab.keep();
        }
        let config = lab.dir().join("contexts");
        let mut underlay = Underlay::new(&lab)?;
        let mut clusters = Vec::new();
        for (number, name) in (1_u8..).zip(NAMES).take(usize::from(plan.clusters)) {
            underlay.add_segment(&lab, name, [172, 31, number], MTU)?;
            let mut nodes = Vec::new();
            for host in 1..=plan.nodes {
                let spec = NodeSpec { name: &format!("{name}{host}"), segment: name, host };
                nodes.push(Node::new(&lab, &underlay, &spec, fabric, &config)?);
            }
            clusters.push(Cluster { name, nodes });
        }
        underlay.add_segment(&lab, "vm", [172, 31, 100], MTU)?;
        underlay.add_segment(&lab, "ops", [172, 31, 200], MTU)?;
        let machine = NodeSpec { name: VM, segment: "vm", host: 1 };
        let vm = Node::new(&lab, &underlay, &machine, fabric, &config)?;
        let operator = NodeSpec { name: "ops", segment: "ops", host: 1 };
        let operator = Node::new(&lab, &underlay, &operator, fabric, &config)?;
        Ok(Self { clusters, vm, operator, underlay, lab, processes: std::sync::Mutex::new(Vec::new()) })
    }

    /// A cluster by its place.
    ///
    /// # Errors
    /// When the demo has fewer.
    pub fn cluster(&self, number: usize) -> Result<&Cluster> {
        self.clusters.get(number).context("the demo has fewer clusters")
    }

    /// Starts a cluster: `fabric up` on its first node, `fabric join` on the others.
    ///
    /// # Errors
    /// When a node does not come up.
    pub fn start(&self, cluster: &Cluster, plan: &Plan) -> Result<()> {
        let Some((first, others)) = cluster.nodes.split_first() else { return Ok(()) };
        let mut up = vec!["up".to_owned(), "--foreground".to_owned(), "--cluster".to_owned(), cluster.name.to_owned()];
        up.extend(["--name".to_owned(), first.name().to_owned(), "--routing".to_owned(), plan.routing.to_owned()]);
        if !plan.encryption {
            up.push("--no-encryption".to_owned());
        }
        up.extend(first.place_flags());
        self.start_on(first, &up)?;
        self.wait_ready(first)?;
        for node in others {
            let token = self.ops(&["token", "create", "--node", "--context", cluster.name, "-q"])?;
            self.join(node, token.trim(), Some(node.name()))?;
        }
        for node in others {
            self.wait_ready(node)?;
        }
        Ok(())
    }

    /// `fabric join` on a machine, in the background.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join(&self, node: &Node, token: &str, name: Option<&str>) -> Result<()> {
        let mut join = vec!["join".to_owned(), token.to_owned(), "--foreground".to_owned()];
        if let Some(name) = name {
            join.extend(["--name".to_owned(), name.to_owned()]);
        }
        join.extend(node.place_flags());
        self.start_on(node, &join)
    }

    /// Waits until a machine's agent is in step with its API; says what it printed when it is not.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub fn wait_ready(&self, node: &Node) -> Result<()> {
        let ready = || {
            let run = node.dir().join("run").display().to_string();
            let out = node.fabric(&["status", "--local", "--run-dir", &run, "-q"])?;
            Ok((out.code == 0).then_some(()))
        };
        wait_until(READY_WITHIN, &format!("{} is ready", node.name()), ready).map_err(|error| {
            let log = std::fs::read_to_string(node.dir().join("log/main.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            error.context(format!("{} said:\n{}", node.name(), tail.join("\n")))
        })
    }

    /// Runs a command where the operator sits; must succeed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn ops(&self, args: &[&str]) -> Result<String> {
        self.operator.fabric(args)?.into_result()
    }

    /// Gives the router a static route to each node's ranges, as native routing without encryption needs them;
    /// answers with how many.
    ///
    /// # Errors
    /// When a node is not listed.
    pub fn route_ranges(&self) -> Result<usize> {
        let mut count = 0;
        for cluster in &self.clusters {
            let listed = self.ops(&["node", "list", "-o", "json", "--context", cluster.name])?;
            let listed: serde_json::Value = serde_json::from_str(&listed)?;
            for node in cluster.nodes.iter().chain([&self.vm]) {
                let own = |n: &&serde_json::Value| n["name"] == node.name() && n["cluster"] == cluster.name;
                // The machine is a member of one cluster at the most.
                let Some(own) = listed["items"].as_array().and_then(|all| all.iter().find(own)) else { continue };
                for range in own["ranges"].as_array().into_iter().flatten().filter_map(|r| r.as_str()) {
                    self.underlay.route(&self.lab, range, &node.addresses())?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    /// Keeps a background process until the end.
    pub fn keep(&self, process: Process) {
        if let Ok(mut all) = self.processes.lock() {
            all.push(process);
        }
    }

    /// A file in the demo's own folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.lab.dir().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    fn start_on(&self, node: &Node, args: &[String]) -> Result<()> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.keep(node.start("main", &args)?);
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // With `--keep` the processes stay too: forgetting a child does not end it.
        if self.lab.is_kept() {
            for process in self.processes.lock().map(|mut p| std::mem::take(&mut *p)).unwrap_or_default() {
                process.leave();
            }
        }
    }
}
