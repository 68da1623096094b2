//! What a reconciler last achieved for a row.

use std::time::SystemTime;

/// How far a row has got into the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not yet tried since it was last changed.
    Pending,
    /// The world is as the row says.
    Done {
        /// Since when.
        at: SystemTime,
    },
    /// The last try went wrong; it is tried again.
    Error {
        /// What went wrong, for a person.
        text: String,
        /// When.
        at: SystemTime,
    },
}

impl Status {
    /// One word for tables.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done { .. } => "done",
            Self::Error { .. } => "error",
        }
    }

    /// Whether the world is as the row says.
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}
