//! Builds the eBPF object into `OUT_DIR`, where `load.rs` embeds it.

use std::{
    env, fs,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use fabric_ebpf_builder::{Request, build, inputs, target_dir};

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?);
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is set by cargo")?);
    let ebpf_dir = here.join("../../ebpf").canonicalize().context("find ebpf/")?;
    // Told first: after a failure too, cargo must run this again when a source changes.
    watch(&ebpf_dir)?;
    if !ebpf_dir.join("programs/Cargo.toml").exists() {
        fs::write(out.join("programs.o"), [])?;
        return Ok(());
    }
    let built = build(&Request { ebpf_dir, target_dir: target_dir(&out) })?;
    fs::copy(&built.object, out.join("programs.o")).context("copy the object")?;
    Ok(())
}

fn watch(ebpf_dir: &Path) -> Result<()> {
    let mut cargo = stdout().lock();
    for path in inputs(ebpf_dir) {
        writeln!(cargo, "cargo:rerun-if-changed={}", path.display())?;
    }
    writeln!(cargo, "cargo:rerun-if-env-changed=PATH")?;
    Ok(())
}
