//! Rules as the kernel keeps them.

use aya::maps::lpm_trie::Key as Prefix;
use fabric_ebpf_abi as abi;
use fabric_ebpf_abi::Be16;

use super::Layout;
use crate::rows::{Direction, Effect, PolicyEntry, PolicyKey, PortPrefix, Traffic};

layout!(
    /// Rules.
    pub PolicyLayout, POLICY: PolicyKey as Prefix<abi::PolicyKey> => PolicyEntry as abi::PolicyEntry,
    raw_policy_key, raw_policy, policy_key, policy
);
fn raw_policy_key(key: PolicyKey) -> Prefix<abi::PolicyKey> {
    let direction = match key.direction {
        Direction::Ingress => abi::Direction::Ingress,
        Direction::Egress => abi::Direction::Egress,
    };
    let effect = match key.effect {
        Effect::Allow => abi::Effect::Allow,
        Effect::Deny => abi::Effect::Deny,
    };
    let (protocol, port, port_bits) = match key.traffic {
        Traffic::Any => (0, 0, None),
        Traffic::Protocol(protocol) => (protocol, 0, Some(0)),
        Traffic::Port(protocol, prefix) => (protocol, prefix.port(), Some(prefix.bits())),
    };
    let whole = abi::PolicyKey::new(key.subject, key.peer, direction, effect, protocol, Be16::new(port));
    Prefix::new(abi::PolicyKey::prefix_len(port_bits), whole)
}

fn policy_key(raw: Prefix<abi::PolicyKey>) -> Option<PolicyKey> {
    let (bits, key) = (raw.prefix_len(), raw.data());
    let traffic = match bits {
        abi::PolicyKey::PREFIX_ANY => Traffic::Any,
        abi::PolicyKey::PREFIX_PROTO => Traffic::Protocol(key.proto),
        _ => {
            let bits = u8::try_from(bits.checked_sub(abi::PolicyKey::PREFIX_PROTO)?).ok()?;
            Traffic::Port(key.proto, PortPrefix::new(key.port.get(), bits).ok()?)
        }
    };
    let (direction, effect) = class(key.class)?;
    Some(PolicyKey { subject: key.subject, peer: key.peer, direction, effect, traffic })
}

fn class(raw: u8) -> Option<(Direction, Effect)> {
    let kinds = [(Direction::Ingress, abi::Direction::Ingress), (Direction::Egress, abi::Direction::Egress)];
    let effects = [(Effect::Allow, abi::Effect::Allow), (Effect::Deny, abi::Effect::Deny)];
    let made = |d, e| abi::PolicyKey::new(0, 0, d, e, 0, Be16::new(0)).class;
    let all = kinds.iter().flat_map(|d| effects.iter().map(move |e| (d, e)));
    all.into_iter().find(|(d, e)| made(d.1, e.1) == raw).map(|(d, e)| (d.0, e.0))
}

fn raw_policy(entry: PolicyEntry) -> abi::PolicyEntry {
    abi::PolicyEntry { rule: entry.rule, flags: 0 }
}

fn policy(raw: abi::PolicyEntry) -> PolicyEntry {
    PolicyEntry { rule: raw.rule }
}

#[cfg(test)]
mod tests {
    use super::super::tests::both_ways;
    use super::*;

    #[test]
    fn rules_are_read_back() {
        let ports = [PortPrefix::exact(443), PortPrefix::new(0x8000, 1).unwrap(), PortPrefix::new(1024, 6).unwrap()];
        let mut all = vec![Traffic::Any, Traffic::Protocol(6), Traffic::Protocol(1)];
        all.extend(ports.map(|p| Traffic::Port(17, p)));
        for traffic in all {
            for direction in [Direction::Ingress, Direction::Egress] {
                for effect in [Effect::Allow, Effect::Deny] {
                    let key = PolicyKey { subject: 65_836, peer: 0, direction, effect, traffic };
                    both_ways::<PolicyLayout>(key, PolicyEntry { rule: 12 });
                }
            }
        }
    }
}
