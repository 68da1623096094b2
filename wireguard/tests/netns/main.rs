//! The engine as a process, in network namespaces made and removed by each test. Needs root; says so and passes without.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod configuration;
mod hostile;
mod interop;
mod lifecycle;
mod traffic;
mod world;
