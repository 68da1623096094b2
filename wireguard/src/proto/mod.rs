//! Packets and instants in, packets out.
