//! `fabric doctor`: what this machine has of all that a node needs, and which path was picked.

use clap::Args;
use serde::Serialize;

use super::{Dirs, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::machine;
use crate::output::{self, Row};

/// Arguments of `fabric doctor`.
#[derive(Debug, Args)]
#[command(
    before_help = "Examples:\n  sudo fabric doctor\n  sudo fabric doctor -o json\n  sudo fabric doctor -o wide      with what to do"
)]
pub struct DoctorArgs {
    #[command(flatten)]
    dirs: Dirs,
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    found: String,
}

impl Row for Check {
    const KIND: &'static str = "Check";
    const HEADS: &'static [&'static str] = &["CHECK", "STATE", "FOUND"];
    const NARROW: usize = 3;

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), if self.ok { "✓ good" } else { "✗ missing" }.to_owned(), self.found.clone()]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Runs the command; exit code 3 when something is missing.
///
/// # Errors
/// When something that a node needs is missing.
pub fn run(global: &Global, args: &DoctorArgs) -> Outcome {
    let mut checks: Vec<Check> = fabric_agent::features()
        .into_iter()
        .map(|f| Check { name: f.name.to_owned(), ok: f.present, found: f.message })
        .collect();
    let config = machine::read_yaml::<fabric_core::config::NodeConfig>(&args.dirs.state_dir.join("node.yaml")).ok();
    let engine = config.as_ref().is_none_or(fabric_agent::needs_engine);
    let found = if engine { "user space: the kernel has none, or the configuration says so" } else { "kernel" };
    checks.push(Check { name: "wireguard".to_owned(), ok: true, found: found.to_owned() });
    let etcd = std::env::var_os("PATH").into_iter().flat_map(|p| std::env::split_paths(&p).collect::<Vec<_>>());
    let etcd = etcd.map(|dir| dir.join("etcd")).find(|path| path.is_file());
    // Only the machine that runs the API needs it, and an etcd of the user's own does as well.
    let found = etcd.map_or_else(
        || "none; needed only where the API runs with its own etcd".to_owned(),
        |p| p.display().to_string(),
    );
    checks.push(Check { name: "etcd".to_owned(), ok: true, found });
    output::list(global.output, &checks)?;
    let missing: Vec<&str> = checks.iter().filter(|c| !c.ok).map(|c| c.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("this machine cannot be a node: {} missing", missing.join(", ")))
        .exit(Exit::Degraded)
        .code(fabric_core::error_code::KERNEL_FEATURE_MISSING))
}
