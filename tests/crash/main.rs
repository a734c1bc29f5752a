//! The log against system calls that fail, disks that fail and fill, and kill -9.

mod disk;
mod events;
mod kill;
mod ledger;
mod replay;
mod stepping;
mod syscalls;
