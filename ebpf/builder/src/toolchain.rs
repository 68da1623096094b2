//! Which compiler and linker build for BPF on this machine.
//!
//! `core` must be built from source, so a compiler counts only with its sources. In order: a nightly of rustup's with
//! the component `rust-src`; the system's `/usr/bin/rustc` with its sources (Debian: `rustc-web cargo-web
//! rust-web-src`), told to accept unstable options.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest Rust that compiles the programs (the workspace's `rust-version`).
const OLDEST: (u32, u32) = (1, 95);

/// What builds the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The compiler.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// bpf-linker.
    pub linker: PathBuf,
    /// A stable compiler that must be told to accept unstable options.
    pub needs_bootstrap: bool,
}

/// What is missing, and how to get it.
#[derive(Debug, thiserror::Error)]
pub enum MissingTool {
    /// No compiler with the sources of `core`.
    #[error(
        "no Rust toolchain here can build for eBPF:\n{}get one of:\n  rustup toolchain install nightly --component rust-src\n  apt-get install rustc-web cargo-web rust-web-src   (Debian)\nor let `make setup` choose",
        lines(.looked)
    )]
    Compiler {
        /// Where it was looked for, and what spoke against each.
        looked: Vec<Rejected>,
    },
    /// No bpf-linker.
    #[error(
        "bpf-linker is neither on PATH nor in {}\nget it with:\n  cargo install bpf-linker --version 0.13.0   (the machine's LLVM must be at least the compiler's)\nor let `make setup` do it",
        .cache.display()
    )]
    Linker {
        /// The folder that was looked into beside PATH.
        cache: PathBuf,
    },
}

/// A compiler that does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which.
    pub what: String,
    /// Why not.
    pub why: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

fn lines(rejected: &[Rejected]) -> String {
    rejected.iter().fold(String::new(), |text, r| text + &format!("  {r}\n"))
}

impl Tools {
    /// Finds a compiler and a linker.
    ///
    /// # Errors
    /// When either is missing.
    pub fn find() -> Result<Self, MissingTool> {
        let linker = find_linker()?;
        let mut looked = Vec::new();
        let found = rustup_nightly(&mut looked).or_else(|| system(&mut looked));
        let Some((rustc, cargo, needs_bootstrap)) = found else { return Err(MissingTool::Compiler { looked }) };
        Ok(Self { rustc, cargo, linker, needs_bootstrap })
    }
}

type Found = (PathBuf, PathBuf, bool);

fn rustup_nightly(looked: &mut Vec<Rejected>) -> Option<Found> {
    let names = match output(Path::new("rustup"), &["toolchain", "list"]) {
        Ok(list) => nightlies(&list),
        Err(why) => {
            looked.push(Rejected { what: "rustup".into(), why });
            return None;
        }
    };
    if names.is_empty() {
        looked.push(Rejected { what: "rustup".into(), why: "has no nightly toolchain".into() });
    }
    for name in names {
        // Run through rustup only to learn the path: the rest must not depend on its wrappers' environment.
        let sysroot = output(Path::new("rustup"), &["run", &name, "rustc", "--print", "sysroot"]);
        let found = sysroot.and_then(|s| {
            let bin = PathBuf::from(s.trim()).join("bin");
            usable(&bin.join("rustc"), &bin.join("cargo"), "its component rust-src is not installed")
        });
        match found {
            Ok((rustc, cargo)) => return Some((rustc, cargo, false)),
            Err(why) => looked.push(Rejected { what: format!("rustup's {name}"), why }),
        }
    }
    None
}

fn system(looked: &mut Vec<Rejected>) -> Option<Found> {
    let (rustc, cargo) = (Path::new("/usr/bin/rustc"), Path::new("/usr/bin/cargo"));
    match usable(rustc, cargo, "the sources of its standard library are not installed (rust-web-src)") {
        Ok((rustc, cargo)) => Some((rustc, cargo, true)),
        Err(why) => {
            looked.push(Rejected { what: rustc.display().to_string(), why });
            None
        }
    }
}

/// Says why this pair will not do, if so.
fn usable(rustc: &Path, cargo: &Path, no_sources: &str) -> Result<(PathBuf, PathBuf), String> {
    for tool in [rustc, cargo] {
        if !tool.is_file() {
            return Err(format!("{} does not exist", tool.display()));
        }
    }
    let version = output(rustc, &["--version"])?;
    if version_of(&version).is_none_or(|v| v < OLDEST) {
        return Err(format!("is {}, Rust {}.{} or newer is needed", version.trim(), OLDEST.0, OLDEST.1));
    }
    let sysroot = PathBuf::from(output(rustc, &["--print", "sysroot"])?.trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
        return Err(no_sources.to_owned());
    }
    Ok((rustc.to_owned(), cargo.to_owned()))
}

fn find_linker() -> Result<PathBuf, MissingTool> {
    let cache = env::var_os("HOME").map(PathBuf::from).unwrap_or_default().join(".cache/fabric/tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs = env::split_paths(&path).chain([cache.clone()]).map(|d| d.join("bpf-linker"));
    dirs.find(|p| p.is_file()).ok_or(MissingTool::Linker { cache })
}

/// Standard output of a short command, or why there is none. The outer cargo's choice of toolchain must not answer.
fn output(program: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env_remove("LD_LIBRARY_PATH");
    let done = command.output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "is not installed".to_owned(),
        _ => e.to_string(),
    })?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        return Err(text.lines().next().unwrap_or("failed without a word").to_owned());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn nightlies(list: &str) -> Vec<String> {
    let first_words = list.lines().filter_map(|l| l.split_whitespace().next());
    first_words.filter(|n| n.starts_with("nightly")).map(str::to_owned).collect()
}

/// `rustc 1.96.0 (…)` or `rustc 1.97.0-nightly (…)` as (1, 96).
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split_whitespace().nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nightlies_are_taken_from_rustups_list() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\nnightly-x86_64-unknown-linux-gnu\nnightly-2026-05-01-x86_64-unknown-linux-gnu\n";
        assert_eq!(
            nightlies(list),
            ["nightly-x86_64-unknown-linux-gnu", "nightly-2026-05-01-x86_64-unknown-linux-gnu"]
        );
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version_of("rustc 1.97.0-nightly (abc 2026-05-01)"), Some((1, 97)));
        assert_eq!(version_of("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"), Some((1, 96)));
        assert_eq!(version_of("command not found"), None);
    }

    #[test]
    fn a_missing_compiler_is_named_with_the_commands_that_bring_one() {
        let looked =
            vec![Rejected { what: "rustup's nightly".into(), why: "its component rust-src is not installed".into() }];
        let text = MissingTool::Compiler { looked }.to_string();
        assert!(text.contains("rustup's nightly: its component rust-src is not installed"), "{text}");
        assert!(text.contains("rustup toolchain install nightly --component rust-src"), "{text}");
        assert!(text.contains("apt-get install rustc-web cargo-web rust-web-src"), "{text}");
    }
}
