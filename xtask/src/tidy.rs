//! The rules of this code base that no compiler knows. Each returns the violations that it found.

mod edges;
mod files;
mod metadata;

use anyhow::{Result, bail};

use crate::run::{output, root};

/// One broken rule, as `path:line: what is wrong, and what to do`.
pub(crate) type Violation = String;

pub(crate) fn run() -> Result<()> {
    let root = root()?;
    std::env::set_current_dir(&root)?;
    let tracked = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    let tracked: Vec<&str> = tracked.lines().filter(|f| root.join(f).is_file()).collect();
    let mut found = files::top_level(&tracked);
    for file in &tracked {
        let Ok(text) = std::fs::read_to_string(root.join(file)) else { continue };
        found.extend(files::check(file, &text));
    }
    found.extend(edges::check(&metadata::read()?));
    if found.is_empty() {
        report(&format!("tidy: {} files hold to the rules", tracked.len()));
        return Ok(());
    }
    for violation in &found {
        report(violation);
    }
    bail!("tidy: {} violations", found.len())
}

#[expect(clippy::print_stderr, reason = "the findings are what this tool says")]
fn report(line: &str) {
    eprintln!("{line}");
}
