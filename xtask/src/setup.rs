//! Installs what is missing, and nothing else; quick when nothing is.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::deps::{self, Package};
use crate::run::{output, run_command, succeeds, tools_dir};

pub(crate) fn run() -> Result<()> {
    let mut wanted: Vec<&Package> = deps::PACKAGES.iter().collect();
    if !nightly_has_sources() {
        wanted.extend(deps::EBPF_PACKAGES);
    }
    let linker = !has_tool("bpf-linker", deps::BPF_LINKER);
    if linker {
        wanted.extend(deps::LINKER_PACKAGES);
    }
    packages(&wanted)?;
    if linker {
        let mut install = cargo_install("bpf-linker", deps::BPF_LINKER)?;
        install.args(["--no-default-features", "--features", "llvm-22"]).env("LLVM_PREFIX", "/usr/lib/llvm-22");
        run_command(&mut install)?;
    }
    if !has_tool("cargo-deny", deps::CARGO_DENY) {
        run_command(&mut cargo_install("cargo-deny", deps::CARGO_DENY)?)?;
    }
    Ok(())
}

/// The ordinary way: a rustup nightly that carries the sources of core.
fn nightly_has_sources() -> bool {
    let Ok(sysroot) = output("rustc", &["+nightly", "--print", "sysroot"]) else { return false };
    Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

fn packages(wanted: &[&Package]) -> Result<()> {
    let installed = output("dpkg-query", &["-W", "-f", "${Package} ${db:Status-Abbrev}\n"])
        .context("cannot ask dpkg what is installed: on a system that is not Debian, install these by hand")?;
    let installed: std::collections::BTreeSet<&str> =
        installed.lines().filter_map(|l| l.trim_end().strip_suffix(" ii")).collect();
    let missing: Vec<&&Package> = wanted.iter().filter(|p| !installed.contains(p.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for p in &missing {
        report(&format!("missing: {} ({})", p.name, p.why));
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name).collect();
    if !succeeds("id", &["-u"]) || output("id", &["-u"])?.trim() != "0" {
        bail!("not root, so nothing was installed. Run: sudo apt-get install {}", names.join(" "));
    }
    let mut update = Command::new("apt-get");
    run_command(update.args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&names);
    run_command(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn has_tool(name: &str, version: &str) -> bool {
    let Ok(dir) = tools_dir() else { return false };
    let path = dir.join("bin").join(name);
    let Some(path) = path.to_str() else { return false };
    output(path, &["--version"]).is_ok_and(|v| v.contains(version))
}

fn cargo_install(name: &str, version: &str) -> Result<Command> {
    report(&format!("building {name} {version}"));
    let mut c = Command::new("cargo");
    c.args(["install", name, "--version", version, "--locked", "--quiet", "--root"]).arg(tools_dir()?);
    // A tool's build must not land in, nor wait for, the project's own target folder.
    c.env_remove("CARGO_TARGET_DIR");
    Ok(c)
}

#[expect(clippy::print_stderr, reason = "progress of a command line tool")]
fn report(line: &str) {
    eprintln!("setup: {line}");
}
