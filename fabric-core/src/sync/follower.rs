//! The reader's end: verifies each message, and knows what a full list swept.

use std::collections::BTreeSet;

use super::Position;

/// A message without its rows' contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<K> {
    /// The position reached once it is applied.
    pub position: Position,
    /// The keys of its rows, and whether each is a delete.
    pub rows: Vec<(K, bool)>,
    /// First of a full list.
    pub list_begin: bool,
    /// Last of a full list.
    pub list_end: bool,
}

/// What to do with a message's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<K> {
    /// Apply them; nothing else.
    Apply,
    /// Apply them, then delete these: the list ended and did not name them. From now on the reader is in step.
    ApplyAndSweep(Vec<K>),
}

/// The stream cannot be trusted any more: end it and begin a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Outside a full list, positions only rise within one generation.
    #[error("the position went from {from:?} to {to:?}")]
    WentBack {
        /// Reached before.
        from: Position,
        /// Offered.
        to: Position,
    },
    /// Changes of another generation without a list.
    #[error("the store's generation changed without a full list")]
    GenerationChanged,
    /// A list began inside a list, or ended outside one.
    #[error("a full list begins or ends where none can")]
    ListOutOfPlace,
    /// A list holds puts alone.
    #[error("a full list holds a delete")]
    DeleteInList,
}

/// What a reader knows about its stream.
#[derive(Debug)]
pub struct Follower<K> {
    position: Position,
    known: BTreeSet<K>,
    /// Keys named by the list that is being received.
    listing: Option<BTreeSet<K>>,
    in_step: bool,
}

impl<K: Ord + Clone> Follower<K> {
    /// A reader that knows nothing.
    pub const fn new() -> Self {
        Self::restore(Position::NONE, BTreeSet::new())
    }

    /// A reader that kept what it knew.
    pub const fn restore(position: Position, known: BTreeSet<K>) -> Self {
        Self { position, known, listing: None, in_step: false }
    }

    /// What to ask a server to resume from.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Whether a list ended, or a resumed stream said something, since the stream began. Nothing is pruned before.
    pub const fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// A new stream begins; a list that was cut off is forgotten, what was known is not.
    pub fn handle_connected(&mut self) {
        self.listing = None;
        self.in_step = false;
    }

    /// Verifies a message and says what to do with it. On an error nothing changed.
    ///
    /// # Errors
    /// When the stream breaks its promises.
    pub fn handle_message(&mut self, message: &Message<K>) -> Result<Step<K>, ProtocolError> {
        self.verify(message)?;
        if message.list_begin {
            self.listing = Some(BTreeSet::new());
        }
        for (key, deleted) in &message.rows {
            if *deleted {
                self.known.remove(key);
            } else {
                self.known.insert(key.clone());
            }
            if let Some(listing) = &mut self.listing {
                listing.insert(key.clone());
            }
        }
        if self.listing.is_some() && !message.list_end {
            return Ok(Step::Apply);
        }
        // Only a whole list moves the position: one that is cut off is asked for again.
        self.position = message.position;
        self.in_step = true;
        let Some(named) = self.listing.take() else {
            return Ok(Step::Apply);
        };
        let swept = self.known.difference(&named).cloned().collect();
        self.known = named;
        Ok(Step::ApplyAndSweep(swept))
    }

    fn verify(&self, message: &Message<K>) -> Result<(), ProtocolError> {
        let in_list = self.listing.is_some() || message.list_begin;
        if (message.list_begin && self.listing.is_some()) || (message.list_end && !in_list) {
            return Err(ProtocolError::ListOutOfPlace);
        }
        if in_list {
            let has_delete = message.rows.iter().any(|(_, deleted)| *deleted);
            return if has_delete { Err(ProtocolError::DeleteInList) } else { Ok(()) };
        }
        if message.position.generation != self.position.generation {
            return Err(ProtocolError::GenerationChanged);
        }
        if message.position.revision < self.position.revision {
            return Err(ProtocolError::WentBack { from: self.position, to: message.position });
        }
        Ok(())
    }
}

impl<K: Ord + Clone> Default for Follower<K> {
    fn default() -> Self {
        Self::new()
    }
}
