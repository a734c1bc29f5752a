//! Who may do what: Cedar policies, decided on the state at that moment, deny by default.
//!
//! [`decide::decide`] is pure; what it decided becomes durable as an event, and only then is leave
//! ([`permit`]) to act.

mod address;
mod alike;
pub mod decide;
pub mod defaults;
pub mod files;
pub mod level;
pub mod networks;
pub mod permit;
pub mod request;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod validate;

pub use alike::Marks;
pub use decide::{Decision, NoLongerAllowed, decide, still_allowed};
pub use level::RecordingLevel;
pub use request::{Action, Circumstances, Request, What};
pub use validate::{Compiled, PolicyError};
