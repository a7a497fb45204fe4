//! The runtime and the exit code; nothing else.

fn main() {}
