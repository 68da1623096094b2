//! What etcd would answer to a Range; no I/O.
//!
//! Source: etcd 3.4 to 3.6, `server/etcdserver/txn` (order of filters, sort and limit); checked against real etcd in
//! `tests`.

use std::cmp::Ordering;

use clustermesh_api_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use clustermesh_api_proto::etcdserverpb::{RangeRequest, RangeResponse};
use clustermesh_api_proto::mvccpb;
use tonic::Status;

use super::errors::{compacted, empty_key, future_revision, invalid_sort, permission_denied};
use super::scope::Scope;
use crate::store::view::keyspace::{Keyspace, Unreadable};
use crate::store::{KeyRange, KeyValue};

/// How the keys are to be ordered; `None`: as they come, by key.
type Sort = Option<(SortTarget, SortOrder)>;

pub(super) fn range(keyspace: &Keyspace, scope: &Scope, request: &RangeRequest) -> Result<RangeResponse, Status> {
    if request.key.is_empty() {
        return Err(empty_key());
    }
    let sort = sort(request)?;
    let wanted = KeyRange::from_wire(request.key.clone(), request.range_end.clone());
    if !scope.permits(&wanted) {
        return Err(permission_denied());
    }
    let revision = keyspace.readable(request.revision).map_err(|unreadable| match unreadable {
        Unreadable::Compacted => compacted(),
        Unreadable::Future => future_revision(),
    })?;
    // Seam: counting walks the whole range for every page. A count kept from page to page of one revision would do.
    let seen = keyspace.range(&wanted, revision).filter(|kv| scope.shows(&kv.key));
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    // As etcd: without a filter or an order of sort, only as much is taken as is asked for, and then sorted.
    let early = if request.sort_order == SortOrder::None as i32 && !filters(request) { limit } else { None };
    let (mut kvs, mut count) = (Vec::new(), 0i64);
    for kv in seen {
        count += 1;
        let room = early.is_none_or(|limit| kvs.len() <= limit);
        if !request.count_only && room {
            kvs.push(kv);
        }
    }
    kvs.retain(|kv| keeps(request, kv));
    if let Some((target, order)) = sort {
        kvs.sort_by(|a, b| compare(target, order, a, b));
    }
    let more = limit.is_some_and(|limit| kvs.len() > limit);
    kvs.truncate(limit.unwrap_or(usize::MAX));
    let kvs = kvs.into_iter().map(|kv| wire(kv, request.keys_only)).collect();
    Ok(RangeResponse { header: Some(keyspace.header().into()), kvs, more, count })
}

fn sort(request: &RangeRequest) -> Result<Sort, Status> {
    let target = SortTarget::try_from(request.sort_target).map_err(|_| invalid_sort())?;
    let order = SortOrder::try_from(request.sort_order).map_err(|_| invalid_sort())?;
    Ok(match (target, order) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
        (target, SortOrder::None) => Some((target, SortOrder::Ascend)),
        chosen => Some(chosen),
    })
}

fn compare(target: SortTarget, order: SortOrder, a: &KeyValue, b: &KeyValue) -> Ordering {
    let ascending = match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    if order == SortOrder::Descend { ascending.reverse() } else { ascending }
}

fn filters(request: &RangeRequest) -> bool {
    [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision]
        .iter()
        .any(|bound| *bound != 0)
}

fn keeps(request: &RangeRequest, kv: &KeyValue) -> bool {
    // A bound of 0 is none.
    let within = |min: i64, max: i64, revision: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    within(request.min_mod_revision, request.max_mod_revision, kv.mod_revision)
        && within(request.min_create_revision, request.max_create_revision, kv.create_revision)
}

fn wire(kv: &KeyValue, keys_only: bool) -> mvccpb::KeyValue {
    let mut kv = mvccpb::KeyValue::from(kv.clone());
    if keys_only {
        kv.value.clear();
    }
    kv
}
