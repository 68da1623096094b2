//! etcd's refusals, code and text as its clients know them (etcd 3.4 to 3.6, `api/v3rpc/rpctypes/error.go`).

use tonic::Status;

pub(super) fn permission_denied() -> Status {
    Status::permission_denied("etcdserver: permission denied")
}

/// As etcd words the same inside a watch's cancel reason.
pub(super) const PERMISSION_DENIED_REASON: &str =
    "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

pub(super) fn empty_key() -> Status {
    Status::invalid_argument("etcdserver: key is not provided")
}

pub(super) fn compacted() -> Status {
    Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
}

pub(super) fn future_revision() -> Status {
    Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
}

pub(super) fn too_many_requests() -> Status {
    Status::resource_exhausted("etcdserver: too many requests")
}

/// Nothing was read from the store yet.
pub(super) fn no_leader() -> Status {
    Status::unavailable(NO_LEADER)
}

pub(super) const NO_LEADER: &str = "etcdserver: no leader";

/// The server ends, or the store's revisions begin anew: the client must connect again.
pub(super) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

pub(super) fn invalid_sort() -> Status {
    Status::invalid_argument("etcdserver: invalid sort option")
}
