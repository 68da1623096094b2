//! One kernel map seen as rows: what a reconciler updates, deletes and lists.

use std::{collections::BTreeMap, io, marker::PhantomData, path::Path};

use crate::{
    load::{LoadError, open_map},
    sys::{map::RawMap, plain},
};

/// Entries moved by one system call.
const BATCH: u32 = 512;

/// Why a map did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// No entry more fits.
    #[error("the map {map} is full: it holds {size} entries")]
    Full {
        /// Which.
        map: &'static str,
        /// How many it holds.
        size: u32,
    },
    /// The kernel refused to write.
    #[error("write to the map {map}")]
    Write {
        /// Which.
        map: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to read.
    #[error("read the map {map}")]
    Read {
        /// Which.
        map: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// An entry is none that this build writes.
    #[error("the map {map} holds an entry that this version does not know")]
    Foreign {
        /// Which.
        map: &'static str,
    },
    /// A row cannot be written as it is.
    #[error("{what} does not fit the map {map}")]
    Invalid {
        /// Which.
        map: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl MapError {
    /// Trying the same again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Write { source, .. } | Self::Read { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR | libc::ENOMEM))
            }
            Self::Full { .. } | Self::Foreign { .. } | Self::Invalid { .. } => false,
        }
    }
}

/// How the rows of one map are written in the kernel.
pub trait Layout {
    /// What a row is known by.
    type Key: Copy + Ord;
    /// What it says.
    type Value: Copy + Eq;
    /// The kernel's key.
    type RawKey: aya::Pod;
    /// The kernel's value.
    type RawValue: aya::Pod;
    /// The map's name.
    const MAP: &'static str;
    /// The key for the kernel.
    fn raw_key(key: Self::Key) -> Self::RawKey;
    /// The value for the kernel.
    fn raw_value(value: Self::Value) -> Self::RawValue;
    /// The reverse; `None` for what [`Self::raw_key`] does not make.
    fn key(raw: Self::RawKey) -> Option<Self::Key>;
    /// The reverse; `None` for what [`Self::raw_value`] does not make.
    fn value(raw: Self::RawValue) -> Option<Self::Value>;
}

/// Rows in the order of their keys.
pub type Listed<R> = Vec<(<R as Rows>::Key, <R as Rows>::Value)>;

/// What reconcilers do with a map, whichever it is.
pub trait Rows {
    /// What a row is known by.
    type Key: Copy + Ord;
    /// What it says.
    type Value: Copy + Eq;

    /// Writes one row.
    ///
    /// # Errors
    /// When the map is full or the kernel refuses.
    fn upsert(&self, key: &Self::Key, value: &Self::Value) -> Result<(), MapError>;

    /// Writes rows, many with one system call. After an error some may have been written.
    ///
    /// # Errors
    /// As [`Self::upsert`].
    fn upsert_all(&self, rows: &[(Self::Key, Self::Value)]) -> Result<(), MapError> {
        rows.iter().try_for_each(|(key, value)| self.upsert(key, value))
    }

    /// Deletes a row; says whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn delete(&self, key: &Self::Key) -> Result<bool, MapError>;

    /// One row; of a map of prefixes, the longest that holds the key.
    ///
    /// # Errors
    /// When the kernel refuses, or the row is not one of ours.
    fn get(&self, key: &Self::Key) -> Result<Option<Self::Value>, MapError>;

    /// All rows, in the order of their keys.
    ///
    /// # Errors
    /// As [`Self::get`].
    fn list(&self) -> Result<Listed<Self>, MapError>;

    /// The key as it is listed: of a prefix, without the bits beyond it.
    fn canonical(&self, key: &Self::Key) -> Self::Key {
        *key
    }

    /// Makes the map hold exactly these rows, touching only what differs; says how many were written and deleted.
    /// Writes before it deletes.
    ///
    /// # Errors
    /// As the others.
    fn replace_all(&self, rows: &BTreeMap<Self::Key, Self::Value>) -> Result<Changed, MapError> {
        let rows: BTreeMap<_, _> = rows.iter().map(|(k, v)| (self.canonical(k), *v)).collect();
        let present: BTreeMap<_, _> = self.list()?.into_iter().collect();
        let missing: Vec<_> = rows.iter().filter(|(k, v)| present.get(k) != Some(v)).map(|(k, v)| (*k, *v)).collect();
        self.upsert_all(&missing)?;
        let mut deleted = 0;
        for key in present.keys().filter(|k| !rows.contains_key(k)) {
            deleted += usize::from(self.delete(key)?);
        }
        Ok(Changed { written: missing.len(), deleted })
    }
}

