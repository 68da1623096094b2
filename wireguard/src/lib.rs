//! WireGuard engines.
