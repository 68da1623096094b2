//! Files that are made from code. A test beside the code holds them to it.

use anyhow::Result;

use crate::run::{output, root};

pub(crate) fn run() -> Result<()> {
    let page = output(
        "cargo",
        &["run", "-q", "--release", "--locked", "-p", "fabric-cli", "--bin", "fabric", "--", "reference"],
    )?;
    std::fs::write(root()?.join("docs/cli.md"), page)?;
    Ok(())
}
