//! The table of allowed IPs: prefix to owner, longest prefix first. The same table routes outbound packets and checks the
//! source of inbound ones, so a peer can never speak for an address that a more specific prefix gives to another.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::allowed_ip::{AllowedIp, mask_v4, mask_v6};

/// One family's prefixes: a hash map by (length, network), and the lengths in use, longest first. A mesh uses a handful of
/// lengths, so a look-up is a handful of probes.
#[derive(Debug, Clone)]
struct Family<N, V> {
    owners: HashMap<(u8, N), V>,
    lengths: Vec<u8>,
}

impl<N, V> Default for Family<N, V> {
    fn default() -> Self {
        Self { owners: HashMap::new(), lengths: Vec::new() }
    }
}

impl<N: std::hash::Hash + Eq, V> Family<N, V> {
    fn insert(&mut self, prefix_len: u8, network: N, owner: V) {
        self.owners.insert((prefix_len, network), owner);
        if let Err(at) = self.lengths.binary_search_by(|have| prefix_len.cmp(have)) {
            self.lengths.insert(at, prefix_len);
        }
    }

    fn lookup(&self, network_at: impl Fn(u8) -> N) -> Option<&V> {
        self.lengths.iter().find_map(|len| self.owners.get(&(*len, network_at(*len))))
    }
}

/// The table. Built once per change of configuration and then only read.
#[derive(Debug, Clone)]
pub(crate) struct Routes<V> {
    v4: Family<u32, V>,
    v6: Family<u128, V>,
}

impl<V> Default for Routes<V> {
    fn default() -> Self {
        Self { v4: Family::default(), v6: Family::default() }
    }
}

impl<V> Routes<V> {
    /// Gives a prefix to an owner; the previous owner of the very same prefix loses it.
    pub(crate) fn insert(&mut self, prefix: AllowedIp, owner: V) {
        match prefix.address() {
            IpAddr::V4(address) => self.v4.insert(prefix.prefix_len(), address.to_bits(), owner),
            IpAddr::V6(address) => self.v6.insert(prefix.prefix_len(), address.to_bits(), owner),
        }
    }

    /// The owner of the most specific prefix that holds `address`.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<&V> {
        match address {
            IpAddr::V4(address) => self.v4.lookup(|len| address.to_bits() & mask_v4(len)),
            IpAddr::V6(address) => self.v6.lookup(|len| address.to_bits() & mask_v6(len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn most_specific_prefix_wins() {
        let mut routes = Routes::default();
        for (prefix, owner) in
            [("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3/32", 3), ("0.0.0.0/0", 4), ("::/0", 5)]
        {
            routes.insert(prefix.parse().unwrap(), owner);
        }
        let owner = |address: &str| routes.lookup(address.parse().unwrap()).copied();
        assert_eq!(owner("10.1.2.3"), Some(3));
        assert_eq!(owner("10.1.2.4"), Some(2));
        assert_eq!(owner("10.2.0.0"), Some(1));
        assert_eq!(owner("192.0.2.1"), Some(4));
        assert_eq!(owner("2001:db8::1"), Some(5));
    }

    fn prefix() -> impl Strategy<Value = AllowedIp> {
        let v4 = (0u32..64, 24u8..=32).prop_map(|(n, len)| AllowedIp::new(IpAddr::V4((0x0a00_0000 | n).into()), len));
        let v6 =
            (0u128..64, 120u8..=128).prop_map(|(n, len)| AllowedIp::new(IpAddr::V6((0xfd << 120 | n).into()), len));
        let wide = (0u8..=32).prop_map(|len| AllowedIp::new(IpAddr::V4(0x0a00_0000u32.into()), len));
        prop_oneof![4 => v4, 4 => v6, 1 => wide].prop_map(Result::unwrap)
    }

    proptest! {
        #[test]
        fn table_agrees_with_a_list(entries in proptest::collection::vec((prefix(), 0u8..8), 0..40), probes in proptest::collection::vec(prefix(), 1..20)) {
            let mut routes = Routes::default();
            let mut list: Vec<(AllowedIp, u8)> = Vec::new();
            for (prefix, owner) in entries {
                routes.insert(prefix, owner);
                list.retain(|(have, _)| *have != prefix);
                list.push((prefix, owner));
            }
            for probe in probes {
                let address = probe.address();
                let expected = list.iter().filter(|(p, _)| p.contains(address)).max_by_key(|(p, _)| p.prefix_len()).map(|(_, o)| o);
                prop_assert_eq!(routes.lookup(address), expected);
            }
        }
    }
}
