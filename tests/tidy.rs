//! What a machine can check about the tree itself: no server is started.

#[path = "generated.rs"]
mod generated;
#[path = "tree.rs"]
mod tree;
