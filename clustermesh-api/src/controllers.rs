//! What the cluster's server does by itself: each controller looks at the view and writes what should stand in the store.
//!
//! They do not know each other. Each can be interrupted anywhere and finishes on its next pass.

pub mod collector;
pub mod presence;
pub mod services;
