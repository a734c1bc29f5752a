//! The schema that policies are validated against; parsed once.

use cedar_policy::Schema;
use std::sync::OnceLock;

/// The schema as text, for people who write policies.
pub const TEXT: &str = include_str!("schema.cedarschema");

/// The schema, or why the one that this program was built with doesn't parse (a test holds that it does).
///
/// # Errors
/// The parser's message.
pub fn schema() -> Result<&'static Schema, &'static str> {
    static SCHEMA: OnceLock<Result<Schema, String>> = OnceLock::new();
    SCHEMA
        .get_or_init(|| {
            Schema::from_cedarschema_str(TEXT).map(|(schema, _)| schema).map_err(|e| e.to_string())
        })
        .as_ref()
        .map_err(String::as_str)
}
