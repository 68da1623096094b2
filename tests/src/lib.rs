//! What whole-system tests share: topologies of the built executable in namespaces, captures decoded by another
//! implementation, traffic whose loss is counted.
//!
//! Where to begin reading: [`Mesh`], then any file in `tests/`.

pub mod capture;
pub mod mesh;
pub mod traffic;

pub use capture::Capture;
pub use mesh::{Mesh, Workload};

/// Whole-system tests need root, namespaces and eBPF; the suite runs as root, so this says loudly when it is not.
///
/// # Panics
/// When not root.
pub fn require_root() {
    assert!(nix::unistd::geteuid().is_root(), "whole-system tests need root: run `make test`");
}
