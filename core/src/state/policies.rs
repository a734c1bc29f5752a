//! Policy documents, and the policies made of them.

use crate::event::policy::{Removed, Uploaded};
use crate::policy::validate::{self, Compiled, Document, PolicyError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A policy document that counts.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyDocument {
    /// The index of the event that put it in place.
    pub since: u64,
    /// The text as it was uploaded.
    pub text: String,
    #[serde(skip)]
    document: Document,
}

/// All policy documents by name.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Policies {
    documents: BTreeMap<String, PolicyDocument>,
    /// Derived from the documents, and from nothing else.
    #[serde(skip)]
    compiled: Arc<Compiled>,
}

impl Policies {
    /// A document.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&PolicyDocument> {
        self.documents.get(name)
    }

    /// All documents, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PolicyDocument)> {
        self.documents.iter().map(|(name, document)| (name.as_str(), document))
    }

    /// The policies of all documents.
    #[must_use]
    pub fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    /// Whether `text` may be uploaded in the place of the document `name`: whether it is right, alone and beside the
    /// others, and each of its policies can apply to something.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn check(&self, name: &str, text: &str) -> Result<(), PolicyError> {
        let document = validate::check_upload(name, text)?;
        self.with(name, Some(&document)).map(drop)
    }

    fn with(&self, name: &str, new: Option<&Document>) -> Result<Compiled, PolicyError> {
        let others = self.documents.iter().filter(|(other, _)| *other != name);
        let others = others.map(|(name, document)| (name.as_str(), &document.document));
        Compiled::of(others.chain(new.map(|document| (name, document))))
    }

    /// What doesn't validate isn't applied: what stood there before goes on counting. The reason is a constant, since
    /// a parser's message needn't be the same each time.
    pub(super) fn uploaded(&mut self, index: u64, data: Uploaded) -> Result<(), &'static str> {
        let document = validate::check(&data.name, &data.text).map_err(|_| "the policy text isn't valid")?;
        let compiled =
            self.with(&data.name, Some(&document)).map_err(|_| "the policies don't fit together")?;
        self.documents.insert(data.name, PolicyDocument { since: index, text: data.text, document });
        self.compiled = Arc::new(compiled);
        Ok(())
    }

    pub(super) fn removed(&mut self, data: &Removed) -> Result<(), &'static str> {
        if !self.documents.contains_key(&data.name) {
            return Err("there is no such policy document");
        }
        let compiled = self.with(&data.name, None).map_err(|_| "the policies don't fit together")?;
        self.documents.remove(&data.name);
        self.compiled = Arc::new(compiled);
        Ok(())
    }
}
