//! The table itself, sorted by code.

use super::{Entry, ErrorCode};

/// One constant per code, and the sorted list of all.
macro_rules! catalogue {
    ($($number:literal $name:ident { $title:literal, $meaning:literal, $action:literal })*) => {
        $(
            #[doc = concat!($title, ".")]
            pub const $name: ErrorCode = ErrorCode($number);
        )*

        /// Every code, sorted.
        pub const CATALOGUE: &[Entry] = &[
            $(Entry { code: $name, title: $title, meaning: $meaning, action: $action },)*
        ];
    };
}

catalogue! {
    1001 NOT_ROOT {
        "root is needed",
        "the command changes interfaces, mounts or eBPF programs of this machine; only root may.",
        "run it again with sudo." }
    1002 MALFORMED_DOCUMENT {
        "the document cannot be read",
        "the file is not valid YAML or JSON, or a value has the wrong type. Nothing was applied.",
        "mend the line that the message names and apply again." }
    1003 UNKNOWN_FIELD {
        "the document has a field that is not known or not supported",
        "a field that would be ignored could mean less protection than its author thinks, so it is refused. Nothing was applied.",
        "remove the field or spell it as the message suggests; `fabric apply --dry-run` checks without writing." }
    1004 INVALID_ARGUMENT {
        "an argument is not valid",
        "a name, address, label or number on the command line is not in its allowed form.",
        "see --help of the command; names are lower-case letters, digits and '-'." }
    1005 NO_CONTEXT {
        "no such context",
        "the command needs to know which cluster to talk to and no context of that name is configured.",
        "`fabric up` writes a context; choose one with --context, or look into ~/.config/fabric/config." }
    1006 FORBIDDEN {
        "the certificate does not allow this",
        "the API knows the caller, but its role may not do what was asked.",
        "use a context with an admin certificate of that cluster." }
    1007 NOT_FOUND {
        "no such object",
        "nothing of that kind and name exists in the cluster.",
        "list what there is with `fabric get` or the list command of its noun." }

    2101 SAME_CLUSTER_ID {
        "both clusters have the same id",
        "identities carry the id of their cluster; with equal ids one cluster's workloads would pass for the other's.",
        "re-create the emptier cluster with another id: `fabric up --cluster NAME --id N --recreate`." }
    2102 SAME_CLUSTER_NAME {
        "both clusters have the same name",
        "policies and keys name clusters; two of one name cannot be told apart.",
        "re-create the emptier cluster with another name: `fabric up --cluster OTHER --recreate`." }
    2103 OVERLAPPING_PREFIXES {
        "the clusters' workload prefixes overlap",
        "an address must belong to one cluster alone, or packets and encryption would go to the wrong one.",
        "re-create the emptier cluster with another prefix: `fabric up --cluster NAME --prefix P --recreate`." }
    2104 ROUTING_MISMATCH {
        "the clusters use different routing",
        "both sides must use the same of vxlan, geneve and native, or they cannot read each other's packets.",
        "re-create the emptier cluster with the other's: `fabric up --cluster NAME --routing R --recreate`." }
    2105 ENCRYPTION_MISMATCH {
        "one cluster encrypts and the other does not",
        "a cluster that encrypts drops clear packets, so nothing would arrive.",
        "re-create the emptier cluster like the other: `fabric up --cluster NAME --recreate`, with or without --no-encryption." }
    2106 NODE_INSIDE_PREFIX {
        "a node's own address lies inside a workload prefix",
        "control traffic and tunnels use node addresses and must never depend on the mesh that they carry.",
        "give the node an address outside, or re-create the cluster with another prefix." }
    2107 PATH_MTU_TOO_SMALL {
        "the path MTU is too small",
        "after encapsulation and encryption less than 1280 bytes are left, which IPv6 needs; or a hop passes less than its ends announced.",
        "raise the MTU of the underlay, or choose routing with less overhead." }
    2108 SERVICE_RANGE_OVERLAP {
        "a service range overlaps the other cluster's workload prefix",
        "packets to those workloads would be taken for service traffic and dropped.",
        "re-create the emptier cluster with another service range: `fabric up --cluster NAME --service-prefix P --recreate`." }
    2109 MESH_SIZE_MISMATCH {
        "the clusters are of meshes of different size",
        "a mesh is set for 255 or for 511 clusters; the number layout differs.",
        "set the remote to 255 clusters (`maxConnectedClusters: 255`)." }
    2110 SAME_NODE_ADDRESS {
        "a node of each cluster has the same address",
        "a tunnel's end must be one machine; the later claim is refused.",
        "give one of the two another address." }
    2111 CANNOT_CONNECT_SELF {
        "a cluster cannot be connected to itself",
        "both contexts lead to the same cluster.",
        "check the contexts: `fabric status --context NAME`." }
    2112 NO_ROUTE_TO_RANGE {
        "the underlay does not route a workload range",
        "native routing without encryption needs the underlay's routers to know every endpoint range.",
        "add the route that the message names, or use vxlan or geneve, or encryption." }

    2201 INVITE_MALFORMED {
        "the invite cannot be read",
        "the line is cut, has been changed on its way, or is not an invite. Nothing was changed.",
        "copy the whole line again, or make a new one: `fabric invite --peer NAME`." }
    2202 INVITE_EXPIRED {
        "the invite has expired",
        "invites live for minutes. Nothing was changed.",
        "ask the other side for a new one: `fabric invite --peer NAME`." }
    2203 INVITE_USED {
        "the invite was used before, or withdrawn",
        "an invite works once. Nothing was changed. If you did not use it, somebody else did: look at `fabric status` there.",
        "ask the other side for a new one: `fabric invite --peer NAME`." }
    2204 INVITE_OTHER_PEER {
        "the invite is for another cluster",
        "an invite names the one cluster that may use it. Nothing was changed.",
        "ask for an invite with your cluster's name: `fabric invite --peer NAME`." }

    2301 ENDPOINT_UNREACHABLE {
        "the other side cannot be reached",
        "no address of its API answered in time.",
        "check that the address is right, the port open (4250 and 2379) and the API running." }
    2302 WRONG_AUTHORITY {
        "the other side is not who it should be",
        "its certificate is not signed by the pinned authority: another cluster answers there, or somebody is in between.",
        "compare the fingerprints with the other side's owner before you connect again." }
    2303 CLOCK_WRONG {
        "a clock is wrong",
        "a certificate is not valid yet or any more by this machine's clock, though it was issued for now.",
        "set the clocks of both machines (NTP), then run the command again." }
    2304 ACCESS_NOT_GRANTED {
        "the other side knows us but has no link for us",
        "its authority check passed, but no link object there allows reading.",
        "connect again: `fabric connect A B`; on the other side look at `fabric status`." }

    3101 TOKEN_MALFORMED {
        "the token cannot be read",
        "the line is cut, has been changed on its way, or is not a token. Nothing was changed.",
        "copy the whole line again, or make a new one: `fabric token create`." }
    3102 TOKEN_EXPIRED {
        "the token has expired",
        "tokens live for a short time. Nothing was changed.",
        "make a new one: `fabric token create`." }
    3103 TOKEN_USED {
        "the token was used before, or revoked",
        "a token works once. If you did not use it, somebody else did: see who in `fabric token list`.",
        "make a new one: `fabric token create`; remove an unknown machine with `fabric node revoke`." }
    3104 NAME_TAKEN {
        "a node of that name exists",
        "a name belongs to the first that claimed it.",
        "choose another with --name, or remove the old one: `fabric node revoke NAME`." }
    3105 NODE_REVOKED {
        "this node was revoked",
        "its certificate is refused from now on.",
        "join again with a new token: `fabric token create`." }
    3106 ALREADY_JOINED {
        "this machine is a member already",
        "its state directory holds a membership.",
        "leave first: `fabric leave`, or use another --state-dir." }

    4101 KERNEL_FEATURE_MISSING {
        "the kernel lacks a feature that is needed",
        "the message names it. Nothing was changed.",
        "use a kernel of 6.6 or later with BPF, TCX and cgroup v2." }
    4102 PORT_TAKEN {
        "a port is in use",
        "another process listens on a port that is needed. Nothing was changed.",
        "stop that process (`ss -lnp`), or choose another port in the configuration." }
    4103 NO_SPACE {
        "the disk is full",
        "the data directory cannot be written; state that was there is kept.",
        "free space on the file system that the message names." }
    4104 NO_ADDRESSES_LEFT {
        "no address is left",
        "every address of the node's or cluster's range is taken.",
        "remove endpoints, or re-create the cluster with a larger prefix." }
    4105 DEVICE_MISSING {
        "a network device is missing",
        "the underlay device cannot be found, or the WireGuard device cannot be made; encrypted traffic is dropped meanwhile.",
        "name the device in the configuration; check that /dev/net/tun exists." }
    4106 STATE_UNREADABLE {
        "the state directory cannot be used",
        "it is not readable, not private (0700), or of a newer version.",
        "check its owner and mode, or choose another with --state-dir." }
    4107 CONFIG_INVALID {
        "the configuration is not valid",
        "a key is unknown or a value is out of range.",
        "mend the key that the message names." }

    5101 STORE_UNAVAILABLE {
        "the store does not answer",
        "etcd is away. What is known stays in force; writes fail until it is back.",
        "look at the API's log; a child etcd is restarted by itself." }
    5102 STORE_FULL {
        "the store is out of space",
        "etcd reached its quota and refuses writes.",
        "the API compacts and frees by itself; raise the quota when that is not enough." }
    5103 API_UNREACHABLE {
        "the cluster's API does not answer",
        "no address of the context answered in time.",
        "check that the API runs (`systemctl status clustermesh-api`) and that port 4250 is open." }
    5104 AGENT_UNREACHABLE {
        "the agent does not answer",
        "its socket is not there or nobody listens.",
        "check that the agent runs (`systemctl status fabric-agent`), or name its socket with --server." }
    5105 GARBAGE_IN_STORE {
        "a value in the store cannot be read",
        "something other than the API wrote a key. It is ignored and counted; everything else goes on.",
        "delete the key that the message names with etcdctl." }
    5106 CLAIM_REFUSED {
        "a publication was refused",
        "a node or a remote cluster said something that its grant does not allow. It is ignored and counted.",
        "see the reason in `fabric status`; if the node is yours, check its configuration, else tell its owner." }
    5107 STORE_LOCKED {
        "another API uses the data directory",
        "two would corrupt the store, so the second does not start.",
        "stop the other one, or choose another --state-dir." }
    5108 STORE_CHANGED {
        "the store is not the one it was",
        "it was restored from a backup or replaced; everything is read afresh.",
        "nothing, if you restored it; else find out who did." }

    6101 POLICY_UNSUPPORTED {
        "the policy uses a field that is not supported",
        "a rule that is ignored would be a hole, so the policy is refused by the field's name. Nothing was applied.",
        "remove the field; docs/concepts.md lists what is supported." }
    6102 OBJECT_INVALID {
        "the object is not valid",
        "a name, selector, port or address in it is not in its allowed form. Nothing was applied.",
        "mend the field that the message names." }
    6103 SERVICE_MISSING {
        "the cluster has no such service",
        "a service is shared by name; at least one cluster must have it.",
        "apply a Service of that name and namespace: `fabric apply -f`." }
}
