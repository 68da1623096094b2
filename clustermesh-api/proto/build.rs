//! Generates Rust from the `.proto` files, without needing `protoc`.
use std::path::PathBuf;

const FILES: [&str; 5] = [
    "fabric/v1/types.proto",
    "fabric/v1/agent.proto",
    "fabric/v1/enrol.proto",
    "fabric/v1/admin.proto",
    "fabric/v1/local.proto",
];

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let set = protox::compile(FILES, [&root])?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}
