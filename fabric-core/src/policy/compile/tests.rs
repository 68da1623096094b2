//! Compiled policy against what documents mean, and against the reference.

mod meaning;
mod model;
mod random;
