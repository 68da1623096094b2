//! This machine: what it can do, where its configuration is, how its processes are started and stopped.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fabric_core::config::{ApiConfig, NodeConfig};
use fabric_core::error_code;
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::commands::Global;
use crate::commands::up::PlaceArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::{client, lab, runtime, supervise, systemd};

/// The address that packets to the Internet leave from. Nothing is sent.
///
/// # Errors
/// When there is no default route.
pub fn default_address() -> Result<IpAddr, Failure> {
    // TEST-NET-1 (RFC 5737): routed by the default route like any other, and nobody's.
    let probe = UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("192.0.2.1:9").map(|()| s));
    let address = probe.and_then(|s| s.local_addr()).map_err(|e| {
        Failure::usage(format!("this machine's address cannot be guessed without a default route: {e}"))
            .next("give it with --address")
    })?;
    Ok(address.ip())
}

/// Checks that this machine can be a node: root, and what the kernel must offer.
///
/// # Errors
/// What is missing, by name.
pub fn require(node: &NodeConfig) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new("root is needed to change this machine's network")
            .code(error_code::NOT_ROOT)
            .next("run it again with sudo"));
    }
    let missing = fabric_agent::missing_features(node);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("this machine cannot be a node: {}", missing.join("; ")))
        .code(error_code::KERNEL_FEATURE_MISSING)
        .next("fabric explain FAB-4101"))
}

/// Checks that the API's ports are free.
///
/// # Errors
/// Which one is taken.
pub fn require_ports_free(api: &ApiConfig) -> Outcome {
    for address in api.api_endpoints().into_iter().chain(api.mesh_endpoints()) {
        TcpListener::bind(address).map_err(|e| {
            let failure = Failure::new(format!("cannot listen on {address}: {e}"));
            let taken = e.kind() == std::io::ErrorKind::AddrInUse;
            if taken { failure.code(error_code::PORT_TAKEN).next("ss -lntp shows who has it") } else { failure }
        })?;
    }
    Ok(())
}

/// Makes a folder that only root may enter.
///
/// # Errors
/// When it cannot be made.
pub fn private_dir(path: &Path) -> Outcome {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| cannot_write(path, &e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(|e| cannot_write(path, &e))
}

/// A file that cannot be written; a full disk has a code of its own.
pub fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(format!("cannot write {}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => failure.code(error_code::NO_SPACE),
        _ => failure.code(error_code::STATE_UNREADABLE),
    }
}

/// Reads a configuration file; unknown keys are errors that name it.
///
/// # Errors
/// When it is not there or not right.
pub fn read_yaml<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())).code(error_code::STATE_UNREADABLE))?;
    serde_yaml_ng::from_str(&text)
        .map_err(|e| Failure::new(format!("{}: {e}", path.display())).code(error_code::CONFIG_INVALID))
}

/// Starts this machine's processes: here, as systemd units, or under a supervisor of their own.
///
/// # Errors
/// When they do not come up.
pub async fn start(global: &Global, place: &PlaceArgs, node: &NodeConfig) -> Outcome {
    let dirs = &place.dirs;
    if place.foreground {
        runtime::start_logging(global.verbose);
        let stop = CancellationToken::new();
        let guard = runtime::cancel_on_signal(stop.clone())?;
        let outcome = supervise::run(&dirs.state_dir, &dirs.run_dir, stop).await;
        guard.abort();
        return outcome;
    }
    if systemd::is_running() {
        systemd::install(&dirs.state_dir, &dirs.run_dir)?;
    } else {
        private_dir(&dirs.run_dir)?;
        spawn_supervisor(&dirs.state_dir, &dirs.run_dir)?;
    }
    wait_ready(global, node).await
}

