//! `fabric`.
fn main() {}
