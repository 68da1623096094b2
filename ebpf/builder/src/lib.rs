//! Builds the eBPF object: finds a toolchain that can build `core` for BPF, runs it on `ebpf/programs`, and checks
//! what came out.
//!
//! Used by build scripts and by `xtask`. Prints nothing and reads no clock; what the caller must tell cargo is in
//! [`Built`]. Begin reading at [`build`]; which compiler is taken, and what is said when there is none, is in
//! [`toolchain`]; what an object must satisfy is in [`object`].

mod environment;
pub mod object;
pub mod toolchain;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    object::CheckError,
    toolchain::{MissingTool, Tools},
};

/// The target that the programs are built for: little-endian BPF.
pub const TARGET: &str = "bpfel-unknown-none";
/// The crates, beside each other below `ebpf/`, whose sources decide what the object is.
const CRATES: [&str; 3] = ["abi", "logic", "programs"];
/// The executable of `ebpf/programs`, which is the object.
const BINARY: &str = "programs";
/// How much of cargo's output an error carries: its end, where the reason is.
const OUTPUT_LINES: usize = 80;

/// What to build, and where to.
#[derive(Debug, Clone)]
pub struct Request {
    /// The folder that holds `abi`, `logic` and `programs`.
    pub ebpf_dir: PathBuf,
    /// Cargo's target directory for this build alone: sharing the caller's would wait for its own lock.
    pub target_dir: PathBuf,
}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The object file.
    pub object: PathBuf,
    /// Files and folders that, when they change, make the object stale.
    pub inputs: Vec<PathBuf>,
}

/// Why there is no object.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The machine lacks a tool.
    #[error(transparent)]
    Missing(#[from] MissingTool),
    /// A program could not be started.
    #[error("run {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The compiler refused the programs.
    #[error("{command} ended with {status}:\n{output}")]
    Compile {
        /// The command, as a person would type it.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of its output.
        output: String,
    },
    /// The object file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The object was built but the kernel would refuse it.
    #[error("check {}", path.display())]
    Check {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CheckError,
    },
}

/// Builds `ebpf/programs` and checks the object.
///
/// # Errors
/// When a tool is missing (the message says which, and how to get it), when the compiler refuses, or when the object
/// breaks a rule of [`object::check`].
pub fn build(request: &Request) -> Result<Built, BuildError> {
    let tools = Tools::find()?;
    build_with(request, &tools)
}

/// [`build`] with tools found before.
///
/// # Errors
/// As [`build`].
pub fn build_with(request: &Request, tools: &Tools) -> Result<Built, BuildError> {
    compile(request, tools)?;
    let path = request.target_dir.join(TARGET).join("release").join(BINARY);
    let bytes = fs::read(&path).map_err(|source| BuildError::Read { path: path.clone(), source })?;
    object::check(&bytes).map_err(|source| BuildError::Check { path: path.clone(), source })?;
    Ok(Built { object: path, inputs: inputs(&request.ebpf_dir) })
}

/// What makes an object built from `ebpf_dir` stale.
pub fn inputs(ebpf_dir: &Path) -> Vec<PathBuf> {
    let of_crate = |name: &&str| {
        let dir = ebpf_dir.join(name);
        [dir.join("src"), dir.join("Cargo.toml"), dir.join("Cargo.lock"), dir.join(".cargo")]
    };
    CRATES.iter().flat_map(of_crate).filter(|p| p.exists()).collect()
}

/// The target directory for the object of a build script: beside the outer build's folders, so that all profiles and
/// packages share it, or below `out_dir` where that cannot be told.
pub fn target_dir(out_dir: &Path) -> PathBuf {
    let outer = out_dir.ancestors().find(|d| d.join("CACHEDIR.TAG").is_file());
    outer.unwrap_or(out_dir).join("ebpf")
}

fn compile(request: &Request, tools: &Tools) -> Result<(), BuildError> {
    let mut command = Command::new(&tools.cargo);
    environment::isolate(&mut command, tools);
    command.current_dir(request.ebpf_dir.join("programs"));
    command.args(["build", "--release", "--target", TARGET, "-Zbuild-std=core", "--color", "never"]);
    if request.ebpf_dir.join("programs/Cargo.lock").is_file() {
        command.arg("--locked");
    }
    command.arg("--target-dir").arg(&request.target_dir);
    let output = command.output().map_err(|source| BuildError::Start { program: tools.cargo.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(BuildError::Compile {
        command: format!("{} build --release --target {TARGET} -Zbuild-std=core", tools.cargo.display()),
        status: output.status,
        output: last_lines(&text, OUTPUT_LINES),
    })
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_dir_is_beside_the_outer_build() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("target/debug/build/x-1234/out");
        fs::create_dir_all(&out).unwrap();
        assert_eq!(target_dir(&out), out.join("ebpf"), "without cargo's mark");
        fs::write(root.path().join("target/CACHEDIR.TAG"), "").unwrap();
        assert_eq!(target_dir(&out), root.path().join("target/ebpf"));
    }

    #[test]
    fn inputs_are_the_three_crates_and_only_what_exists() {
        let root = tempfile::tempdir().unwrap();
        for file in ["abi/src/lib.rs", "abi/Cargo.toml", "programs/src/main.rs", "builder/src/lib.rs"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let expected = ["abi/src", "abi/Cargo.toml", "programs/src"].map(|p| root.path().join(p));
        assert_eq!(inputs(root.path()), expected);
    }

    #[test]
    fn an_error_carries_the_end_of_the_output() {
        assert_eq!(last_lines("a\nb\nc", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
    }
}
