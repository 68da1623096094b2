//! Addresses for endpoints, out of the ranges that the cluster allotted to the node. Pure: the clock is an argument.
//!
//! An address that was given back rests for a while, so that what others still remember of its last owner is gone
//! before it has a next one. Allocation goes round the range, so that the rest is rarely short of its time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use fabric_core::prefix::Prefix;
use serde::{Deserialize, Serialize};

/// How long an address rests after its owner is gone.
pub(crate) const REST: Duration = Duration::from_mins(1);

/// Most addresses of a range that are ever looked at; enough for any IPv4 range of a node.
const MAX_LOOKED_AT: u128 = 1 << 16;

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IpamError {
    #[error("the cluster has allotted no address range to this node yet")]
    NoRange,
    #[error("no address of {range} is free: {used} are in use, {resting} rest for up to {REST:?}")]
    Exhausted { range: Prefix, used: usize, resting: usize },
}

/// What must survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Resting {
    /// Address -> seconds since 1970 at which it may be used again.
    until: BTreeMap<IpAddr, u64>,
}

/// Who has which address.
#[derive(Debug, Default)]
pub(crate) struct Ipam {
    ranges: Vec<Prefix>,
    reserved: BTreeSet<IpAddr>,
    owners: BTreeMap<IpAddr, String>,
    resting: Resting,
    /// Where the search of each range goes on.
    next: BTreeMap<Prefix, u128>,
}

impl Ipam {
    /// Begins with what an earlier process knew.
    pub(crate) fn new(resting: Resting) -> Self {
        Self { resting, ..Self::default() }
    }

    /// Learns the node's ranges and the addresses in them that the node itself uses.
    pub(crate) fn set_ranges(&mut self, ranges: Vec<Prefix>, reserved: impl IntoIterator<Item = IpAddr>) {
        self.ranges = ranges;
        self.reserved = reserved.into_iter().collect();
    }

    /// Notes addresses that an endpoint has already.
    pub(crate) fn adopt(&mut self, owner: &str, addresses: &[IpAddr]) {
        for address in addresses {
            self.resting.until.remove(address);
            self.owners.insert(*address, owner.to_owned());
        }
    }

    /// One address of each family that the node has ranges of; what the owner has already is what it gets.
    pub(crate) fn allocate(&mut self, owner: &str, now: SystemTime) -> Result<Vec<IpAddr>, IpamError> {
        let mut addresses: Vec<IpAddr> =
            self.owners.iter().filter(|(_, who)| *who == owner).map(|(address, _)| *address).collect();
        if self.ranges.is_empty() {
            return Err(IpamError::NoRange);
        }
        self.wake(now);
        for ipv4 in [true, false] {
            if addresses.iter().any(|address| address.is_ipv4() == ipv4) {
                continue;
            }
            let ranges: Vec<Prefix> = self.ranges.iter().copied().filter(|range| range.is_ipv4() == ipv4).collect();
            let Some(first) = ranges.first() else { continue };
            let found = ranges.iter().find_map(|range| self.search(*range));
            let (used, resting) = (self.owners.len(), self.resting.until.len());
            addresses.push(found.ok_or(IpamError::Exhausted { range: *first, used, resting })?);
        }
        addresses.sort_unstable();
        for address in &addresses {
            self.owners.insert(*address, owner.to_owned());
        }
        Ok(addresses)
    }

    /// Takes an owner's addresses back; they rest from now on.
    pub(crate) fn release(&mut self, owner: &str, now: SystemTime) {
        let until = seconds(now + REST);
        let addresses: Vec<IpAddr> =
            self.owners.iter().filter(|(_, who)| *who == owner).map(|(address, _)| *address).collect();
        for address in addresses {
            self.owners.remove(&address);
            self.resting.until.insert(address, until);
        }
    }

    /// What must be written down.
    pub(crate) fn resting(&self) -> &Resting {
        &self.resting
    }

    fn wake(&mut self, now: SystemTime) {
        let now = seconds(now);
        // A clock that was set back must not make addresses rest for ever.
        let latest = now + REST.as_secs();
        self.resting.until.retain(|_, until| *until > now && *until <= latest);
    }

