//! systemd units for this machine's processes, each in its own cgroup.

use std::path::Path;
use std::process::Command;

use crate::failure::{Failure, Outcome};
use crate::machine::cannot_write;

const FOLDER: &str = "/etc/systemd/system";

/// Each unit with the subcommand that it runs and the file that asks for it.
const UNITS: [(&str, &str, &str); 3] = [
    ("clustermesh-api.service", "api", "api.yaml"),
    ("fabric-wireguard.service", "wireguard", "node.yaml"),
    ("fabric-agent.service", "agent", "node.yaml"),
];

/// Whether systemd runs this machine (sd_booted(3)).
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Writes and starts the units that this machine's configuration asks for.
///
/// # Errors
/// When they cannot be written or started.
pub fn install(state_dir: &Path, run_dir: &Path) -> Outcome {
    let fabric = std::env::current_exe()?;
    let mut wanted = Vec::new();
    for (unit, subcommand, file) in UNITS {
        if !state_dir.join(file).exists() {
            continue;
        }
        let path = Path::new(FOLDER).join(unit);
        let text = unit_text(&fabric, subcommand, state_dir, run_dir);
        std::fs::write(&path, text).map_err(|e| cannot_write(&path, &e))?;
        wanted.push(unit);
    }
    systemctl(&["daemon-reload"])?;
    let mut enable = vec!["enable", "--now"];
    enable.extend(wanted);
    systemctl(&enable)
}

/// Stops and removes the units.
///
/// # Errors
/// When systemd refuses.
pub fn remove() -> Outcome {
    for (unit, ..) in UNITS {
        let path = Path::new(FOLDER).join(unit);
        if path.exists() {
            systemctl(&["disable", "--now", unit])?;
            std::fs::remove_file(&path).map_err(|e| cannot_write(&path, &e))?;
        }
    }
    systemctl(&["daemon-reload"])
}

fn unit_text(fabric: &Path, subcommand: &str, state_dir: &Path, run_dir: &Path) -> String {
    // Exit code 77 says that the configuration does not ask for the process.
    format!(
        "[Unit]\nDescription=Fabric: {subcommand}\nAfter=network-online.target\nWants=network-online.target\n\n\
         [Service]\nExecStart={} {subcommand} --state-dir {} --run-dir {}\nRestart=always\nRestartSec=100ms\n\
         RestartPreventExitStatus=77\nKillMode=mixed\nLimitMEMLOCK=infinity\n\n[Install]\nWantedBy=multi-user.target\n",
        fabric.display(),
        state_dir.display(),
        run_dir.display(),
    )
}

fn systemctl(args: &[&str]) -> Outcome {
    let out = Command::new("systemctl").args(args).output()?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(Failure::new(format!("systemctl {}: {}", args.join(" "), said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_runs_the_right_process() {
        let text = unit_text(Path::new("/usr/bin/fabric"), "agent", Path::new("/s"), Path::new("/r"));
        assert!(text.contains("ExecStart=/usr/bin/fabric agent --state-dir /s --run-dir /r\n"), "{text}");
        assert!(text.contains("RestartPreventExitStatus=77"));
    }
}
