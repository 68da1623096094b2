//! Runs programs and keeps what they said.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output, or an error that carries what the program complained of.
    ///
    /// # Errors
    /// When the exit code is not 0.
    pub fn into_result(self) -> Result<String> {
        if self.code != 0 {
            bail!("{} ended with {}: {}{}", self.command, self.code, self.stderr.trim(), self.stdout.trim());
        }
        Ok(self.stdout)
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(program: &str, args: &[&str]) -> Result<Output> {
    use std::os::unix::process::ExitStatusExt as _;
    let out = Command::new(program).args(args).output().with_context(|| format!("cannot start {program}"))?;
    let code = out.status.code().unwrap_or_else(|| 128 + out.status.signal().unwrap_or_default());
    Ok(Output {
        command: format!("{program} {}", args.join(" ")),
        code,
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}

/// Runs a program that must succeed and whose output nobody needs.
///
/// # Errors
/// When it cannot be started or ends with another code than 0.
pub fn run_ok(program: &str, args: &[&str]) -> Result<()> {
    run(program, args)?.into_result().map(drop)
}
