//! Every test: unit and property tests, then those that need root, the kernel and namespaces.

use std::process::Command;

use anyhow::Result;

use crate::run::{root, run_command};

pub(crate) fn run(filter: Option<&str>) -> Result<()> {
    let mut c = Command::new("cargo");
    // The same profile as the executable, so that the dependencies are built once.
    c.current_dir(root()?).args(["test", "--release", "--locked", "--workspace", "--no-fail-fast"]);
    if let Some(filter) = filter {
        c.args(["--", filter]);
    }
    run_command(&mut c)
}
