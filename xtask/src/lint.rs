//! Formatting, clippy with warnings denied, our own rules, licences and sources of dependencies.

use std::process::Command;

use anyhow::Result;

use crate::run::{self, root, run_command, tools_dir};
use crate::tidy;

pub(crate) fn run() -> Result<()> {
    let root = root()?;
    std::env::set_current_dir(&root)?;
    run::run("cargo", &["fmt", "--all", "--check"])?;
    let mut clippy = Command::new("cargo");
    clippy.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]);
    run_command(&mut clippy)?;
    tidy::run()?;
    deny()
}

/// Licences, bans and sources always; advisories only where their database can be had.
fn deny() -> Result<()> {
    let deny = tools_dir()?.join("bin/cargo-deny");
    let check = |what: &[&str]| {
        let mut c = Command::new(&deny);
        run_command(c.args(["--all-features", "check", "--hide-inclusion-graph"]).args(what))
    };
    check(&["licenses", "bans", "sources"])?;
    if let Err(error) = check(&["advisories"]) {
        report(&format!(
            "advisories not checked, or some found (not fatal where the database is out of reach): {error}"
        ));
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress of a command line tool")]
fn report(line: &str) {
    eprintln!("lint: {line}");
}
