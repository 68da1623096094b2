//! `make bench NAME=x`: runs one measurement, prints its table and writes `target/bench/x.json`.
//!
//! A measurement is an executable of the `tests` crate named `bench-NAME` that prints a JSON list of
//! `{metric, value, unit, against, ratio}` on standard output.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::run::root;

#[derive(Serialize, Deserialize)]
struct Figure {
    metric: String,
    value: f64,
    unit: String,
    /// What it is compared with in the same run; empty where there is nothing.
    against: String,
    /// value / that; 0 where there is nothing.
    ratio: f64,
}

pub(crate) fn run(name: Option<&str>) -> Result<()> {
    let root = root()?;
    let known = names(&root)?;
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        bail!("which one? NAME is one of: {}", known.join(", "));
    };
    if !known.iter().any(|k| k == name) {
        bail!("there is no measurement {name:?}; NAME is one of: {}", known.join(", "));
    }
    let mut c = Command::new("cargo");
    c.current_dir(&root).args(["run", "--release", "--locked", "-q", "-p", "fabric-tests", "--bin"]);
    let out = c.arg(format!("bench-{name}")).stderr(std::process::Stdio::inherit()).output()?;
    if !out.status.success() {
        bail!("bench-{name} ended with {}", out.status);
    }
    let figures: Vec<Figure> = serde_json::from_slice(&out.stdout).context("its output is not the list of figures")?;
    print(&figures);
    let dir = root.join("target/bench");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(&figures)?)?;
    Ok(())
}

fn names(root: &std::path::Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("tests/src/bin"))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = file.strip_prefix("bench-").and_then(|f| f.strip_suffix(".rs")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[expect(clippy::print_stdout, reason = "the table is the answer")]
fn print(figures: &[Figure]) {
    println!("{:<32} {:>14} {:<10} {:>8}  AGAINST", "METRIC", "VALUE", "UNIT", "RATIO");
    for f in figures {
        println!("{:<32} {:>14.3} {:<10} {:>8.3}  {}", f.metric, f.value, f.unit, f.ratio, f.against);
    }
}
