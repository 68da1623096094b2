//! Rules on single files: size, module docs, names, unsafe code, attributes, words.

use std::collections::BTreeSet;

use super::Violation;

/// A file's limit in lines, without its tests (`docs/style.md` section 7).
const MAX_LINES: usize = 800;

/// The top level is fixed; a new entry needs a reason in its change.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "charts",
    "clippy.toml",
    "clustermesh-api",
    "deny.toml",
    "docs",
    "ebpf",
    "fabric-agent",
    "fabric-cli",
    "fabric-core",
    "rustfmt.toml",
    "terraform",
    "tests",
    "wireguard",
    "xtask",
];

/// Folders and files whose modules may hold unsafe code, each for a reason of its own.
const UNSAFE_ALLOWED: &[&str] = &[
    "ebpf/programs/",                // contexts, helpers, map pointers
    "ebpf/abi/src/",                 // marker traits for plain data, shared cells
    "fabric-agent/datapath/src/sys", // bpf system calls
    "fabric-agent/src/sys",          // namespaces, netlink
    "wireguard/src/io",              // devices and sockets
    "xtask/src/tidy/files.rs",       // this rule names the word
];

const BANNED_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager"];

pub(crate) fn top_level(tracked: &[&str]) -> Vec<Violation> {
    let entries: BTreeSet<&str> = tracked.iter().filter_map(|f| f.split('/').next()).collect();
    let unknown = entries.into_iter().filter(|e| !TOP_LEVEL.contains(e));
    unknown.map(|e| format!("{e}: the top level is fixed; see xtask/src/tidy/files.rs")).collect()
}

pub(crate) fn check(path: &str, text: &str) -> Vec<Violation> {
    if std::path::Path::new(path).extension().is_none_or(|e| e != "rs") {
        return Vec::new();
    }
    let mut found = Vec::new();
    let lines = text.lines().take_while(|l| l.trim() != "#[cfg(test)]").count();
    if lines > MAX_LINES {
        found.push(format!("{path}: {lines} lines without tests, at most {MAX_LINES}; split it"));
    }
    if !text.starts_with("//!") {
        found.push(format!("{path}:1: begins without a module doc (//!)"));
    }
    let stem = path.rsplit('/').next().and_then(|f| f.strip_suffix(".rs")).unwrap_or_default();
    if BANNED_NAMES.contains(&stem) {
        found.push(format!("{path}: a file is named for the thing in it, not {stem:?}"));
    }
    if stem == "mod" {
        found.push(format!("{path}: use {}.rs beside the folder", path.trim_end_matches("/mod.rs")));
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(what) = broken(path, line) {
            found.push(format!("{path}:{}: {what}", number + 1));
        }
    }
    found
}

/// What is wrong with a single line.
fn broken(path: &str, line: &str) -> Option<String> {
    let code = line.split("//").next().unwrap_or_default();
    if path == "xtask/src/tidy/files.rs" {
        return None;
    }
    if code.contains("#[allow(") {
        return Some("use #[expect(lint, reason = \"...\")] instead of #[allow]".to_owned());
    }
    if (code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn"))
        && !UNSAFE_ALLOWED.iter().any(|a| path.starts_with(a))
    {
        return Some("unsafe code outside the modules that may hold it".to_owned());
    }
    if code.contains("todo!(") || code.contains("unimplemented!(") {
        return Some("a stub".to_owned());
    }
    if line.contains("TODO") && !line.contains("TODO(#") {
        return Some("a TODO names its issue: TODO(#123)".to_owned());
    }
    if code.contains("#[ignore") && !code.contains("#[ignore = \"#") {
        return Some("an ignored test names its issue: #[ignore = \"#123 why\"]".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_file_passes() {
        assert_eq!(check("a/src/b.rs", "//! Doc.\nfn f() {}\n"), Vec::<String>::new());
    }

    #[test]
    fn each_rule_bites() {
        for (path, text) in [
            ("a/src/b.rs", "fn f() {}\n"),
            ("a/src/utils.rs", "//! Doc.\n"),
            ("a/src/x/mod.rs", "//! Doc.\n"),
            ("a/src/b.rs", "//! Doc.\n#[allow(dead_code)]\nfn f() {}\n"),
            ("a/src/b.rs", "//! Doc.\nfn f() { unsafe { g() } }\n"),
            ("a/src/b.rs", "//! Doc.\nfn f() { todo!() }\n"),
            ("a/src/b.rs", "//! Doc.\n// TODO: later\n"),
            ("a/src/b.rs", "//! Doc.\n#[ignore]\nfn f() {}\n"),
        ] {
            assert_eq!(check(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn tests_do_not_count_to_the_size() {
        let long = format!("//! Doc.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(2 * MAX_LINES));
        assert_eq!(check("a/src/b.rs", &long), Vec::<String>::new());
        assert_eq!(check("a/src/b.rs", &format!("//! Doc.\n{}", "\n".repeat(MAX_LINES))).len(), 1);
    }

    #[test]
    fn unknown_top_level_entry_is_named() {
        assert_eq!(top_level(&["docs/a.md", "stray.txt"]).len(), 1);
    }
}
