//! May these two talk? Deny before allow, each for the peer and for everybody.

use fabric_ebpf_abi::{Be16, Direction, DropReason, Effect, PolicyEntry, PolicyKey};

use crate::maps::{Maps, Step};

/// What is asked of the rules.
pub(crate) struct Question {
    /// The endpoint's identity.
    pub(crate) subject: u32,
    /// The other side's.
    pub(crate) peer: u32,
    pub(crate) direction: Direction,
    pub(crate) proto: u8,
    pub(crate) port: Be16,
}

/// 0 when the rules allow it, else the drop reason's number. `rule` gets the number of the rule that decided.
#[inline(never)]
pub(crate) fn judge<M: Maps>(m: &M, q: &Question, rule: &mut u32) -> u32 {
    if let Some(entry) = find(m, q, Effect::Deny) {
        *rule = entry.rule;
        return DropReason::PolicyDeny as u32;
    }
    match find(m, q, Effect::Allow) {
        Some(entry) => {
            *rule = entry.rule;
            0
        }
        None => DropReason::PolicyDenied as u32,
    }
}

#[inline(always)]
fn find<'a, M: Maps>(m: &'a M, q: &Question, effect: Effect) -> Option<M::Ref<'a, PolicyEntry>> {
    if q.peer != 0 {
        let entry = ask(m, q, effect, q.peer);
        if entry.is_some() {
            return entry;
        }
    }
    ask(m, q, effect, 0)
}

#[inline(always)]
fn ask<'a, M: Maps>(m: &'a M, q: &Question, effect: Effect, peer: u32) -> Option<M::Ref<'a, PolicyEntry>> {
    let key = PolicyKey::new(q.subject, peer, q.direction, effect, q.proto, q.port);
    let entry = m.policy(&key);
    m.note(Step::Policy(key, entry.as_deref().copied()));
    entry
}
