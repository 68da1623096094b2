//! `fabric supervise`: keeps the processes of one machine running where no systemd does, and owns nothing else.
//!
//! Each process is started by itself, restarted with a growing pause when it ends, and told to end when we are.
//! The WireGuard engine is a sibling of the agent, so that tunnels stand while the agent is away.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::failure::{Failure, Outcome};
use fabric_core::error_code;

/// The first restart is immediate: traffic waits for it.
const PAUSES_MS: [u64; 6] = [0, 100, 300, 1000, 3000, 5000];

/// A process that ran this long has earned an immediate restart again.
const SETTLED: Duration = Duration::from_secs(10);

/// How often it is looked whether a process that is no child of ours still runs.
const ADOPTED_LOOK: Duration = Duration::from_millis(100);

/// How long a process has to end by itself.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// One supervised process.
#[derive(Debug, Clone)]
struct Unit {
    name: &'static str,
    args: Vec<String>,
}

/// Runs until `stop`; each process that this machine's configuration asks for.
///
/// # Errors
/// When there is no configuration, or another supervisor runs here.
pub async fn run(state_dir: &Path, run_dir: &Path, stop: CancellationToken) -> Outcome {
    let units = units(state_dir, run_dir)?;
    std::fs::create_dir_all(run_dir)?;
    let lock = std::fs::File::create(run_dir.join("supervise.lock"))?;
    if lock.try_lock().is_err() {
        return Err(Failure::new(format!("another supervisor runs on {}", run_dir.display())));
    }
    std::fs::write(run_dir.join("supervise.pid"), std::process::id().to_string())?;
    let mut tasks = tokio::task::JoinSet::new();
    for unit in units {
        tasks.spawn(keep(unit, run_dir.to_path_buf(), stop.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| Failure::new(format!("a supervising task ended: {e}")))??;
    }
    drop(std::fs::remove_file(run_dir.join("supervise.pid")));
    Ok(())
}

fn units(state_dir: &Path, run_dir: &Path) -> Result<Vec<Unit>, Failure> {
    let dirs = || vec!["--state-dir".to_owned(), state_dir.display().to_string()];
    let unit = |name: &'static str| {
        let mut args = vec![name.to_owned()];
        args.extend(dirs());
        args.extend(["--run-dir".to_owned(), run_dir.display().to_string()]);
        Unit { name, args }
    };
    let mut units = Vec::new();
    if state_dir.join("api.yaml").exists() {
        units.push(unit("api"));
    }
    if state_dir.join("node.yaml").exists() {
        units.push(unit("wireguard"));
        units.push(unit("agent"));
    }
    if units.is_empty() {
        return Err(Failure::new(format!("{} holds no configuration", state_dir.display()))
            .code(error_code::CONFIG_INVALID)
            .next("fabric up --cluster NAME, or fabric join TOKEN"));
    }
    Ok(units)
}

/// Names of the supervised processes; each has a file `NAME.pid` in the run folder.
pub const PROCESSES: [&str; 3] = ["agent", "api", "wireguard"];

/// The process of that name that runs on a run folder, whoever started it. A process id that now belongs to something
/// else is not it.
pub fn running(name: &str, run_dir: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(run_dir.join(format!("{name}.pid"))).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = command_line.split(|b| *b == 0).collect();
    let ours = words.contains(&name.as_bytes()) && words.contains(&run_dir.as_os_str().as_encoded_bytes());
    ours.then(|| Pid::from_raw(pid))
}

/// Waits while a process that an earlier supervisor left goes on; it is told to end when we are.
async fn outlast(name: &'static str, run_dir: &Path, stop: &CancellationToken) {
    let Some(pid) = running(name, run_dir) else { return };
    info!(process = name, %pid, "runs already");
    while running(name, run_dir).is_some() {
        tokio::select! {
            () = tokio::time::sleep(ADOPTED_LOOK) => {}
            () = stop.cancelled() => {
                terminate(pid);
                let gone = async {
                    while running(name, run_dir).is_some() {
                        tokio::time::sleep(ADOPTED_LOOK).await;
                    }
                };
                drop(tokio::time::timeout(STOP_WITHIN, gone).await);
                return;
            }
        }
    }
}

/// Asks a process to end; one that is gone already is what we want.
pub fn terminate(pid: Pid) {
    let _gone = nix::sys::signal::kill(pid, Signal::SIGTERM);
}

async fn keep(unit: Unit, run_dir: PathBuf, stop: CancellationToken) -> Outcome {
    let pid_file = run_dir.join(format!("{}.pid", unit.name));
    outlast(unit.name, &run_dir, &stop).await;
    let mut failures = 0_usize;
    while !stop.is_cancelled() {
        let started = Instant::now();
        let mut child = start(&unit)?;
        if let Some(pid) = child.id() {
            crate::context::write_private(&pid_file, pid.to_string().as_bytes())?;
        }
        info!(process = unit.name, "started");
        tokio::select! {
            status = child.wait() => {
                drop(std::fs::remove_file(&pid_file));
                if status.as_ref().is_ok_and(|s| s.code() == Some(i32::from(NOT_NEEDED))) {
                    info!(process = unit.name, "not needed here");
                    return Ok(());
                }
                warn!(process = unit.name, ?status, "ended; starting it again");
            }
            () = stop.cancelled() => {
                end(&unit, child).await;
                drop(std::fs::remove_file(&pid_file));
                return Ok(());
            }
        }
        failures = if started.elapsed() > SETTLED { 0 } else { failures + 1 };
        let pause = PAUSES_MS.get(failures).or(PAUSES_MS.last()).copied().unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

/// Exit code of a process that says: the configuration does not ask for me.
pub const NOT_NEEDED: u8 = 77;

fn start(unit: &Unit) -> Result<Child, Failure> {
    let own = std::env::current_exe()?;
    let mut command = Command::new(own);
    command.args(&unit.args).stdin(Stdio::null());
    command.spawn().map_err(|e| Failure::new(format!("cannot start {}: {e}", unit.name)))
}

async fn end(unit: &Unit, mut child: Child) {
    let Some(pid) = child.id().and_then(|p| i32::try_from(p).ok()) else { return };
    terminate(Pid::from_raw(pid));
    if tokio::time::timeout(STOP_WITHIN, child.wait()).await.is_err() {
        warn!(process = unit.name, "did not end in time; killed");
        drop(child.kill().await);
    }
}
