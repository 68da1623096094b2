//! `fabric`: commands, output, the demo, and the laboratory that demo and tests stand on.

pub mod lab;