fn spawn_supervisor(state_dir: &Path, run_dir: &Path) -> Outcome {
    let log = run_dir.join("supervise.log");
    let out = std::fs::File::create(&log).map_err(|e| cannot_write(&log, &e))?;
    // A session of its own: it must not end with this terminal.
    let mut command = Command::new("setsid");
    command.arg("--fork").arg(std::env::current_exe()?).arg("supervise");
    command.arg("--state-dir").arg(state_dir).arg("--run-dir").arg(run_dir);
    command.stdin(std::process::Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let status = command.status()?;
    if !status.success() {
        return Err(Failure::new(format!("cannot start the supervisor: {status}")));
    }
    Ok(())
}

const READY_WITHIN: Duration = Duration::from_mins(1);

async fn wait_ready(global: &Global, node: &NodeConfig) -> Outcome {
    let started = Instant::now();
    let mut why = String::new();
    while started.elapsed() < READY_WITHIN {
        match agent_problem(node).await {
            None => {
                let took = started.elapsed().as_secs_f32();
                global.story().done(node.name.as_str(), &format!("ready after {took:.1} s"));
                return Ok(());
            }
            Some(problem) => why = problem,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Failure::new(format!("{} is not ready: {why}", node.name)).exit(Exit::TimedOut).next("fabric status --local"))
}

/// What keeps the agent from being in step with its API; none when it is.
async fn agent_problem(node: &NodeConfig) -> Option<String> {
    let mut agent = match client::local(&node.run_dir).await {
        Ok(agent) => agent,
        Err(failure) => return Some(failure.message),
    };
    let request = clustermesh_api_proto::fabric::v1::GetAgentStatusRequest {};
    match agent.get_agent_status(request).await {
        Ok(status) if status.get_ref().synced => None,
        Ok(status) => Some(status.into_inner().problem),
        Err(status) => Some(status.message().to_owned()),
    }
}

/// Stops this machine's processes and removes its membership, configuration and pins.
///
/// # Errors
/// When something cannot be removed.
pub fn forget(state_dir: &Path, run_dir: &Path) -> Outcome {
    if systemd::is_running() {
        systemd::remove()?;
    }
    stop_supervisor(run_dir)?;
    if let Ok(node) = read_yaml::<NodeConfig>(&state_dir.join("node.yaml")) {
        fabric_agent::cleanup(&node).map_err(|e| Failure::new(format!("cannot remove the data path: {e:#}")))?;
    }
    for name in ["api.yaml", "node.yaml", "wireguard.key", "wireguard.state", "agent-state.json"] {
        remove(&state_dir.join(name), |p| std::fs::remove_file(p))?;
    }
    for name in ["pki", "api"] {
        remove(&state_dir.join(name), |p| std::fs::remove_dir_all(p))?;
    }
    Ok(())
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> std::io::Result<()>) -> Outcome {
    match how(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(cannot_write(path, &e)),
        _ => Ok(()),
    }
}

fn stop_supervisor(run_dir: &Path) -> Outcome {
    if let Some(supervisor) = running_supervisor(run_dir) {
        supervise::terminate(supervisor);
        lab::wait_until(Duration::from_secs(30), "the supervisor ends", || {
            Ok(running_supervisor(run_dir).is_none().then_some(()))
        })?;
    }
    // A supervisor that was killed leaves its processes behind.
    for name in supervise::PROCESSES {
        let Some(pid) = supervise::running(name, run_dir) else { continue };
        supervise::terminate(pid);
        lab::wait_until(Duration::from_secs(15), &format!("{name} ends"), || {
            Ok(supervise::running(name, run_dir).is_none().then_some(()))
        })?;
    }
    Ok(())
}

/// The supervisor holds a lock as long as it lives.
fn running_supervisor(run_dir: &Path) -> Option<Pid> {
    let lock = std::fs::File::open(run_dir.join("supervise.lock")).ok()?;
    if lock.try_lock().is_ok() {
        return None;
    }
    let pid: i32 = std::fs::read_to_string(run_dir.join("supervise.pid")).ok()?.trim().parse().ok()?;
    Some(Pid::from_raw(pid))
}

/// Servers as text.
pub fn servers(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
