//! Workloads' network interfaces: their devices, their life, what is remembered of them.

pub(crate) mod record;
pub(crate) mod wiring;
