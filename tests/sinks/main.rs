//! The servers of others that events are delivered to, and what is put between them and us: that each of them takes, gives
//! back, and survives kill -9 is what all tests of sinks build upon.

mod campaign;
mod daemon;
mod elasticsearch;
mod flaky;
mod kafka;
mod loki;
mod opensearch;
mod restore;
mod rsyslog;
