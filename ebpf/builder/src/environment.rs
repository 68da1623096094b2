//! The environment of the inner cargo: nothing of the outer one's may reach it, or it would build with the outer
//! compiler, flags and lock.

use std::{env, ffi::OsStr, process::Command};

use crate::toolchain::Tools;

/// `-g` for source lines in the verifier's log; BTF because the maps are described by it.
const RUSTFLAGS: &str = "-Cdebuginfo=2\u{1f}-Clink-arg=--btf";

/// Settings of the user's that say how to reach a registry: these stay.
const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
/// What a cargo sets for build scripts, and what a user sets for the host's build.
const REMOVED: [&str; 8] =
    ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUST_RECURSION", "DEP_", "CLIPPY_"];
/// The same, whole names.
const REMOVED_EXACT: [&str; 9] =
    ["OUT_DIR", "TARGET", "HOST", "PROFILE", "OPT_LEVEL", "DEBUG", "NUM_JOBS", "SYSROOT", "MAKEFLAGS"];

/// Makes `command` independent of the cargo that runs us.
pub(crate) fn isolate(command: &mut Command, tools: &Tools) {
    for (name, _) in env::vars_os() {
        if is_removed(&name) {
            command.env_remove(name);
        }
    }
    // The outer cargo puts its compiler's libraries in front; the inner compiler brings its own.
    if let Some(value) = env::var_os("LD_LIBRARY_PATH") {
        match library_path(&value) {
            Some(kept) => command.env("LD_LIBRARY_PATH", kept),
            None => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
    command.env("RUSTC", &tools.rustc);
    command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &tools.linker);
    command.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS);
    // The programs name versions that fit an older compiler than the registry's newest ask for.
    command.env("CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS", "fallback");
    if tools.needs_bootstrap {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
}

fn is_removed(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    if KEPT.iter().any(|k| name.starts_with(k)) {
        return false;
    }
    REMOVED.iter().any(|r| name.starts_with(r)) || REMOVED_EXACT.contains(&name)
}

fn library_path(value: &OsStr) -> Option<std::ffi::OsString> {
    let outer = |p: &std::path::PathBuf| {
        let is = |name: &str| p.components().any(|c| c.as_os_str() == name);
        is("toolchains") || is("rustlib") || is("target")
    };
    let kept: Vec<_> = env::split_paths(value).filter(|p| !outer(p) && !p.as_os_str().is_empty()).collect();
    if kept.is_empty() { None } else { env::join_paths(kept).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_settings_go_and_the_way_to_a_registry_stays() {
        for name in [
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_MAKEFLAGS",
            "RUSTUP_TOOLCHAIN",
            "OUT_DIR",
            "TARGET",
        ] {
            assert!(is_removed(OsStr::new(name)), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_REGISTRIES_MINE_TOKEN",
            "RUSTUP_HOME",
            "PATH",
            "HOME",
            "TARGETS",
            "https_proxy",
        ] {
            assert!(!is_removed(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn library_path_loses_the_outer_compiler_only() {
        let value = OsStr::new("/w/target/debug/deps:/home/u/.rustup/toolchains/stable/lib:/opt/lib");
        assert_eq!(library_path(value).unwrap(), "/opt/lib");
        assert_eq!(library_path(OsStr::new("/w/target/debug")), None);
    }
}
