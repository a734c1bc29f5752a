//! Policies: named documents of Cedar text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A document of policies was put in place of the one with that name, if any.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Uploaded {
    /// The document's name.
    pub name: String,
    /// Cedar policies, each with an `@id`.
    pub text: String,
}

impl Uploaded {
    pub(super) fn example() -> Self {
        Self {
            name: "operators".into(),
            text:
                "@id(\"operators-reach-web\")\npermit(principal in Role::\"operator\", action, resource);\n"
                    .into(),
        }
    }
}

/// A document of policies was removed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// Its name.
    pub name: String,
}

impl Removed {
    pub(super) fn example() -> Self {
        Self { name: "operators".into() }
    }
}
