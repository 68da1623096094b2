//! Flows and masqueraded flows: the programs' tables, for people to see and for the agent to forget.

use std::path::Path;

use ipnetwork::IpNetwork;

use super::{
    layouts::{Flow4Layout, Flow6Layout, Nat4Layout, Nat6Layout},
    table::{MapError, Rows as _, Table},
};
use crate::{
    load::LoadError,
    rows::{Flow, FlowKey, Nat, NatKey},
};

/// The flow tables of both families.
#[derive(Debug)]
pub struct Flows {
    v4: Table<Flow4Layout>,
    v6: Table<Flow6Layout>,
}

impl Flows {
    pub(super) fn open(map_dir: &Path, read_only: bool) -> Result<Self, LoadError> {
        Ok(Self { v4: Table::open(map_dir, read_only)?, v6: Table::open(map_dir, read_only)? })
    }

    /// All flows.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&self) -> Result<Vec<(FlowKey, Flow)>, MapError> {
        let mut rows = self.v4.list()?;
        rows.extend(self.v6.list()?);
        Ok(rows)
    }

    /// Forgets the flows with an end in one of these prefixes; says how many.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_prefixes(&self, prefixes: &[IpNetwork]) -> Result<usize, MapError> {
        let touched = |key: &FlowKey| prefixes.iter().any(|p| p.contains(key.local.ip()) || p.contains(key.peer.ip()));
        self.delete_where(|key, _| touched(key))
    }

    /// Forgets the flows that no longer count at this second of the monotonic clock; says how many.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_expired(&self, monotonic_seconds: u32) -> Result<usize, MapError> {
        self.delete_where(|_, flow| flow.lifetime < monotonic_seconds)
    }

    fn delete_where(&self, doomed: impl Fn(&FlowKey, &Flow) -> bool) -> Result<usize, MapError> {
        Ok(self.v4.delete_where(&doomed)? + self.v6.delete_where(&doomed)?)
    }
}

/// The masquerade tables of both families. Each flow has two rows, one for each way.
#[derive(Debug)]
pub struct Nats {
    v4: Table<Nat4Layout>,
    v6: Table<Nat6Layout>,
}

impl Nats {
    pub(super) fn open(map_dir: &Path, read_only: bool) -> Result<Self, LoadError> {
        Ok(Self { v4: Table::open(map_dir, read_only)?, v6: Table::open(map_dir, read_only)? })
    }

    /// All masqueraded flows.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&self) -> Result<Vec<(NatKey, Nat)>, MapError> {
        let mut rows = self.v4.list()?;
        rows.extend(self.v6.list()?);
        Ok(rows)
    }

    /// Forgets the rows with an address in one of these prefixes; says how many.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_prefixes(&self, prefixes: &[IpNetwork]) -> Result<usize, MapError> {
        let doomed = |key: &NatKey, nat: &Nat| {
            let ends = [key.source.ip(), key.destination.ip(), nat.becomes.ip()];
            prefixes.iter().any(|p| ends.iter().any(|e| p.contains(*e)))
        };
        Ok(self.v4.delete_where(doomed)? + self.v6.delete_where(doomed)?)
    }
}
