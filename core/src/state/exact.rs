//! Integers that no reader of JSON rounds.

use crate::event::canonical::INTEGER_MAX;
use serde_json::Value;

/// Writes what JSON readers would round as strings.
pub(super) fn integers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_u64().is_some_and(|n| n <= INTEGER_MAX)
                || number.as_i64().is_some_and(|n| n.unsigned_abs() <= INTEGER_MAX);
            if !whole {
                *value = Value::String(number.to_string());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(integers),
        Value::Object(fields) => fields.values_mut().for_each(integers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
