//! Numbers for CIDR rules: they mean something on one node alone and never leave it.

use std::collections::BTreeMap;

use crate::ids::Identity;
use crate::prefix::Prefix;

/// Hands out `1 << 24 | n`, one per prefix, counted by use.
#[derive(Debug, Default)]
pub struct LocalIdentities {
    by_prefix: BTreeMap<Prefix, (Identity, usize)>,
    by_number: BTreeMap<Identity, Prefix>,
    last: u32,
}

impl LocalIdentities {
    /// The number of the prefix; one more user of it. `None` when all 16 million are in use.
    pub fn acquire(&mut self, prefix: Prefix) -> Option<Identity> {
        if let Some((identity, users)) = self.by_prefix.get_mut(&prefix) {
            *users += 1;
            return Some(*identity);
        }
        let identity = self.next_free()?;
        self.last = identity.value() & 0x00ff_ffff;
        self.by_prefix.insert(prefix, (identity, 1));
        self.by_number.insert(identity, prefix);
        Some(identity)
    }

    /// One user less; the number that became free, once nobody uses it.
    pub fn release(&mut self, prefix: &Prefix) -> Option<Identity> {
        let (identity, users) = self.by_prefix.get_mut(prefix)?;
        *users = users.saturating_sub(1);
        if *users > 0 {
            return None;
        }
        let identity = *identity;
        self.by_prefix.remove(prefix);
        self.by_number.remove(&identity);
        Some(identity)
    }

    /// Takes back a number that a former life of this node gave: the kernel's maps still hold it.
    /// Refused (`false`) when prefix or number are in use already.
    pub fn restore(&mut self, prefix: Prefix, identity: Identity) -> bool {
        let is_local = identity.value() >> 24 == 1;
        if !is_local || self.by_prefix.contains_key(&prefix) || self.by_number.contains_key(&identity) {
            return false;
        }
        self.last = self.last.max(identity.value() & 0x00ff_ffff);
        self.by_prefix.insert(prefix, (identity, 1));
        self.by_number.insert(identity, prefix);
        true
    }

    /// The number of a prefix in use.
    pub fn identity_of(&self, prefix: &Prefix) -> Option<Identity> {
        self.by_prefix.get(prefix).map(|(identity, _)| *identity)
    }

    /// The prefix of a number in use.
    pub fn prefix_of(&self, identity: Identity) -> Option<Prefix> {
        self.by_number.get(&identity).copied()
    }

    /// In order of prefix.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Identity)> {
        self.by_prefix.iter().map(|(prefix, (identity, _))| (*prefix, *identity))
    }

    fn next_free(&self) -> Option<Identity> {
        let tries = u32::try_from(self.by_number.len()).ok()?.checked_add(1)?;
        (1..=tries)
            .filter_map(|step| Identity::local_cidr(self.last.wrapping_add(step) & 0x00ff_ffff))
            .find(|identity| !self.by_number.contains_key(identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn one_number_per_prefix_until_the_last_user_goes() {
        let mut local = LocalIdentities::default();
        let first = local.acquire(prefix("192.0.2.0/24")).unwrap();
        assert_eq!(first.value(), 1 << 24 | 1);
        assert_eq!(local.acquire(prefix("192.0.2.0/24")), Some(first));
        let second = local.acquire(prefix("198.51.100.0/24")).unwrap();
        assert_ne!(first, second);
        assert_eq!(local.release(&prefix("192.0.2.0/24")), None);
        assert_eq!(local.release(&prefix("192.0.2.0/24")), Some(first));
        assert_eq!(local.release(&prefix("192.0.2.0/24")), None);
        assert_eq!(local.prefix_of(first), None);
        // A freed number is not the next one given.
        assert_ne!(local.acquire(prefix("203.0.113.0/24")), Some(first));
        assert_eq!(local.iter().count(), 2);
    }

    #[test]
    fn numbers_of_a_former_life_are_kept() {
        let mut local = LocalIdentities::default();
        let old = Identity::local_cidr(7).unwrap();
        assert!(local.restore(prefix("192.0.2.0/24"), old));
        assert!(!local.restore(prefix("192.0.2.0/25"), old));
        assert!(!local.restore(prefix("192.0.2.0/25"), Identity::HOST));
        assert_eq!(local.identity_of(&prefix("192.0.2.0/24")), Some(old));
        assert_eq!(local.acquire(prefix("192.0.2.0/25")).unwrap().value(), 1 << 24 | 8);
    }
}
