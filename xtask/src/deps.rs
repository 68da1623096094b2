//! What Fabric needs on a machine, as data: Debian packages and tools built from crates.

/// A program, and the Debian package that brings it.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package { name, why }
}

/// To build and to run the demo.
pub(crate) const PACKAGES: &[Package] = &[
    package("etcd-server", "the store of each cluster"),
    package("etcd-client", "tests: etcdctl against the mesh endpoint"),
    package("iproute2", "the demo's namespaces and links"),
    package("protobuf-compiler", "build: etcd-client generates its messages"),
    package("libprotobuf-dev", "build: well-known types for the same"),
    package("gcc", "build: aws-lc and ring"),
    package("cmake", "build: aws-lc"),
    package("tshark", "tests: captures decoded by another implementation"),
    package("tcpdump", "tests: captures"),
    package("wireguard-tools", "tests: wg"),
    package("wireguard-go", "tests: another WireGuard implementation as the peer"),
    package("iperf3", "tests and benches: traffic"),
    package("iputils-ping", "tests and demo: ping"),
    package("netcat-openbsd", "tests: plain sockets"),
    package("ethtool", "tests: offloads of a device"),
    package("bpftool", "tests: a second reader of the pinned maps"),
    package("socat", "tests: UDP and TCP servers"),
    package("openssl", "tests: certificates of a foreign authority"),
    package("jq", "docs: commands of the quick start"),
];

/// Needed where rustup has no nightly with `rust-src` and cannot fetch one.
pub(crate) const EBPF_PACKAGES: &[Package] = &[
    package("rustc-web", "a compiler whose sources are packaged"),
    package("cargo-web", "its cargo"),
    package("rust-web-src", "sources of core, built for the eBPF target"),
];

/// What bpf-linker is linked with.
pub(crate) const LINKER_PACKAGES: &[Package] = &[
    package("llvm-22-dev", "bpf-linker"),
    package("libpolly-22-dev", "bpf-linker"),
    package("libzstd-dev", "bpf-linker"),
    package("zlib1g-dev", "bpf-linker"),
    package("libxml2-dev", "bpf-linker"),
];

pub(crate) const BPF_LINKER: &str = "0.13.0";
pub(crate) const CARGO_DENY: &str = "0.20.2";
