//! Processes in the background of a lab, and waiting for what they bring about.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A process in a namespace and a cgroup, its output in a file; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program` in the network namespace and the cgroup; output goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(place: &Place<'_>, program: &str, args: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(place.cgroup).context("cannot make the process's cgroup")?;
        let out = File::create(place.log).with_context(|| format!("cannot write {}", place.log.display()))?;
        let mut command = Command::new("sh");
        // The shell joins the cgroup before it becomes the program, so no socket is ever made outside.
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(place.cgroup.join("cgroup.procs"));
        command.arg("nsenter").arg(format!("--net=/run/netns/{}", place.namespace)).arg("--").arg(program).args(args);
        command.envs(place.env.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        Ok(Self { child, what: format!("{program} {}", args.join(" ")), log: place.log.to_path_buf() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed up to now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When its state cannot be asked.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end and answers with its output; an exit code other than 0 is an error.
    ///
    /// # Errors
    /// When it fails or does not end in time.
    pub fn finish(mut self, within: Duration) -> Result<String> {
        let what = self.what.clone();
        let status = wait_until(within, &format!("{what} ends"), || Ok(self.child.try_wait()?))?;
        let said = self.output()?;
        if !status.success() {
            bail!("{what} ended with {status}: {}", said.trim());
        }
        Ok(said)
    }

    /// Lets it run on after us.
    pub fn leave(self) {
        // `Drop` would end it.
        std::mem::forget(self);
    }

    /// Asks it to end (SIGTERM) and waits; then kills it.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn stop(&mut self, within: Duration) -> Result<()> {
        if self.running()? {
            signal(self.pid(), "TERM")?;
        }
        if wait_until(within, "the process ends", || Ok(self.child.try_wait()?)).is_err() {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where a [`Process`] runs.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Network namespace, full name.
    pub namespace: &'a str,
    /// Made when missing.
    pub cgroup: &'a Path,
    /// File of its output.
    pub log: &'a Path,
    /// Added to the environment.
    pub env: &'a [(String, String)],
}

/// Sends a signal by name (`TERM`, `KILL`).
///
/// # Errors
/// When the process is gone.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    super::run_ok("kill", &["-s", name, &pid.to_string()])
}

/// Tries `condition` until it gives a value; an error of its own ends it at once.
///
/// # Errors
/// When the time is over, with `what` that was awaited, or when the condition fails.
pub fn wait_until<T>(within: Duration, what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if started.elapsed() >= within {
            bail!("waited {} s in vain until {what}", within.as_secs_f32());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
