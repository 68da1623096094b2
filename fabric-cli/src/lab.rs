//! A laboratory on one machine: nodes, routers and workloads as network namespaces, each node with its own
//! cgroup (v2), pin folder and state. The demo and the whole-system tests stand on it.
//!
//! Everything a [`Lab`] makes carries its unique name and goes when it is dropped, whatever happened in between:
//! processes by `cgroup.kill`, then namespaces (and with them links), pins, cgroups and folders. It shells out to
//! `ip` and `nsenter`, as a person would.

mod cgroup;
mod command;
mod leftovers;
mod node;
mod process;
mod underlay;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

pub use cgroup::mount_point as cgroup_mount_point;
pub use command::{Output, run, run_ok};
pub use leftovers::{remove_dead, remove_of_this_process};
pub use node::{Node, NodeSpec};
pub use process::{Place, Process, signal, wait_until};
pub use underlay::{Addresses, Underlay};

/// Numbers the labs of this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// One laboratory; dropping it removes all it made.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: PathBuf,
    cgroup: PathBuf,
    pins: PathBuf,
    namespaces: Mutex<Vec<String>>,
    keep: bool,
}

impl Lab {
    /// Makes an empty laboratory; `purpose` is a short word that shows in the names (`demo`, `test`).
    ///
    /// # Errors
    /// When not root, without a cgroup v2 mount or without a temporary folder.
    pub fn new(purpose: &str) -> Result<Self> {
        // Interface names hold 15 bytes, so the unique part is short: the pid in base 36 and a count.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{purpose}-{}-{}", base36(std::process::id()), base36(number));
        let dir = std::env::temp_dir().join(format!("fabric-{name}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let cgroup = cgroup::mount_point()?.join(format!("fabric-{name}"));
        std::fs::create_dir_all(&cgroup).with_context(|| format!("cannot make the cgroup {}", cgroup.display()))?;
        let pins = PathBuf::from(format!("/sys/fs/bpf/fabric-{name}"));
        Ok(Self { name, dir, cgroup, pins, namespaces: Mutex::new(Vec::new()), keep: false })
    }

    /// Unique on this machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Short and unique on this machine, for names of interfaces.
    pub fn token(&self) -> String {
        let mut parts = self.name.rsplit('-');
        let (number, pid) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        format!("{pid}{number}")
    }

    /// A folder for whatever belongs to it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves everything in place when dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Whether it stays when dropped.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// Makes a network namespace with its loopback up; answers with its full name.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn namespace(&self, short: &str) -> Result<String> {
        let name = format!("{}-{short}", self.name);
        run_ok("ip", &["netns", "add", &name])?;
        if let Ok(mut all) = self.namespaces.lock() {
            all.push(name.clone());
        }
        // A child namespace inherits this machine's settings; the lab wants the same everywhere.
        run_ok("ip", &["-n", &name, "link", "set", "lo", "up"])?;
        self.exec(&name, "sysctl", &["-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"])?;
        Ok(name)
    }

    /// Removes a namespace before the lab ends.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn delete_namespace(&self, name: &str) -> Result<()> {
        if let Ok(mut all) = self.namespaces.lock() {
            all.retain(|n| n != name);
        }
        run_ok("ip", &["netns", "delete", name])
    }

    /// Runs a command in a namespace and waits for it; a failure carries what it said.
    ///
    /// # Errors
    /// When it cannot be started or ends with another code than 0.
    pub fn exec(&self, namespace: &str, program: &str, args: &[&str]) -> Result<String> {
        let out = self.try_exec(namespace, program, args)?;
        out.into_result()
    }

    /// Runs a command in a namespace; its exit code is part of the answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_exec(&self, namespace: &str, program: &str, args: &[&str]) -> Result<Output> {
        let net = format!("--net=/run/netns/{namespace}");
        let mut all = vec![net.as_str(), "--", program];
        all.extend(args);
        run("nsenter", &all)
    }

    /// The cgroup below which all of its processes live.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The folder of its nodes' eBPF pins.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    fn tear_down(&self) {
        cgroup::kill(&self.cgroup);
        for name in self.namespaces.lock().map(|mut n| std::mem::take(&mut *n)).unwrap_or_default() {
            // What a namespace holds goes with it; one that is gone already is what we want.
            drop(run("ip", &["netns", "delete", &name]));
        }
        drop(std::fs::remove_dir_all(&self.pins));
        cgroup::remove(&self.cgroup);
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep {
            self.tear_down();
        }
    }
}

fn base36(mut n: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(n % 36, 36).unwrap_or('0'));
        n /= 36;
        if n == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}