/// What a [`Rows::replace_all`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Rows written.
    pub written: usize,
    /// Rows deleted.
    pub deleted: usize,
}

/// A pinned map of rows.
pub struct Table<L> {
    map: RawMap,
    layout: PhantomData<fn() -> L>,
}

impl<L: Layout> std::fmt::Debug for Table<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Table").field(&L::MAP).finish()
    }
}

impl<L: Layout> Table<L> {
    pub(crate) fn open(map_dir: &Path, read_only: bool) -> Result<Self, LoadError> {
        Ok(Self { map: open_map(map_dir, L::MAP, read_only)?, layout: PhantomData })
    }

    /// How many rows it may hold.
    pub fn size(&self) -> u32 {
        self.map.info.max_entries
    }

    fn write_error(&self, source: io::Error) -> MapError {
        match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => MapError::Full { map: L::MAP, size: self.size() },
            _ => MapError::Write { map: L::MAP, source },
        }
    }

    fn value(bytes: &[u8]) -> Result<L::Value, MapError> {
        let raw = plain::value(bytes);
        raw.and_then(L::value).ok_or(MapError::Foreign { map: L::MAP })
    }

    fn key(bytes: &[u8]) -> Result<L::Key, MapError> {
        let raw = plain::value(bytes);
        raw.and_then(L::key).ok_or(MapError::Foreign { map: L::MAP })
    }

    fn key_bytes(key: &L::Key) -> Vec<u8> {
        plain::bytes(&L::raw_key(*key))
    }

    fn value_bytes(value: &L::Value) -> Vec<u8> {
        plain::bytes(&L::raw_value(*value))
    }

    /// Deletes the rows whose key the kernel holds and that `doomed` picks; says how many.
    pub(crate) fn delete_where(&self, doomed: impl Fn(&L::Key, &L::Value) -> bool) -> Result<usize, MapError> {
        let mut deleted = 0;
        for (key, _) in self.list()?.iter().filter(|(k, v)| doomed(k, v)) {
            deleted += usize::from(self.delete(key)?);
        }
        Ok(deleted)
    }
}

impl<L: Layout> Rows for Table<L> {
    type Key = L::Key;
    type Value = L::Value;

    fn upsert(&self, key: &L::Key, value: &L::Value) -> Result<(), MapError> {
        self.map.update(&Self::key_bytes(key), &Self::value_bytes(value), 0).map_err(|e| self.write_error(e))
    }

    fn upsert_all(&self, rows: &[(L::Key, L::Value)]) -> Result<(), MapError> {
        for chunk in rows.chunks(BATCH as usize) {
            let keys: Vec<u8> = chunk.iter().flat_map(|(k, _)| Self::key_bytes(k)).collect();
            let values: Vec<u8> = chunk.iter().flat_map(|(_, v)| Self::value_bytes(v)).collect();
            let count = u32::try_from(chunk.len()).unwrap_or(BATCH);
            match self.map.update_batch(&keys, &values, count) {
                // Older kernels take no batches for some kinds of maps.
                Err(e) if e.raw_os_error() == Some(libc::ENOTSUP) => {
                    chunk.iter().try_for_each(|(k, v)| self.upsert(k, v))?;
                }
                other => other.map_err(|e| self.write_error(e))?,
            }
        }
        Ok(())
    }

    fn delete(&self, key: &L::Key) -> Result<bool, MapError> {
        self.map.delete(&Self::key_bytes(key)).map_err(|e| self.write_error(e))
    }

    fn canonical(&self, key: &L::Key) -> L::Key {
        L::key(L::raw_key(*key)).unwrap_or(*key)
    }

    fn get(&self, key: &L::Key) -> Result<Option<L::Value>, MapError> {
        let found = self.map.lookup(&Self::key_bytes(key)).map_err(|source| MapError::Read { map: L::MAP, source })?;
        found.map(|bytes| Self::value(&bytes)).transpose()
    }

    fn list(&self) -> Result<Vec<(L::Key, L::Value)>, MapError> {
        let listed = self.map.all(BATCH).map_err(|source| MapError::Read { map: L::MAP, source })?;
        let mut rows: Vec<_> =
            listed.iter().map(|(k, v)| Ok((Self::key(k)?, Self::value(v)?))).collect::<Result<_, _>>()?;
        rows.sort_by_key(|(key, _)| *key);
        rows.dedup_by_key(|(key, _)| *key);
        Ok(rows)
    }
}
