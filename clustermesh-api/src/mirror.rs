//! Copies of what other clusters say of themselves, one mirror per link.
//!
//! [`keeper`] starts and stops mirrors as links come and go, [`session`] reads one remote's mesh endpoint ([`remote`]),
//! [`admit`] judges each row, [`writer`] writes what was let in to our own store. [`report`] says how each link is.

pub mod admit;
pub mod keeper;
pub mod remote;
pub mod report;
pub mod session;
pub mod writer;

pub use report::{LinkReport, LinkReports};
