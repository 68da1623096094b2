//! The threads that keep time: one for handshakes, keepalives, the limiter's seconds and the device's MTU, one for the
//! state file, so that a slow disk holds up no handshake.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::subscriber::{NoSubscriber, with_default};

use super::control::{self, Control};
use super::core::Core;
use super::peer::Link;
use crate::io::tun;
use crate::proto::tunnel::{OUTPUT_LEN, TICK};

/// How often what is slow is looked at.
const SLOW_TICK: Duration = Duration::from_secs(1);

/// Calls every tunnel each [`TICK`] until the engine stops.
pub(super) fn keep_time(core: &Core) {
    let mut out = vec![0; OUTPUT_LEN];
    let mut slow_due = Instant::now();
    while !core.stop.wait(TICK) {
        // The protocol library logs an idle peer's expiry as an error; it is none.
        with_default(NoSubscriber::default(), || tick_tunnels(core, &mut out));
        let now = Instant::now();
        if now >= slow_due {
            slow_due = now + SLOW_TICK;
            if let Some(identity) = core.identity.load().as_ref() {
                identity.limiter.reset_count();
            }
            if let Ok(mtu) = tun::mtu(&core.interface) {
                core.mtu.store(mtu, Ordering::Relaxed);
            }
        }
    }
}

/// Writes the state file when peers have moved, until the engine stops.
pub(super) fn keep_state(core: &Core, control: &Mutex<Control>) {
    while !core.stop.wait(SLOW_TICK) {
        control::lock(control).save_if_changed();
    }
}

fn tick_tunnels(core: &Core, out: &mut [u8]) {
    let table = core.table.load_full();
    for peer in table.by_key.values() {
        let mut link = peer.link();
        let Link { tunnel: Some(tunnel), endpoint: Some(endpoint) } = &mut *link else { continue };
        let endpoint = *endpoint;
        let due = tunnel.handle_timeout(out, Instant::now());
        drop(link);
        if let Some(len) = due {
            core.transmit(peer, &out[..len], endpoint);
        }
    }
}
