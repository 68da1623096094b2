//! Who has an address: whole addresses in a hash, shorter prefixes in a trie, seen as one table.

use std::path::Path;

use ipnetwork::IpNetwork;

use super::{
    layouts::{ExactLayout, PrefixLayout},
    table::{Listed, MapError, Rows, Table},
};
use crate::{load::LoadError, rows::IpcacheEntry};

/// Address or prefix to identity and node. A /32 or /128 is found before any prefix.
#[derive(Debug)]
pub struct Ipcache {
    exact: Table<ExactLayout>,
    prefixes: Table<PrefixLayout>,
}

impl Ipcache {
    pub(super) fn open(map_dir: &Path, read_only: bool) -> Result<Self, LoadError> {
        Ok(Self { exact: Table::open(map_dir, read_only)?, prefixes: Table::open(map_dir, read_only)? })
    }

    /// How many whole addresses, and how many prefixes, it may hold.
    pub fn sizes(&self) -> (u32, u32) {
        (self.exact.size(), self.prefixes.size())
    }
}

fn is_whole(prefix: &IpNetwork) -> bool {
    prefix.prefix() == if prefix.is_ipv4() { 32 } else { 128 }
}

impl Rows for Ipcache {
    type Key = IpNetwork;
    type Value = IpcacheEntry;

    fn upsert(&self, key: &IpNetwork, value: &IpcacheEntry) -> Result<(), MapError> {
        if is_whole(key) { self.exact.upsert(&key.ip(), value) } else { self.prefixes.upsert(key, value) }
    }

    fn upsert_all(&self, rows: &[(IpNetwork, IpcacheEntry)]) -> Result<(), MapError> {
        let (whole, shorter): (Vec<_>, Vec<_>) = rows.iter().partition(|(key, _)| is_whole(key));
        let whole: Vec<_> = whole.into_iter().map(|(key, value)| (key.ip(), value)).collect();
        self.exact.upsert_all(&whole)?;
        self.prefixes.upsert_all(&shorter)
    }

    fn delete(&self, key: &IpNetwork) -> Result<bool, MapError> {
        if is_whole(key) { self.exact.delete(&key.ip()) } else { self.prefixes.delete(key) }
    }

    /// What the programs would find for an address; for a prefix, what they would find for all of it.
    fn get(&self, key: &IpNetwork) -> Result<Option<IpcacheEntry>, MapError> {
        if is_whole(key)
            && let Some(found) = self.exact.get(&key.ip())?
        {
            return Ok(Some(found));
        }
        self.prefixes.get(key)
    }

    fn list(&self) -> Result<Listed<Self>, MapError> {
        let whole = self.exact.list()?.into_iter().map(|(address, value)| (address.into(), value));
        let mut rows: Listed<Self> = whole.chain(self.prefixes.list()?).collect();
        rows.sort_by_key(|(key, _)| *key);
        Ok(rows)
    }

    fn canonical(&self, key: &IpNetwork) -> IpNetwork {
        self.prefixes.canonical(key)
    }
}
