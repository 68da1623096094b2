//! Documents as people write them, and what is said when they are wrong.

mod accepted;
mod damaged;
mod refused;
