//! What a policy document must be before it counts: Cedar that parses, that the schema validates strictly, and
//! whose policies can be named in evidence.

use super::{RecordingLevel, schema};
use cedar_policy::{
    Effect, Policy, PolicyId, PolicySet, ValidationMode, ValidationResult, ValidationWarning, Validator,
};
use miette::Diagnostic;
use std::collections::{BTreeMap, BTreeSet};

/// The longest document, in bytes: written as JSON it still fits into one event.
pub const DOCUMENT_BYTES_MAX: usize = 24 * 1024;

/// How deep a policy's brackets may nest; people need five, and a parser's stack has an end.
pub const NESTING_MAX: usize = 32;

/// How many operators and words one policy may hold: a chain of them nests as deep as it is long.
pub const OPERATORS_MAX: usize = 1024;

/// How many policies all documents may hold together: each decision evaluates all of them.
pub const POLICIES_MAX: usize = 4096;

const ANNOTATIONS: [&str; 3] = ["description", "id", "recording"];

/// Why a document isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A limit.
    #[error("the document {document} {what}: {hint}")]
    TooMuch {
        /// The document.
        document: String,
        /// Which limit it breaks.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// It isn't Cedar.
    #[error("{document}, line {line}: {message}")]
    Syntax {
        /// The document.
        document: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what was expected.
        message: String,
    },
    /// A policy breaks a rule of ours.
    #[error("{document}, line {line}: {rule}")]
    Rule {
        /// The document.
        document: String,
        /// The line on which the policy begins, from 1.
        line: usize,
        /// The rule, and what to do.
        rule: String,
    },
    /// It doesn't fit the schema.
    #[error("{document}, line {line}: {message}")]
    Schema {
        /// The document.
        document: String,
        /// The line, from 1.
        line: usize,
        /// What doesn't fit.
        message: String,
    },
    /// The schema of this program doesn't parse: a mistake in this program.
    #[error("the policy schema of this program is broken: {0}; report this")]
    NoSchema(String),
}

/// One valid document, ready to be put together with others.
#[derive(Clone, Debug)]
pub struct Document {
    policies: Vec<Policy>,
}

impl Document {
    /// The `@id`s of its policies.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|policy| policy.id().as_ref())
    }
}

/// All policies that count. Derived from the documents' texts and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    pub(super) set: PolicySet,
    pub(super) recording: BTreeMap<String, RecordingLevel>,
    pub(super) forbids: BTreeSet<String>,
}

impl Compiled {
    /// Puts documents together.
    ///
    /// # Errors
    /// [`PolicyError`] when two policies have one `@id`, or there are too many.
    pub fn of<'a>(documents: impl IntoIterator<Item = (&'a str, &'a Document)>) -> Result<Self, PolicyError> {
        let mut this = Self::default();
        let mut homes: BTreeMap<String, &str> = BTreeMap::new();
        for (name, document) in documents {
            for policy in &document.policies {
                let id = policy.id().to_string();
                if let Some(home) = homes.insert(id.clone(), name) {
                    return Err(PolicyError::Rule {
                        document: name.to_owned(),
                        line: 1,
                        rule: format!(
                            "the @id «{id}» is used in the document {home} already: choose another"
                        ),
                    });
                }
                if homes.len() > POLICIES_MAX {
                    return Err(PolicyError::TooMuch {
                        document: name.to_owned(),
                        what: format!("brings more than {POLICIES_MAX} policies in all"),
                        hint: "remove what is no longer needed",
                    });
                }
                if policy.effect() == Effect::Forbid {
                    this.forbids.insert(id);
                } else {
                    let level = policy.annotation("recording").and_then(RecordingLevel::named);
                    this.recording.insert(id, level.unwrap_or_default());
                }
                this.set.add(policy.clone()).map_err(|error| PolicyError::Rule {
                    document: name.to_owned(),
                    line: 1,
                    rule: error.to_string(),
                })?;
            }
        }
        Ok(this)
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.forbids.len() + self.recording.len()
    }

    /// Whether there is none, so that nothing is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Checks the text of the document `name` as [`check`] does, and that each of its policies can apply to something: a
