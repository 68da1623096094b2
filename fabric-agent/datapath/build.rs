//! Builds the eBPF object into `OUT_DIR`, where `load.rs` embeds it.
//!
//! With `FABRIC_EBPF_OBJECT` set to a file, that finished object is taken instead: for whoever packages on a machine that
//! has no toolchain for eBPF. It is checked like one built here.

use std::{
    env, fs,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use fabric_ebpf_builder::{Request, build, inputs, object, target_dir};

const FINISHED: &str = "FABRIC_EBPF_OBJECT";

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?);
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is set by cargo")?);
    let ebpf_dir = here.join("../../ebpf").canonicalize().context("find ebpf/")?;
    // Told first: after a failure too, cargo must run this again when a source changes.
    let finished = env::var_os(FINISHED).map(PathBuf::from);
    watch(finished.as_deref(), &ebpf_dir)?;
    let file = match finished {
        Some(file) => {
            let bytes = fs::read(&file).with_context(|| format!("read {} ({FINISHED})", file.display()))?;
            object::check(&bytes).with_context(|| format!("check {} ({FINISHED})", file.display()))?;
            file
        }
        None => build(&Request { ebpf_dir, target_dir: target_dir(&out) })?.object,
    };
    fs::copy(&file, out.join("programs.o")).context("copy the object")?;
    Ok(())
}

fn watch(finished: Option<&Path>, ebpf_dir: &Path) -> Result<()> {
    let mut cargo = stdout().lock();
    let files = finished.map_or_else(|| inputs(ebpf_dir), |file| vec![file.to_owned()]);
    for path in files {
        writeln!(cargo, "cargo:rerun-if-changed={}", path.display())?;
    }
    for name in [FINISHED, "PATH"] {
        writeln!(cargo, "cargo:rerun-if-env-changed={name}")?;
    }
    Ok(())
}
