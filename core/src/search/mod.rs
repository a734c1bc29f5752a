//! Search: a local SQL projection of the log, rebuilt by replay whenever it is missing or doubtful.
//!
//! It answers *which* entries match. What an entry says comes from the log itself: the projection holds no
//! canonical bytes, so that it can be wrong about what it finds and never about the evidence.

mod index;
mod query;
mod row;

pub use index::{DATABASE_NAME, Progress, Search};
pub use query::{Effort, LIMIT_MAX, Order, PAGE_BYTES_MAX, Page, Query, QueryError};

use crate::log::ReadError;

/// Why a search has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The database.
    #[error(
        "the search database can't be used: {0}; if it is damaged it is rebuilt by itself, else stop, remove it, and it is \
         rebuilt at the next start"
    )]
    Database(#[from] rusqlite::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// Its files or its thread.
    #[error("the search projection can't be opened: {0}")]
    System(#[from] std::io::Error),
    /// It has not caught up in time.
    #[error("the search projection is at entry {at} of {wanted} and still catches up: try again")]
    Behind {
        /// What is indexed.
        at: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// It doesn't follow the log any more, for now.
    #[error("the search projection has stopped at entry {at}: {reason}")]
    Stopped {
        /// What is indexed.
        at: u64,
        /// Why.
        reason: String,
    },
    /// A search took too long, and was broken off before it had come any further.
    #[error(
        "the search came no further in {} seconds: try again, or narrow it down",
        query::SEARCH_SECONDS_MAX
    )]
    TooSlow,
}