/// `forbid` that never does would look like a fence and be none. For uploads only: a log may hold older documents that
/// don't pass, and they go on counting.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn check_upload(name: &str, text: &str) -> Result<Document, PolicyError> {
    let (document, result) = judge(name, text)?;
    let vain = result.validation_warnings().filter_map(|warning| {
        let (rank, rule) = in_vain(warning)?;
        Some((line_of_policy(text, warning.policy_id().as_ref()), rank, rule))
    });
    match vain.min() {
        Some((line, _, rule)) => {
            Err(PolicyError::Rule { document: name.to_owned(), line, rule: rule.to_owned() })
        }
        None => Ok(document),
    }
}

/// What stands against a policy that Cedar takes with a warning, and how far behind other warnings that goes; nothing
/// where the warning is of no matter.
fn in_vain(warning: &ValidationWarning) -> Option<(u8, &'static str)> {
    match warning {
        // A path or a label may well be of two scripts.
        ValidationWarning::MixedScriptString(_) => None,
        ValidationWarning::InvalidActionApplication(_) => Some((
            0,
            "this policy never applies, for no action has such a principal and resource: after a role or a group of actions write `in`, not `==`",
        )),
        // Cedar says so of the ones above too.
        ValidationWarning::ImpossiblePolicy(_) => Some((
            1,
            "this policy never applies, for its conditions are false whatever is asked: see which context each action has",
        )),
        _ => Some((
            2,
            "this policy holds characters that look like others or turn the text around: write names in plain ASCII",
        )),
    }
}

/// Checks the text of the document `name` strictly.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn check(name: &str, text: &str) -> Result<Document, PolicyError> {
    judge(name, text).map(|(document, _)| document)
}

/// The document, and what Cedar warns of.
fn judge(name: &str, text: &str) -> Result<(Document, ValidationResult), PolicyError> {
    check_size(name, text)?;
    let parsed: PolicySet = text.parse().map_err(|error| syntax(name, text, &error))?;
    if let Some(template) = parsed.templates().next() {
        return Err(PolicyError::Rule {
            document: name.to_owned(),
            line: line_of_policy(text, template.id().as_ref()),
            rule: "templates (?principal, ?resource) are not taken: name the principal and the resource"
                .to_owned(),
        });
    }
    // Cedar numbers policies in their order in the text.
    let mut found: Vec<&Policy> = parsed.policies().collect();
    found.sort_by_key(|policy| number(policy.id().as_ref()));
    let mut seen = BTreeSet::new();
    let mut policies = Vec::with_capacity(found.len());
    for policy in found {
        let line = line_of_policy(text, policy.id().as_ref());
        let id = rules(policy, &mut seen).map_err(|rule| PolicyError::Rule {
            document: name.to_owned(),
            line,
            rule,
        })?;
        policies.push(policy.new_id(PolicyId::new(id)));
    }
    let result = against_schema(name, text, &parsed)?;
    Ok((Document { policies }, result))
}

fn check_size(name: &str, text: &str) -> Result<(), PolicyError> {
    let too_much = |what: String, hint| Err(PolicyError::TooMuch { document: name.to_owned(), what, hint });
    if text.len() > DOCUMENT_BYTES_MAX {
        return too_much(
            format!("is {} bytes long, {DOCUMENT_BYTES_MAX} are allowed", text.len()),
            "split it into several documents",
        );
    }
    if let Some(bad) = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return too_much(format!("holds the control character U+{:04X}", u32::from(bad)), "remove it");
    }
    let shape = shape(text);
    if shape.depth > NESTING_MAX {
        return too_much(
            format!("nests brackets deeper than {NESTING_MAX}"),
            "split the condition into several policies",
        );
    }
    if shape.operators > OPERATORS_MAX {
        return too_much(
            format!("has a policy with more than {OPERATORS_MAX} operators and words"),
            "use a set and `contains`, or several policies",
        );
    }
    Ok(())
}

struct Shape {
    depth: usize,
    operators: usize,
}

/// How deep brackets nest, and the most operators in one policy (words count as operators: `if`, `in`, `has` …).
fn shape(text: &str) -> Shape {
    let (mut depth, mut deepest, mut operators, mut most) = (0_usize, 0, 0_usize, 0);
    let mut in_word = false;
    for (_, c) in code(text) {
        match c {
            '(' | '[' | '{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ';' => operators = 0,
            '&' | '|' | '+' | '-' | '*' | '!' | '.' | '<' | '>' | '=' => operators += 1,
            c if c.is_alphanumeric() && !in_word => operators += 1,
            _ => {}
        }
        in_word = c.is_alphanumeric() || c == '_';
        most = most.max(operators);
    }
    Shape { depth: deepest, operators: most }
}

