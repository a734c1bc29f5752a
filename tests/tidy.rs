//! What a machine can check about the tree itself: no server is started.

#[path = "generated.rs"]
mod generated;
#[path = "mapping_files.rs"]
mod mapping_files;
#[path = "mappings.rs"]
mod mappings;
#[path = "tree.rs"]
mod tree;
