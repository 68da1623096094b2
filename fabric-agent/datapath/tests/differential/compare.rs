//! The scenes, and what must be the same.

use fabric_agent_datapath::probe;
use fabric_ebpf_abi::{Direction, Effect, RoutingMode, endpoint_flags, owned_flags};
use fabric_ebpf_logic::{
    Action, Workspace,
    fakes::{Bytes, Fakes, scene},
    notice, pipeline,
};

use crate::{
    kernel::{self, Kernel, REDIRECT},
    packets::{self, Packets, Sample},
};

pub(crate) const HOOKS: [&str; 5] = ["from_endpoint", "to_endpoint", "from_network", "to_network", "from_wireguard"];
const NEXT: u32 = u32::MAX;
const DROP: u32 = 2;
/// Damaged packets for each hook, in each scene.
const DAMAGED: usize = 3_000;

fn native(fakes: &Fakes, hook: &str, bytes: &[u8]) -> Workspace {
    let mut ws = Workspace::NEW;
    let p = Bytes(bytes);
    match hook {
        "from_endpoint" => pipeline::from_endpoint::decide(fakes, &p, scene::A_DEVICE, &mut ws),
        "to_endpoint" => pipeline::to_endpoint::decide(fakes, &p, scene::A_DEVICE, &mut ws),
        "from_network" => pipeline::from_network::decide(fakes, &p, &mut ws),
        "to_network" => pipeline::to_network::decide(fakes, &p, &mut ws),
        _ => pipeline::from_wireguard::decide(fakes, &p, &mut ws),
    }
    ws
}

/// What of a decision must be the same. The port of a new masqueraded flow is chance, and a flow is traced by the second.
fn essence(ws: &Workspace) -> String {
    let mut trail = ws.trail;
    trail.notices &= !(notice::TRACE_EGRESS | notice::TRACE_INGRESS);
    let decision = match ws.action() {
        Action::Masquerade => {
            format!("masquerade {:?}", ws.rewrite().map(|r| (r.old, r.new, r.l4, r.old_port, r.source)))
        }
        _ => format!("{:?} {:?}", ws.decision(), ws.rewrite()),
    };
    let stripped = if ws.action() == Action::Deliver { (ws.strip(), ws.inner6()) } else { (0, false) };
    format!("{decision} {stripped:?} {trail:?}")
}

/// The scenes: open links, closed ones, and policy.
fn scenes() -> Vec<(&'static str, Fakes)> {
    let mut all = Vec::new();
    for mode in [RoutingMode::Vxlan, RoutingMode::Geneve, RoutingMode::Native] {
        all.push(("open", scene::scene(mode)));
        let mut closed = scene::scene(mode);
        scene::link(&mut closed, 1, owned_flags::ENCRYPT);
        scene::link(&mut closed, 2, owned_flags::ENCRYPT);
        scene::endpoints(&mut closed, endpoint_flags::ENFORCE_INGRESS | endpoint_flags::ENFORCE_EGRESS);
        scene::rule(&mut closed, scene::REMOTE, Direction::Egress, Effect::Allow, Some(80));
        scene::rule(&mut closed, scene::REMOTE, Direction::Ingress, Effect::Allow, None);
        scene::rule(&mut closed, scene::B, Direction::Egress, Effect::Allow, None);
        scene::rule(&mut closed, 0, Direction::Egress, Effect::Deny, Some(443));
        all.push(("closed", closed));
        let mut blocked = scene::scene(mode);
        scene::link(&mut blocked, 2, owned_flags::BLOCKED);
        all.push(("blocked", blocked));
    }
    all
}

/// Says whether the return code is what the decision asks for. What a packet lacks to be changed drops it; so does, in
/// test-run, the missing device without Ethernet headers.
fn code_fits(ws: &Workspace, code: u32, changes_fail: bool) -> bool {
    match ws.action() {
        Action::Pass => code == NEXT,
        Action::Drop => code == DROP,
        _ if changes_fail && code == DROP => true,
        Action::Masquerade => code == NEXT,
        _ => code == REDIRECT,
    }
}

/// Runs one packet on both sides.
fn compare(kernel: &mut Kernel, fakes: &mut Fakes, hook: &str, sample: &Sample, seed: u64) {
    fakes.seconds = kernel::seconds();
    let (code, theirs, out) = kernel.run(hook, &sample.bytes);
    let ours = native(fakes, hook, &sample.bytes);
    assert_eq!(essence(&theirs), essence(&ours), "{hook}: kernel, native; seed {seed}; {:02x?}", sample.bytes);
    assert!(
        code_fits(&theirs, code, hook == "from_wireguard" || !sample.whole),
        "{hook}: {code} for {:?}; {:02x?}",
        theirs.decision(),
        sample.bytes
    );
    if sample.whole && hook != "from_wireguard" {
        packets::check_output(hook, &theirs, &out);
    }
}

#[test]
fn kernel_and_native_decide_alike() {
    if let Err(missing) = probe::require() {
        eprintln!("SKIPPED: {missing}");
        return;
    }
    let seed = std::env::var("FABRIC_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed_u64);
    println!("FABRIC_TEST_SEED={seed}");
    let mut compared = 0;
    for (name, mut fakes) in scenes() {
        let mode = fakes.config.map_or(0, |c| c.mode);
        println!("{name}, mode {mode}");
        let mut kernel = Kernel::load(&fakes);
        let packets = Packets::new(seed, mode == RoutingMode::Geneve as u8);
        // New flows, known ones, then all of them judged anew without rules.
        for round in 0..3 {
            if round == 2 {
                fakes.policy.clear();
                fakes.epoch += 1;
                kernel.clear_policy();
                kernel.set_epoch(fakes.epoch);
            }
            for hook in HOOKS {
                for sample in packets.whole(hook) {
                    compare(&mut kernel, &mut fakes, hook, &sample, seed);
                    compared += 1;
                }
            }
        }
        for hook in HOOKS {
            for sample in packets.damaged(hook, DAMAGED) {
                compare(&mut kernel, &mut fakes, hook, &sample, seed);
                compared += 1;
            }
        }
    }
    println!("{compared} packets, none judged differently");
}
