//! One run of the executable: started, waited for, stopped.
//!
//! The kernel kills a child with `PDEATHSIG` when the *thread* that started it ends, so each run has a thread of its
//! own that does nothing but wait for it.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::{oneshot, watch};

/// A started process. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    /// `Some` until the process is reaped: only then does its number surely mean it.
    alive: Arc<Mutex<Option<Pid>>>,
    exit: watch::Receiver<Option<String>>,
}

/// What to start.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) binary: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Becomes its standard input: whatever lock it holds lasts until the process is gone.
    pub(super) lock: File,
    /// Takes its output.
    pub(super) log: File,
}

impl Process {
    pub(super) async fn start(start: Start) -> io::Result<Self> {
        let alive = Arc::new(Mutex::new(None));
        let (exit_sender, exit) = watch::channel(None);
        let (started, starting) = oneshot::channel();
        let shared = Arc::clone(&alive);
        let thread = std::thread::Builder::new().name("etcd-child".to_owned());
        thread.spawn(move || {
            let outcome = run(start, &shared, started);
            if let Some(status) = outcome {
                exit_sender.send_replace(Some(describe(status)));
            }
        })?;
        let pid = starting.await.map_err(|_| io::Error::other("the thread that starts it ended"))??;
        Ok(Self { pid, alive, exit })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it is gone; says how it ended.
    pub(super) async fn exited(&self) -> String {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| status.clone());
        status.unwrap_or_else(|| "unknown status".to_owned())
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = *guard(&self.alive) {
            // It may be dead but not reaped, which is no error.
            let _ = kill(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

fn guard(alive: &Mutex<Option<Pid>>) -> MutexGuard<'_, Option<Pid>> {
    alive.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(start: Start, alive: &Mutex<Option<Pid>>, started: oneshot::Sender<io::Result<u32>>) -> Option<ExitStatus> {
    let mut child = match command(start).and_then(|mut command| command.spawn()) {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return None;
        }
    };
    let pid = Pid::from_raw(child.id().try_into().ok()?);
    *guard(alive) = Some(pid);
    let _ = started.send(Ok(child.id()));
    // Waits without reaping, so that nobody signals a number that already means another process.
    while let Err(nix::errno::Errno::EINTR) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {}
    let mut alive = guard(alive);
    *alive = None;
    child.wait().ok()
}

fn command(start: Start) -> io::Result<Command> {
    let Start { binary, arguments, lock, log } = start;
    let mut command = if let Some(setpriv) = find(Path::new("setpriv")) {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(&binary);
        command
    } else {
        tracing::warn!("no setpriv (util-linux): etcd would outlive a killed API");
        Command::new(&binary)
    };
    // etcd takes settings from its environment as well: it gets none of ours.
    command.args(arguments).env_clear().envs(platform());
    command.stdin(Stdio::from(lock)).stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
    Ok(command)
}

/// etcd 3.4 refuses some processors unless told that one knows.
fn platform() -> Option<(&'static str, &'static str)> {
    match std::env::consts::ARCH {
        "x86_64" => None,
        "aarch64" => Some(("ETCD_UNSUPPORTED_ARCH", "arm64")),
        other => Some(("ETCD_UNSUPPORTED_ARCH", other)),
    }
}

/// Looks an executable up as a shell would.
pub(super) fn find(binary: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable =
        |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if binary.components().count() > 1 {
        return Some(binary.to_owned()).filter(executable);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(binary)).find(executable)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}
