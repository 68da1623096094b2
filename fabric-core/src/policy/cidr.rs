//! Node-local identities for the prefixes that rules name.
//!
//! Every prefix of every rule, exceptions included, gets an identity and an ipcache entry. An address has the identity
//! of the longest prefix that holds it. A rule for `cidr` without `except` then matches exactly the identities whose
//! prefix lies in `cidr` and in no exception: if an address lay in an exception, that exception or a longer prefix
//! inside it would be the longest for the address. So nothing has to be cut into pieces.
//!
//! # Order of changes
//! A new prefix takes addresses from a shorter one. Write the policy entries for its identity to all subjects first,
//! then its ipcache entry; take prefixes away in the reverse order. Otherwise packets meet an identity that no entry
//! knows.
//!
//! Owned prefixes of the mesh never match: the data path asks the owned-prefix table before it looks here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::ids::Identity;
use crate::prefix::Prefix;

/// Prefixes with their identities on one node. A number is not given again before all others had their turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CidrTable {
    by_prefix: BTreeMap<Prefix, Identity>,
    by_identity: BTreeMap<Identity, Prefix>,
    last: u32,
}

/// What an update did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CidrChanges {
    /// New prefixes.
    pub added: Vec<(Prefix, Identity)>,
    /// Prefixes that are gone.
    pub removed: Vec<(Prefix, Identity)>,
    /// Prefixes for which no number is left; rules for them match nothing.
    pub refused: Vec<Prefix>,
}

/// How many numbers there are.
const NUMBERS: u32 = 1 << 24;

impl CidrTable {
    /// Takes up a table that an earlier life of the agent left in the ipcache. Entries that make no sense are left out.
    pub fn restore(entries: impl IntoIterator<Item = (Prefix, Identity)>) -> Self {
        let mut table = Self::default();
        for (prefix, identity) in entries {
            let number = identity.value() & (NUMBERS - 1);
            let free = !table.by_prefix.contains_key(&prefix) && !table.by_identity.contains_key(&identity);
            if Identity::local_cidr(number) == Some(identity) && free {
                table.put(prefix, identity);
                table.last = table.last.max(number);
            }
        }
        table
    }

    /// Makes the table hold exactly these prefixes; those that stay keep their identity.
    pub fn update(&mut self, wanted: &BTreeSet<Prefix>) -> CidrChanges {
        let mut changes = CidrChanges::default();
        let gone: Vec<Prefix> = self.by_prefix.keys().filter(|prefix| !wanted.contains(prefix)).copied().collect();
        for &prefix in wanted {
            if self.by_prefix.contains_key(&prefix) {
                continue;
            }
            match self.free_identity() {
                Some(identity) => {
                    self.put(prefix, identity);
                    changes.added.push((prefix, identity));
                }
                None => changes.refused.push(prefix),
            }
        }
        // After the additions, so that no number changes its meaning within one update.
        for prefix in gone {
            if let Some(identity) = self.by_prefix.remove(&prefix) {
                self.by_identity.remove(&identity);
                changes.removed.push((prefix, identity));
            }
        }
        changes
    }

    fn put(&mut self, prefix: Prefix, identity: Identity) {
        self.by_prefix.insert(prefix, identity);
        self.by_identity.insert(identity, prefix);
    }

    fn free_identity(&mut self) -> Option<Identity> {
        for _ in 0..NUMBERS {
            self.last = (self.last + 1) % NUMBERS;
            let identity = Identity::local_cidr(self.last)?;
            if self.last != 0 && !self.by_identity.contains_key(&identity) {
                return Some(identity);
            }
        }
        None
    }

    /// The longest prefix that holds an address, with its identity; `None` = the address is plain world.
    pub fn lookup(&self, address: IpAddr) -> Option<(Prefix, Identity)> {
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        (0..=bits).rev().find_map(|length| {
            let prefix = Prefix::new(address, length).ok()?;
            self.by_prefix.get(&prefix).map(|&identity| (prefix, identity))
        })
    }

    /// The prefix that an identity stands for.
    pub fn prefix_of(&self, identity: Identity) -> Option<Prefix> {
        self.by_identity.get(&identity).copied()
    }

    /// The identity of a prefix.
    pub fn identity_of(&self, prefix: Prefix) -> Option<Identity> {
        self.by_prefix.get(&prefix).copied()
    }

    /// In order of prefix.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Identity)> {
        self.by_prefix.iter().map(|(&prefix, &identity)| (prefix, identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> BTreeSet<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn identities_stay_while_their_prefix_is_wanted() {
        let mut table = CidrTable::default();
        let first = table.update(&prefixes(&["10.0.0.0/8", "192.0.2.0/24"]));
        assert_eq!(first.added.len(), 2);
        let kept = table.identity_of("192.0.2.0/24".parse().unwrap());
        let second = table.update(&prefixes(&["192.0.2.0/24", "::/0"]));
        assert_eq!((second.added.len(), second.removed.len()), (1, 1));
        assert_eq!(table.identity_of("192.0.2.0/24".parse().unwrap()), kept);
        // The number that became free is not the next one given.
        assert_ne!(second.added[0].1, second.removed[0].1);
    }

    #[test]
    fn the_longest_prefix_decides() {
        let mut table = CidrTable::default();
        table.update(&prefixes(&["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]));
        let longest = |text: &str| table.lookup(text.parse().unwrap()).map(|(prefix, _)| prefix.to_string());
        assert_eq!(longest("10.1.2.3").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(longest("10.2.2.3").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(longest("192.0.2.1").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(longest("2001:db9::1"), None);
    }

    #[test]
    fn restored_numbers_are_kept_and_not_given_twice() {
        let id = |n| Identity::local_cidr(n).unwrap();
        let entries = [("10.0.0.0/8".parse().unwrap(), id(7)), ("192.0.2.0/24".parse().unwrap(), id(7))];
        let mut table = CidrTable::restore(entries.into_iter().chain([("::/0".parse().unwrap(), Identity::WORLD)]));
        assert_eq!(table.iter().count(), 1);
        let changes = table.update(&prefixes(&["10.0.0.0/8", "192.0.2.0/24"]));
        assert_eq!(changes.added, [("192.0.2.0/24".parse().unwrap(), id(8))]);
    }
}