    fn search(&mut self, range: Prefix) -> Option<IpAddr> {
        let bits = if range.is_ipv4() { 32 } else { 128 };
        let size = 1_u128.checked_shl(u32::from(bits - range.length())).unwrap_or(u128::MAX);
        // The first address of a range names the range, the last of an IPv4 range is its broadcast address.
        let last = if range.is_ipv4() && size > 2 { size.checked_sub(2)? } else { size.checked_sub(1)? };
        let first = u128::from(size > 2);
        let span = (last - first + 1).min(MAX_LOOKED_AT);
        let start = self.next.get(&range).copied().unwrap_or(first);
        for step in 0..span {
            let n = first + (start - first + step) % span;
            let address = range.nth(n)?;
            if self.is_free(address) {
                self.next.insert(range, n + 1);
                return Some(address);
            }
        }
        None
    }

    fn is_free(&self, address: IpAddr) -> bool {
        !self.reserved.contains(&address)
            && !self.owners.contains_key(&address)
            && !self.resting.until.contains_key(&address)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
    }

    fn ipam(ranges: &[&str], reserved: &[&str]) -> Ipam {
        let mut ipam = Ipam::default();
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        ipam.set_ranges(ranges, reserved.iter().map(|address| address.parse().unwrap()));
        ipam
    }

    fn text(addresses: &[IpAddr]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_address_of_each_family_and_never_the_nodes_own() {
        let mut ipam = ipam(&["10.64.1.0/24", "fdfa:1:0:1::/64"], &["10.64.1.1", "fdfa:1:0:1::1"]);
        assert_eq!(text(&ipam.allocate("a", at(0)).unwrap()), ["10.64.1.2", "fdfa:1:0:1::2"]);
        assert_eq!(text(&ipam.allocate("b", at(0)).unwrap()), ["10.64.1.3", "fdfa:1:0:1::3"]);
        assert_eq!(text(&ipam.allocate("a", at(0)).unwrap()), ["10.64.1.2", "fdfa:1:0:1::2"]);
    }

    #[test]
    fn a_released_address_rests() {
        let mut ipam = ipam(&["10.64.1.0/29"], &["10.64.1.1"]);
        for owner in ["a", "b", "c", "d", "e"] {
            ipam.allocate(owner, at(0)).unwrap();
        }
        let full = IpamError::Exhausted { range: "10.64.1.0/29".parse().unwrap(), used: 5, resting: 0 };
        assert_eq!(ipam.allocate("f", at(0)), Err(full));
        ipam.release("c", at(10));
        assert!(ipam.allocate("f", at(69)).is_err());
        assert_eq!(text(&ipam.allocate("f", at(70)).unwrap()), ["10.64.1.4"]);
    }

    #[test]
    fn allocation_goes_round() {
        let mut ipam = ipam(&["10.64.1.0/24"], &[]);
        for n in 1..=254_u32 {
            assert_eq!(text(&ipam.allocate("x", at(0)).unwrap()), [format!("10.64.1.{n}")]);
            ipam.release("x", at(0));
        }
        assert!(ipam.allocate("x", at(1)).is_err());
        assert_eq!(text(&ipam.allocate("x", at(61)).unwrap()), ["10.64.1.1"]);
    }

    #[test]
    fn rest_survives_a_restart_but_not_a_clock_set_back() {
        let mut before = ipam(&["10.64.1.0/30"], &[]);
        before.allocate("a", at(1000)).unwrap();
        before.release("a", at(1000));
        let written = serde_json::to_string(before.resting()).unwrap();
        let again = || {
            let mut after = Ipam::new(serde_json::from_str(&written).unwrap());
            after.set_ranges(vec!["10.64.1.0/30".parse().unwrap()], []);
            after
        };
        assert_eq!(text(&again().allocate("b", at(1001)).unwrap()), ["10.64.1.2"]);
        assert_eq!(text(&again().allocate("b", at(0)).unwrap()), ["10.64.1.1"]);
    }

    #[test]
    fn adopted_addresses_are_in_use() {
        let mut ipam = ipam(&["10.64.1.0/24"], &[]);
        ipam.adopt("old", &["10.64.1.1".parse().unwrap()]);
        assert_eq!(text(&ipam.allocate("new", at(0)).unwrap()), ["10.64.1.2"]);
        assert_eq!(text(&ipam.allocate("old", at(0)).unwrap()), ["10.64.1.1"]);
    }

    #[test]
    fn without_ranges_there_is_nothing() {
        assert_eq!(ipam(&[], &[]).allocate("a", at(0)), Err(IpamError::NoRange));
    }
}
