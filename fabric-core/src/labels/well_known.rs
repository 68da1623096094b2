//! Sources and keys with a meaning. Source: `wire.md` 2.2, section 6.

/// Labels that come from a workload's definition; ours for machines and plain workloads too.
pub const SOURCE_K8S: &str = "k8s";
/// Labels of reserved identities: `reserved:host`.
pub const SOURCE_RESERVED: &str = "reserved";
/// Labels of CIDR identities: `cidr:10.0.0.0/8`.
pub const SOURCE_CIDR: &str = "cidr";
/// In selectors: whatever the source.
pub const SOURCE_ANY: &str = "any";
/// No source given.
pub const SOURCE_UNSPEC: &str = "unspec";

/// Key of the namespace's name.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Key of the cluster's name; readers refuse an identity without it.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// Key of the service account's name.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// Keys of the namespace's own labels begin so.
pub const NAMESPACE_LABELS_PREFIX: &str = "io.cilium.k8s.namespace.labels.";
/// Label that Kubernetes itself puts on each namespace; its value is the name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Keys that begin so are set by the system alone.
pub const RESERVED_KEY_PREFIXES: [&str; 2] = ["io.cilium.", "io.kubernetes."];
