//! Loads and fills the data path.
