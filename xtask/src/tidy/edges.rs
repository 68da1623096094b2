//! Who may not use whom, and why. A new edge is a design change: `docs/architecture.md` gets a line with it.

use super::Violation;
use super::metadata::Graph;

/// `from` must not reach any of `to`, directly or through others.
struct Forbidden {
    from: &'static str,
    to: &'static [&'static str],
    why: &'static str,
}

const IO: &[&str] = &["tokio", "tonic", "kube", "etcd-client", "socket2", "rand", "hyper", "rustls", "nix", "aya"];

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        from: "fabric-core",
        to: IO,
        why: "the core decides; sockets, files, clocks and randomness are arguments",
    },
    Forbidden {
        from: "fabric-ebpf-abi",
        to: &["fabric-core", "fabric-ebpf-logic", "tokio"],
        why: "the contract between kernel and agent stands alone",
    },
    Forbidden {
        from: "fabric-ebpf-logic",
        // Not aya: user space asks the abi for its marker traits, and Cargo joins features.
        to: &["fabric-core", "tokio", "aya-ebpf"],
        why: "it is compiled for the kernel as well",
    },
    Forbidden {
        from: "fabric-wireguard",
        to: &["fabric-core", "fabric-agent", "fabric-ebpf-abi", "clustermesh-api-proto", "tokio"],
        why: "the engine knows nothing of clusters, and its packet path is threads, not tasks",
    },
    Forbidden {
        from: "clustermesh-api",
        to: &["fabric-agent", "fabric-agent-datapath", "fabric-ebpf-logic", "fabric-wireguard", "fabric-cli", "aya"],
        why: "the control plane runs without a node",
    },
    Forbidden {
        from: "fabric-agent",
        to: &["clustermesh-api", "fabric-cli", "etcd-client"],
        why: "an agent talks to its API, never to a store; it uses the generated client alone",
    },
    Forbidden {
        from: "clustermesh-api-proto",
        to: &["fabric-core", "fabric-agent", "clustermesh-api"],
        why: "generated messages know no domain",
    },
];

const OURS_FREE_OF_CLI: &str = "fabric-cli";
const NOT_USED: &str = "fabric-tests";

pub(crate) fn check(graph: &Graph) -> Vec<Violation> {
    let mut found = Vec::new();
    for rule in FORBIDDEN {
        let reach = graph.reach(rule.from);
        if reach.is_empty() && !graph.direct.contains_key(rule.from) {
            found.push(format!("xtask/src/tidy/edges.rs: package {} is gone; mend the list", rule.from));
        }
        for to in rule.to.iter().filter(|t| reach.contains(**t)) {
            found.push(format!("{} must not reach {to}: {}", rule.from, rule.why));
        }
    }
    for (from, to) in &graph.direct {
        if to.contains(OURS_FREE_OF_CLI) && from != NOT_USED {
            found.push(format!("{from} uses {OURS_FREE_OF_CLI}: only the tests may"));
        }
        if to.contains(NOT_USED) {
            found.push(format!("{from} uses {NOT_USED}: nothing may"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for rule in FORBIDDEN {
            graph.direct.entry(rule.from.to_owned()).or_default();
        }
        for (from, to) in edges {
            graph.direct.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    }

    #[test]
    fn indirect_edge_is_found() {
        let found = check(&graph(&[("fabric-core", "some-crate"), ("some-crate", "tokio")]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.iter().all(|f| f.contains("fabric-core must not reach tokio")), "{found:?}");
    }

    #[test]
    fn allowed_edges_pass() {
        assert_eq!(
            check(&graph(&[("fabric-agent", "fabric-core"), ("fabric-tests", "fabric-cli")])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn nothing_uses_the_command_line() {
        assert_eq!(check(&graph(&[("clustermesh-api", "fabric-cli")])).len(), 2);
    }
}