/// The characters that aren't in strings or comments, with their places; of a string its first quote.
pub(super) fn code(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (at, c) = chars.next()?;
            match c {
                '"' => {
                    while let Some((_, inner)) = chars.next() {
                        match inner {
                            '\\' => drop(chars.next()),
                            '"' => break,
                            _ => {}
                        }
                    }
                    return Some((at, c));
                }
                '/' if chars.peek().is_some_and(|(_, next)| *next == '/') => {
                    while chars.next_if(|(_, next)| *next != '\n').is_some() {}
                }
                _ => return Some((at, c)),
            }
        }
    })
}

fn number(id: &str) -> usize {
    id.strip_prefix("policy").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX)
}

/// Our own rules; gives the policy's `@id`.
fn rules(policy: &Policy, seen: &mut BTreeSet<String>) -> Result<String, String> {
    if let Some((key, _)) = policy.annotations().find(|(key, _)| !ANNOTATIONS.contains(key)) {
        return Err(format!(
            "the annotation @{key} means nothing here: use {}",
            ANNOTATIONS.map(|a| format!("@{a}")).join(", ")
        ));
    }
    let id = policy.annotation("id").filter(|id| !id.is_empty()).ok_or_else(|| {
        "this policy has no @id: write @id(\"some-name\") before it, decisions name it".to_owned()
    })?;
    if !crate::state::change::is_name(id) {
        return Err(format!(
            "the @id «{id}» isn't a name: use a–z, 0–9, «.», «_», «-», at most 63, first a letter or digit"
        ));
    }
    if !seen.insert(id.to_owned()) {
        return Err(format!("the @id «{id}» is used twice in this document: choose another"));
    }
    if let Some(level) = policy.annotation("recording") {
        if RecordingLevel::named(level).is_none() {
            return Err(format!("@recording(\"{level}\") is no level: use full, terminal, metadata or none"));
        }
        if policy.effect() == Effect::Forbid {
            return Err("@recording stands on a permit; a forbid lets nothing happen that could be recorded"
                .to_owned());
        }
    }
    Ok(id.to_owned())
}

fn against_schema(name: &str, text: &str, parsed: &PolicySet) -> Result<ValidationResult, PolicyError> {
    let schema = schema::schema().map_err(|error| PolicyError::NoSchema(error.to_owned()))?;
    let result = Validator::new(schema.clone()).validate(parsed, ValidationMode::Strict);
    let mut errors: Vec<(usize, String)> = result
        .validation_errors()
        .map(|error| {
            let line = offset(error).map_or_else(
                || line_of_policy(text, error.policy_id().as_ref()),
                |offset| line_at(text, offset),
            );
            (line, one_line(error))
        })
        .collect();
    errors.sort();
    match errors.into_iter().next() {
        Some((line, message)) => Err(PolicyError::Schema { document: name.to_owned(), line, message }),
        None => Ok(result),
    }
}

fn syntax(name: &str, text: &str, error: &cedar_policy::ParseErrors) -> PolicyError {
    let line = error.iter().find_map(|e| offset(e)).map_or(1, |offset| line_at(text, offset));
    let message = error.iter().next().map_or_else(|| error.to_string(), |first| one_line(first));
    PolicyError::Syntax { document: name.to_owned(), line, message }
}

fn offset(error: &dyn Diagnostic) -> Option<usize> {
    error.labels()?.next().map(|label| label.offset())
}

fn one_line(error: &dyn Diagnostic) -> String {
    let mut message = error.to_string();
    if let Some(help) = error.help() {
        message.push_str(": ");
        message.push_str(&help.to_string());
    }
    message.replace('\n', " ")
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

/// The line on which the policy that Cedar numbered `id` begins: after as many semicolons.
fn line_of_policy(text: &str, id: &str) -> usize {
    let mut before = number(id);
    for (at, c) in code(text) {
        if before == 0 && !c.is_whitespace() {
            return line_at(text, at);
        }
        if c == ';' {
            before = before.saturating_sub(1);
        }
    }
    1
}
