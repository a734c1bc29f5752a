//! End to end: each thing that people do, against OpenSSH's own client and server and against strangers.

#[path = "api.rs"]
mod api;
#[path = "demo.rs"]
mod demo;
#[path = "evidence.rs"]
mod evidence;
#[path = "image.rs"]
mod image;
#[path = "kill.rs"]
mod kill;
#[path = "lock.rs"]
mod lock;
#[path = "log_copy.rs"]
mod log_copy;
#[path = "log_gaps.rs"]
mod log_gaps;
#[path = "log_keys.rs"]
mod log_keys;
#[path = "log_time.rs"]
mod log_time;
#[path = "login.rs"]
mod login;
#[path = "node.rs"]
mod node;
#[path = "node_coverage.rs"]
mod node_coverage;
#[path = "node_endurance.rs"]
mod node_endurance;
#[path = "node_networks.rs"]
mod node_networks;
#[path = "node_programs.rs"]
mod node_programs;
#[path = "node_vm.rs"]
mod node_vm;
#[path = "proof.rs"]
mod proof;
#[path = "recording.rs"]
mod recording;
#[path = "recording_full.rs"]
mod recording_full;
#[path = "replay.rs"]
mod replay;
#[path = "ssh_algorithms.rs"]
mod ssh_algorithms;
#[path = "ssh_certificate.rs"]
mod ssh_certificate;
#[path = "ssh_exec.rs"]
mod ssh_exec;
#[path = "ssh_files.rs"]
mod ssh_files;
#[path = "ssh_files_policy.rs"]
mod ssh_files_policy;
#[path = "ssh_files_strangers.rs"]
mod ssh_files_strangers;
#[path = "ssh_forward.rs"]
mod ssh_forward;
#[path = "ssh_host_keys.rs"]
mod ssh_host_keys;
#[path = "ssh_hostile.rs"]
mod ssh_hostile;
#[path = "ssh_libraries.rs"]
mod ssh_libraries;
#[path = "ssh_passwords.rs"]
mod ssh_passwords;
#[path = "ssh_refused.rs"]
mod ssh_refused;
#[path = "ssh_regress.rs"]
mod ssh_regress;
#[path = "ssh_russh.rs"]
mod ssh_russh;
#[path = "ssh_security_key.rs"]
mod ssh_security_key;
#[path = "ssh_shell.rs"]
mod ssh_shell;
#[path = "ssh_strangers.rs"]
mod ssh_strangers;
#[path = "ssh_tools.rs"]
mod ssh_tools;
#[path = "ssh_watch.rs"]
mod ssh_watch;
#[path = "ssh_ways.rs"]
mod ssh_ways;
#[path = "subscribe.rs"]
mod subscribe;
#[path = "witness.rs"]
mod witness;
