//! The two engines behind [`crate::WgDevice`].

pub mod kernel;
pub mod user;
