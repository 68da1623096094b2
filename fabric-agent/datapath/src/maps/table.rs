//! One kernel map seen as rows: what a reconciler updates, deletes and lists.

use std::{io, marker::PhantomData, path::Path};

use crate::{
    load::{LoadError, open_map},
    sys::bpf::RawMap,
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

/// How the rows of one map are written as bytes.
pub trait Layout {
    /// What a row is known by.
    type Key: Copy + Ord;
    /// What it says.
    type Value: Copy + Eq;
    /// The map's name.
    const MAP: &'static str;
    /// The key as the kernel keeps it.
    fn key_bytes(key: &Self::Key) -> Vec<u8>;
    /// The value as the kernel keeps it.
    fn value_bytes(value: &Self::Value) -> Vec<u8>;
    /// The reverse; `None` for bytes that [`Self::key_bytes`] does not make.
    fn key(bytes: &[u8]) -> Option<Self::Key>;
    /// The reverse; `None` for bytes that [`Self::value_bytes`] does not make.
    fn value(bytes: &[u8]) -> Option<Self::Value>;
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

    /// One row.
    ///
    /// # Errors
    /// When the kernel refuses, or the row is not one of ours.
    fn get(&self, key: &Self::Key) -> Result<Option<Self::Value>, MapError>;

    /// All rows, in the order of their keys.
    ///
    /// # Errors
    /// As [`Self::get`].
    fn list(&self) -> Result<Listed<Self>, MapError>;

    /// Makes the map hold exactly these rows, touching only what differs; says how many were written and deleted.
    ///
    /// # Errors
    /// As the others.
    fn replace_all(&self, rows: &std::collections::BTreeMap<Self::Key, Self::Value>) -> Result<Changed, MapError> {
        let present: std::collections::BTreeMap<_, _> = self.list()?.into_iter().collect();
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

    fn row(key: &[u8], value: &[u8]) -> Result<(L::Key, L::Value), MapError> {
        L::key(key).zip(L::value(value)).ok_or(MapError::Foreign { map: L::MAP })
    }

    /// Lists by batches; a hash whose bucket holds more than a batch is asked again for more at once.
    fn list_batched(&self, mut count: u32) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut rows = Vec::new();
        let mut cursor = self.map.cursor();
        loop {
            match self.map.read_batch(&mut cursor, count) {
                Ok((keys, values, more)) => {
                    let pairs =
                        keys.chunks_exact(self.map.key_bytes()).zip(values.chunks_exact(self.map.value_bytes()));
                    rows.extend(pairs.map(|(k, v)| (k.to_vec(), v.to_vec())));
                    if !more {
                        return Ok(rows);
                    }
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && count < self.size() => {
                    count = count.saturating_mul(4)
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Lists by key, for kinds of maps that the kernel does not read in batches.
    fn list_stepped(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut rows = Vec::new();
        let mut key = self.map.next_key(None)?;
        // A walk whose key is deleted meanwhile begins anew: bounded, so that it ends.
        for _ in 0..self.size().saturating_mul(2) {
            let Some(at) = key else { break };
            if let Some(value) = self.map.lookup(&at)? {
                rows.push((at.clone(), value));
            }
            key = self.map.next_key(Some(&at))?;
        }
        Ok(rows)
    }
}

impl<L: Layout> Rows for Table<L> {
    type Key = L::Key;
    type Value = L::Value;

    fn upsert(&self, key: &L::Key, value: &L::Value) -> Result<(), MapError> {
        self.map.update(&L::key_bytes(key), &L::value_bytes(value), 0).map_err(|e| self.write_error(e))
    }

    fn upsert_all(&self, rows: &[(L::Key, L::Value)]) -> Result<(), MapError> {
        for chunk in rows.chunks(BATCH as usize) {
            let keys: Vec<u8> = chunk.iter().flat_map(|(k, _)| L::key_bytes(k)).collect();
            let values: Vec<u8> = chunk.iter().flat_map(|(_, v)| L::value_bytes(v)).collect();
            let count = u32::try_from(chunk.len()).unwrap_or(BATCH);
            self.map.update_batch(&keys, &values, count).map_err(|e| self.write_error(e))?;
        }
        Ok(())
    }

    fn delete(&self, key: &L::Key) -> Result<bool, MapError> {
        self.map.delete(&L::key_bytes(key)).map_err(|e| self.write_error(e))
    }

    fn get(&self, key: &L::Key) -> Result<Option<L::Value>, MapError> {
        let found = self.map.lookup(&L::key_bytes(key)).map_err(|source| MapError::Read { map: L::MAP, source })?;
        found.map(|bytes| L::value(&bytes).ok_or(MapError::Foreign { map: L::MAP })).transpose()
    }

    fn list(&self) -> Result<Vec<(L::Key, L::Value)>, MapError> {
        let listed = match self.list_batched(BATCH) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTSUP | libc::EINVAL | libc::ENOSPC)) => {
                self.list_stepped()
            }
            other => other,
        };
        let listed = listed.map_err(|source| MapError::Read { map: L::MAP, source })?;
        let mut rows: Vec<_> = listed.iter().map(|(k, v)| Self::row(k, v)).collect::<Result<_, _>>()?;
        rows.sort_by_key(|(key, _)| *key);
        rows.dedup_by_key(|(key, _)| *key);
        Ok(rows)
    }
}
