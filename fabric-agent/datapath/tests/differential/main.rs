//! The kernel and the native build decide alike: the same maps, the same packets, hand-made and damaged, through the loaded
//! programs by test-run and through `fabric-ebpf-logic` over maps in memory. Each decision is compared whole, and what the
//! kernel made of the packet is checked.
//!
//! As root alone; elsewhere it says why it was skipped. `FABRIC_TEST_SEED` repeats a run.

#[cfg(test)]
mod compare;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod packets;
