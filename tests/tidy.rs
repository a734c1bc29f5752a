//! What a machine can check about the tree itself: no server is started.

#[path = "alarms.rs"]
mod alarms;
#[path = "compose.rs"]
mod compose;
#[path = "event_versions.rs"]
mod event_versions;
#[path = "generated.rs"]
mod generated;
#[path = "mapping_files.rs"]
mod mapping_files;
#[path = "mappings.rs"]
mod mappings;
#[path = "picture_files.rs"]
mod picture_files;
#[path = "sigma.rs"]
mod sigma;
#[path = "tree.rs"]
mod tree;
