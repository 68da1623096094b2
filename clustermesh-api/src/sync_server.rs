//! The delta streams to the cluster's agents.
//!
//! [`table`] holds every row with the changes that led to it, [`rows`] makes rows from keys of the store, [`stream`] brings
//! one agent from where it is to where the table is. Rows follow from the store's keys alone, so that an agent may resume
//! at another replica or after a restart.

pub mod feed;
pub mod rows;
pub mod stream;
pub mod table;
