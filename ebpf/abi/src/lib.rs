//! Map keys and values shared by kernel and agent.
#![no_std]
