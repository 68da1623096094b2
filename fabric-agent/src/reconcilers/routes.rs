//! Routes of ours, and the rules by which the kernel comes to them.
//!
//! Both carry our protocol number; others' are never touched. Nothing is removed before the first full sync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fabric_core::backoff::Backoff;
use fabric_core::prefix::Prefix;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::datapath::Realised;
use crate::endpoint::wiring;
use crate::health::Health;
use crate::plan::routes::{RouteKey, key, routes};
use crate::sys::netlink::{Netlink, NetlinkError, Route};
use crate::tables::{Reader, Snapshot};

/// How often the kernel's routes are compared again.
const FULL_PASS: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(10);

/// Runs until cancelled. Begins when the maps were filled once: a route to `fabric0` before that would lead past them.
pub(crate) async fn run(
    netlink: Arc<Netlink>,
    mut tables: Reader,
    mut realised: watch::Receiver<Realised>,
    health: Health,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    // Rules lead nowhere before there are routes, and endpoints bring theirs as soon as they open.
    if let Err(error) = netlink.ensure_rules().await {
        health.set("routes", &error);
    }
    tokio::select! {
        filled = realised.wait_for(|realised| realised.passes > 0) => if filled.is_err() { return Ok(()) },
        () = cancel.cancelled() => return Ok(()),
    }
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST);
    loop {
        let mut wait = FULL_PASS;
        if let Some(snapshot) = tables.snapshot() {
            match pass(&netlink, &snapshot).await {
                Ok(()) => {
                    backoff.reset();
                    health.clear("routes");
                }
                Err(error) => {
                    wait = backoff.next(rand::random());
                    health.set("routes", &error);
                }
            }
        }
        tokio::select! {
            changed = tables.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(wait) => {}
            () = cancel.cancelled() => return Ok(()),
        }
    }
}

async fn pass(netlink: &Netlink, snapshot: &Snapshot) -> Result<(), NetlinkError> {
    netlink.ensure_rules().await?;
    let (mesh, local) = (&snapshot.mesh, &*snapshot.local);
    let on_link: Vec<Prefix> = netlink.on_link(local.devices.underlay).await?;
    let mut wanted = routes(&mesh.clusters, mesh.nodes.values(), mesh.addresses.values(), local, &on_link);
    // Endpoints that are not open yet get theirs when they are.
    for endpoint in snapshot.endpoints.values().filter(|endpoint| !endpoint.is_machine() && endpoint.is_open()) {
        let host_routes = wiring::routes_outside(&endpoint.addresses, endpoint.device, endpoint.mtu, &local.overlay);
        wanted.extend(host_routes.into_iter().map(|route| (key(&route), route)));
    }
    let present = netlink.own_routes().await?;
    let (put, gone) = difference(&wanted, &present, snapshot.is_whole());
    let mut outcome = Ok(());
    for route in put {
        // One that fails (a device that just went) blocks none beside it.
        if let Err(error) = netlink.replace_route(&route).await {
            outcome = Err(error);
        }
    }
    for route in gone {
        netlink.delete_route(&route).await?;
    }
    outcome
}

/// What to write, and what to remove.
fn difference(wanted: &BTreeMap<RouteKey, Route>, present: &[Route], prune: bool) -> (Vec<Route>, Vec<Route>) {
    let put = wanted.values().filter(|route| !present.contains(route)).copied().collect();
    let unwanted = |route: &&Route| prune && !wanted.contains_key(&key(route));
    (put, present.iter().filter(unwanted).copied().collect())
}

#[cfg(test)]
mod tests {
    use fabric_core::ids::IfIndex;

    use super::*;
    use crate::sys::netlink::RouteTarget;

    fn route(prefix: &str, device: u32) -> Route {
        Route::device(prefix.parse().unwrap(), IfIndex::new(device).unwrap())
    }

    fn wanted(routes: &[Route]) -> BTreeMap<RouteKey, Route> {
        routes.iter().map(|route| (key(route), *route)).collect()
    }

    #[test]
    fn a_route_that_changed_is_replaced_and_never_removed_first() {
        let old = route("10.65.0.0/16", 10);
        let blackhole = Route { target: RouteTarget::Blackhole, ..old };
        let (put, gone) = difference(&wanted(&[blackhole]), &[old], true);
        assert_eq!((put, gone), (vec![blackhole], vec![]));
    }

    #[test]
    fn nothing_goes_before_all_is_known() {
        let old = route("10.65.0.0/16", 10);
        assert_eq!(difference(&BTreeMap::new(), &[old], false), (vec![], vec![]));
        assert_eq!(difference(&BTreeMap::new(), &[old], true), (vec![], vec![old]));
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let same = route("10.65.0.0/16", 10);
        assert_eq!(difference(&wanted(&[same]), &[same], true), (vec![], vec![]));
    }
}
