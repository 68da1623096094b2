//! The node's process.
