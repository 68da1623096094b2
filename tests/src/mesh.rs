//! Clusters as the demo builds them, with the looks into them that tests need.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fabric_cli::demo::{Demo, Plan};
use fabric_cli::lab::{Node, Output, wait_until};
use serde_json::Value;

/// What a step of the control plane may take before a test gives up on it.
pub const WITHIN: Duration = Duration::from_secs(15);

/// A mesh of the demo's machines.
#[derive(Debug)]
pub struct Mesh {
    /// Its machines and commands.
    pub demo: Demo,
}

/// A workload of a node.
#[derive(Debug)]
pub struct Workload<'a> {
    /// Where it runs.
    pub node: &'a Node,
    /// Its network namespace.
    pub namespace: String,
    /// Its identity's number.
    pub identity: u32,
    /// IPv4.
    pub v4: String,
    /// IPv6.
    pub v6: String,
    /// Of its device.
    pub mtu: u64,
}

impl Mesh {
    /// Two clusters, up and ready, not connected.
    ///
    /// # Errors
    /// When a node does not come up.
    pub fn start(nodes: u8, routing: &'static str, encryption: bool) -> Result<Self> {
        crate::require_root();
        let plan = Plan { clusters: 2, nodes, routing, encryption, keep: false };
        let demo = Demo::with_executable(&plan, &executable()?)?;
        std::thread::scope(|scope| {
            let starts: Vec<_> = demo.clusters.iter().map(|c| scope.spawn(|| demo.start(c, &plan))).collect();
            starts.into_iter().try_for_each(|s| s.join().map_err(|_| anyhow::anyhow!("a start panicked"))?)
        })?;
        let mesh = Self { demo };
        if routing == "native" {
            mesh.demo.route_ranges()?;
        }
        Ok(mesh)
    }

    /// The same, connected.
    ///
    /// # Errors
    /// When they cannot be connected.
    pub fn connected(nodes: u8, routing: &'static str, encryption: bool) -> Result<Self> {
        let mesh = Self::start(nodes, routing, encryption)?;
        mesh.ops(&["connect", "eu", "us"])?;
        Ok(mesh)
    }

    /// A node by its name: `eu1`.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let mut nodes = self.demo.clusters.iter().flat_map(|c| &c.nodes);
        nodes.find(|n| n.name() == name).with_context(|| format!("no node {name}"))
    }

    /// Runs a command where the operator sits; must succeed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn ops(&self, args: &[&str]) -> Result<String> {
        self.demo.ops(args)
    }

    /// Runs a command where the operator sits, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_ops(&self, args: &[&str]) -> Result<Output> {
        self.demo.operator.fabric(args)
    }

    /// A list command's items.
    ///
    /// # Errors
    /// When it fails or is not JSON.
    pub fn items(&self, args: &[&str]) -> Result<Vec<Value>> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let list: Value = serde_json::from_str(&self.ops(&all)?)?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Adds a workload `name` with `app=app` in namespace `shop`.
    ///
    /// # Errors
    /// When the agent refuses.
    pub fn workload(&self, node: &str, name: &str, app: &str) -> Result<Workload<'_>> {
        let node = self.node(node)?;
        let namespace = node.add_workload(&self.demo.lab, name, "shop", &format!("app={app}"))?;
        let list: Value = serde_json::from_str(&node.local(&["workload", "list", "-o", "json"])?)?;
        let items = list.get("items").and_then(Value::as_array).context("no items")?;
        let own = items.iter().find(|w| w["name"] == name).with_context(|| format!("{name} is not listed"))?;
        let addresses: Vec<&str> =
            own["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let of = |v6: bool| addresses.iter().find(|a| a.contains(':') == v6).map(|a| (*a).to_owned());
        Ok(Workload {
            node,
            namespace,
            identity: own["identity"].as_u64().and_then(|i| u32::try_from(i).ok()).context("no identity")?,
            v4: of(false).context("no IPv4 address")?,
            v6: of(true).context("no IPv6 address")?,
            mtu: own["mtu"].as_u64().context("no MTU")?,
        })
    }

    /// Applies YAML in a cluster.
    ///
    /// # Errors
    /// When it is refused.
    pub fn apply(&self, cluster: &str, yaml: &str) -> Result<()> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("apply-{}.yaml", NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = self.demo.file(&name, yaml)?.display().to_string();
        self.ops(&["apply", "-f", &file, "--context", cluster]).map(drop)
    }

    /// Waits for a condition of this mesh.
    ///
    /// # Errors
    /// When it does not come about.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        wait_until(WITHIN, what, condition)
    }
}

/// One ICMP echo from a workload; whether the reply came within a second.
///
/// # Errors
/// When ping cannot be started.
pub fn reaches(from: &Workload<'_>, to: &str) -> Result<bool> {
    let ping = from.node.start_in(&from.namespace, "ping", "ping", &["-c", "1", "-W", "1", to])?;
    Ok(ping.finish(Duration::from_secs(5)).is_ok())
}

/// The executable under test lies beside the tests' own.
///
/// # Errors
/// When it was not built.
pub fn executable() -> Result<std::path::PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(|p| p.parent()).context("no folder above the test")?;
    let fabric = folder.join("fabric");
    ensure!(fabric.exists(), "{} is missing: cargo build --release -p fabric-cli", fabric.display());
    Ok(fabric)
}
