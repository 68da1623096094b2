//! A node of a lab: a namespace on the underlay, its own cgroup, pin folder, state and run folders, in which
//! the executable is used just as on a machine of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::process::{Place, Process, signal};
use super::underlay::{Addresses, Underlay};
use super::{Lab, Output, run_ok};

/// Where a node is plugged in.
#[derive(Debug, Clone, Copy)]
pub struct NodeSpec<'a> {
    /// Short name, unique in the lab: `a1`.
    pub name: &'a str,
    /// Segment of the underlay.
    pub segment: &'a str,
    /// Host part of its addresses.
    pub host: u8,
}

/// A node; its processes end with the lab.
#[derive(Debug)]
pub struct Node {
    name: String,
    namespace: String,
    addresses: Addresses,
    dir: PathBuf,
    cgroup: PathBuf,
    pins: PathBuf,
    wireguard: String,
    fabric: PathBuf,
    env: Vec<(String, String)>,
}

impl Node {
    /// Makes the namespace and plugs it in; nothing of Fabric runs yet.
    ///
    /// `fabric` is the executable, `config` the file of contexts that its commands use.
    ///
    /// # Errors
    /// When `ip` refuses or a folder cannot be made.
    pub fn new(lab: &Lab, underlay: &Underlay, spec: &NodeSpec<'_>, fabric: &Path, config: &Path) -> Result<Self> {
        let namespace = lab.namespace(spec.name)?;
        let addresses = underlay.plug(lab, &namespace, spec.segment, spec.host)?;
        let dir = lab.dir().join(spec.name);
        let cgroup = lab.cgroup().join(spec.name);
        std::fs::create_dir_all(dir.join("log"))?;
        std::fs::create_dir_all(&cgroup)?;
        Ok(Self {
            name: spec.name.to_owned(),
            namespace,
            addresses,
            pins: lab.pins().join(spec.name),
            // The configuration sockets of all namespaces share one folder, so the device's name is unique.
            wireguard: format!("w{}-{}", lab.token(), spec.name),
            fabric: fabric.to_path_buf(),
            env: vec![("FABRIC_CONFIG".to_owned(), config.display().to_string())],
            dir,
            cgroup,
        })
    }

    /// Its short name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Full name of its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// On the underlay.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its folder: `state`, `run`, `log`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name of its WireGuard device.
    pub fn wireguard(&self) -> &str {
        &self.wireguard
    }

    /// Its eBPF pins.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The cgroup that its hooks hang on, and that its workloads live below.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The flags that keep `up` and `join` to this node's own places.
    pub fn place_flags(&self) -> Vec<String> {
        let path = |p: &Path| p.display().to_string();
        let flags = [
            ("--state-dir", path(&self.dir.join("state"))),
            ("--run-dir", path(&self.dir.join("run"))),
            ("--bpf-dir", path(&self.pins)),
            ("--cgroup", path(&self.cgroup)),
            ("--wireguard-interface", self.wireguard.clone()),
            ("--address", self.addresses.v4.to_string()),
            ("--address", self.addresses.v6.to_string()),
        ];
        flags.into_iter().flat_map(|(k, v)| [k.to_owned(), v]).collect()
    }

    /// Starts `fabric …` on this node in the background; `what` names its log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, what: &str, args: &[&str]) -> Result<Process> {
        let log = self.dir.join("log").join(format!("{what}.log"));
        let cgroup = self.cgroup.join("fabric");
        let place = Place { namespace: &self.namespace, cgroup: &cgroup, log: &log, env: &self.env };
        Process::start(&place, &self.fabric.display().to_string(), args)
    }

    /// Runs `fabric …` on this node to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn fabric(&self, args: &[&str]) -> Result<Output> {
        let net = format!("--net=/run/netns/{}", self.namespace);
        let env: Vec<String> = self.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let fabric = self.fabric.display().to_string();
        let mut all = vec![net.as_str(), "--", "env"];
        all.extend(env.iter().map(String::as_str));
        all.push(&fabric);
        all.extend(args);
        super::run("nsenter", &all)
    }

    /// The same with `--run-dir`, for the commands that talk to this node's agent; must succeed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn local(&self, args: &[&str]) -> Result<String> {
        let run = self.dir.join("run").display().to_string();
        let mut all = args.to_vec();
        all.extend(["--run-dir", &run]);
        self.fabric(&all)?.into_result()
    }

    /// Process id of one of its supervised processes: `agent`, `api`, `wireguard`, `etcd`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, process: &str) -> Result<u32> {
        let file = self.dir.join("run").join(format!("{process}.pid"));
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("{process} of {} does not run", self.name))?;
        Ok(text.trim().parse()?)
    }

    /// Sends a signal to one of its supervised processes; answers with the process id that had it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, process: &str, name: &str) -> Result<u32> {
        let pid = self.pid(process)?;
        signal(pid, name)?;
        Ok(pid)
    }

    /// Makes a namespace for a workload and adds it to the node; answers with the workload's namespace.
    ///
    /// # Errors
    /// When `fabric workload add` fails, with what it said.
    pub fn add_workload(&self, lab: &Lab, name: &str, kubernetes_namespace: &str, labels: &str) -> Result<String> {
        let namespace = lab.namespace(name)?;
        let path = format!("/run/netns/{namespace}");
        self.local(&["workload", "add", name, "-n", kubernetes_namespace, "--labels", labels, "--netns", &path])?;
        Ok(namespace)
    }

    /// Starts a program in a workload's namespace, inside this node's cgroup.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_in(&self, namespace: &str, what: &str, program: &str, args: &[&str]) -> Result<Process> {
        let log = self.dir.join("log").join(format!("{what}.log"));
        let cgroup = self.cgroup.join("workloads");
        Process::start(&Place { namespace, cgroup: &cgroup, log: &log, env: &[] }, program, args)
    }

    /// Runs a program in a workload's namespace, inside this node's cgroup, to its end.
    ///
    /// # Errors
    /// When it fails or takes longer.
    pub fn run_in(&self, namespace: &str, within: Duration, program: &str, args: &[&str]) -> Result<String> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let what = format!("run-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.start_in(namespace, &what, program, args)?.finish(within)
    }

    /// Sets the underlay device up or down.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn set_underlay(&self, state: &str) -> Result<()> {
        run_ok("ip", &["-n", &self.namespace, "link", "set", "eth0", state])
    }
}
