//! Which of our packages reaches which others, from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::run::output;

/// Normal dependencies (not of tests, not of builds) of every package, direct ones.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) direct: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// All packages that `from` needs, directly or not.
    pub(crate) fn reach(&self, from: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![from.to_owned()];
        while let Some(name) = todo.pop() {
            for next in self.direct.get(&name).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    todo.push(next.clone());
                }
            }
        }
        seen
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
}

#[derive(Deserialize)]
struct Dep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Deserialize)]
struct DepKind {
    kind: Option<String>,
}

pub(crate) fn read() -> Result<Graph> {
    let text = output("cargo", &["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata has another shape than expected")?;
    let names: BTreeMap<&str, &str> = metadata.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
    let mut graph = Graph::default();
    for node in &metadata.resolve.nodes {
        let Some(from) = names.get(node.id.as_str()) else { continue };
        let entry = graph.direct.entry((*from).to_owned()).or_default();
        for dep in node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind.is_none())) {
            if let Some(to) = names.get(dep.pkg.as_str()) {
                entry.insert((*to).to_owned());
            }
        }
    }
    Ok(graph)
}
