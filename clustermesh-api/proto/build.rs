//! Generates Rust from the `.proto` files, without needing `protoc`.
use std::path::PathBuf;

const FILES: [&str; 10] = [
    "fabric/v1/types.proto",
    "fabric/v1/agent.proto",
    "fabric/v1/enrol.proto",
    "fabric/v1/admin.proto",
    "fabric/v1/local.proto",
    "flow/flow.proto",
    "relay/relay.proto",
    "peer/peer.proto",
    "observer/observer.proto",
    "etcd/rpc.proto",
];

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let set = protox::compile(FILES, [&root])?;
    // Keys and values pass through our servers unchanged: shared bytes, not copies.
    tonic_prost_build::configure().bytes(".etcdserverpb").bytes(".mvccpb").compile_fds(set)?;
    Ok(())
}
