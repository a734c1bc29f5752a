//! What was checked, for people and for programs.

use crate::table::printable;
use custody_core::log::bundle::BundleError;
use custody_core::log::served::ServedError;
use custody_core::log::verify::VerifyError;
use serde_json::{Map, Value, json};

/// Grows while things are checked, so that what held is told even if the next thing doesn't.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<String>,
    values: Map<String, Value>,
}

impl Report {
    /// The sentence that it comes to.
    pub fn headline(&mut self, text: String) {
        self.lines.push(text);
    }

    /// A line for people.
    pub fn line(&mut self, label: &str, text: impl std::fmt::Display) {
        self.lines.push(format!("  {label:<12} {text}"));
    }

    /// A value for programs.
    pub fn value(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }

    /// Prints what held, and for programs also what didn't.
    pub fn print(mut self, outcome: &anyhow::Result<()>, json: bool) {
        if !json {
            for line in self.lines {
                println!("{}", printable(&line));
            }
            return;
        }
        self.value("verified", json!(outcome.is_ok()));
        if let Err(error) = outcome {
            self.value("error", json!(format!("{error:#}")));
            if let Some(index) = first_wrong(error) {
                self.value("first_wrong", json!(index));
            }
        }
        println!("{}", Value::Object(self.values));
    }
}

/// The first index that is wrong, if the error knows one.
pub fn first_wrong(error: &anyhow::Error) -> Option<u64> {
    let directory = error.downcast_ref::<VerifyError>().and_then(VerifyError::first_wrong);
    let served = error.downcast_ref::<ServedError>().and_then(ServedError::first_wrong);
    let bundle = error.downcast_ref::<BundleError>().and_then(BundleError::first_wrong);
    directory.or(served).or(bundle)
}
