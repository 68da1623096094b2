//! The data path as the kernel runs it: programs loaded, adopted and replaced; real packets between namespaces.
//!
//! As root alone; elsewhere each test says why it was skipped.

#[cfg(test)]
mod adopt;
#[cfg(test)]
mod encrypted;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod overlay;
#[cfg(test)]
mod own_pair;
#[cfg(test)]
mod refusal;
#[cfg(test)]
mod services;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod world;
