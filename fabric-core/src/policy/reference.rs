//! The meaning of policy, said as plainly as possible: no identities, no maps, no precedence.
//!
//! Slow. Tests hold [`super::compile`] against it, and explanations may use it to list every rule that bears on a
//! packet.

use std::net::IpAddr;
use std::sync::Arc;

use super::model::{Direction, Peer, PeerRule, Peers, Policy, RuleRef, Section};
use crate::ids::Identity;
use crate::labels::LabelSet;

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub enum Other<'a> {
    /// An endpoint of the mesh.
    Endpoint(&'a LabelSet),
    /// What a reserved identity stands for; not the world.
    Reserved(Identity),
    /// An address outside the mesh.
    Outside(IpAddr),
    /// Nothing is known of it.
    Unknown,
}

/// A packet as policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// As seen by the subject.
    pub direction: Direction,
    /// The other end.
    pub other: Other<'a>,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; message type for ICMP.
    pub port: u16,
}

/// What happens to a packet, and every rule that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Passes: no policy speaks of the direction, or none turns on default deny, or the own node sends it.
    Open,
    /// Passes because of these.
    Allowed(Vec<RuleRef>),
    /// Dropped because of these: reason 181.
    Denied(Vec<RuleRef>),
    /// Dropped because no rule allows it: reason 133.
    DeniedByDefault,
}

/// Judges a packet of an endpoint with the labels `subject`.
pub fn evaluate<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    subject: &LabelSet,
    packet: Packet<'_>,
) -> Judgement {
    let from_own_node = matches!(packet.other, Other::Reserved(Identity::HOST));
    if from_own_node && packet.direction == Direction::Ingress {
        return Judgement::Open;
    }
    let (mut allowed, mut denied, mut default_deny) = (Vec::new(), Vec::new(), false);
    for policy in policies {
        for rule in policy.rules.iter().filter(|rule| rule.subject.matches(subject)) {
            let rules = rule.direction(packet.direction);
            default_deny |= rules.default_deny;
            let collect = |list: &[PeerRule], denies, into: &mut Vec<RuleRef>| {
                for (index, one) in list.iter().enumerate() {
                    if applies(one, packet) {
                        let section = Section::of(packet.direction, denies);
                        into.push(RuleRef { policy: Arc::clone(&policy.key), spec: rule.spec, section, index });
                    }
                }
            };
            collect(&rules.allow, false, &mut allowed);
            collect(&rules.deny, true, &mut denied);
        }
    }
    match (denied.is_empty(), allowed.is_empty(), default_deny) {
        (false, _, _) => Judgement::Denied(denied),
        (true, false, _) => Judgement::Allowed(allowed),
        (true, true, true) => Judgement::DeniedByDefault,
        (true, true, false) => Judgement::Open,
    }
}

fn applies(rule: &PeerRule, packet: Packet<'_>) -> bool {
    let peer = match &rule.peers {
        Peers::All => true,
        Peers::AnyOf(peers) => peers.iter().any(|peer| is_meant(peer, packet.other)),
    };
    peer && rule.ports.iter().any(|ports| ports.matches(packet.protocol, packet.port))
}

fn is_meant(peer: &Peer, other: Other<'_>) -> bool {
    match (peer, other) {
        (Peer::Endpoints(selector), Other::Endpoint(labels)) => selector.matches(labels),
        (Peer::Reserved(wanted), Other::Reserved(identity)) => *wanted == identity,
        (Peer::World, Other::Outside(_)) => true,
        (Peer::Cidr(block), Other::Outside(address)) => block.holds(address),
        (Peer::Endpoints(_) | Peer::Reserved(_) | Peer::World | Peer::Cidr(_), _) => false,
    }
}
