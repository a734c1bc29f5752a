//! What a request is answered when it isn't done: one line that says what happened and what to do.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use custody_core::log::{ProducerError, ReadError};
use custody_core::search::SearchError;
use custody_core::state::change::ChangeRefused;
use custody_core::state::follow::Stopped;

/// Why a request isn't done. `Display` is what the client is told.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 400: where to go on isn't known.
    #[error("{0}")]
    Cursor(#[from] super::cursor::CursorError),
    /// 401: who asks isn't proved.
    #[error("{0}")]
    Unproved(&'static str),
    /// 403: policy or a lock says no.
    #[error("access denied: {0}")]
    Denied(String),
    /// 404.
    #[error("{0}")]
    Missing(String),
    /// 408: the request didn't come in time.
    #[error("the request didn't arrive within {0} seconds: send it again")]
    TooSlow(u64),
    /// 409: the state says no.
    #[error("{0}")]
    Conflict(String),
    /// 413.
    #[error("the request's body is longer than {0} bytes")]
    TooLarge(usize),
    /// 422: what was sent is wrong.
    #[error("{0}")]
    Invalid(String),
    /// 429.
    #[error("too many failed logins: try again in {seconds} s")]
    Limited {
        /// When one more is allowed.
        seconds: u64,
    },
    /// 429.
    #[error("too many subscriptions and long polls are open: end one, or come again in {seconds} s")]
    Crowded {
        /// When to come again.
        seconds: u64,
    },
    /// 503: the log takes no evidence, so nothing is done.
    #[error("the audit log takes no evidence, so nothing was done: tell your administrator")]
    NoEvidence(#[source] ProducerError),
    /// 503: something that answers is behind or down.
    #[error("{0}")]
    Unavailable(String),
    /// 500: an entry of the log can't be given, and nothing is put in its place.
    #[error(
        "entry {index} of the log is damaged on the server's disk; it is left as it is: tell your administrator"
    )]
    Damaged {
        /// The first such entry.
        index: u64,
        /// Where and how, for the server's own output.
        cause: String,
    },
    /// 500: a mistake or a fault on this side; the cause is in the server's own output.
    #[error("the server failed while it {doing}: tell your administrator")]
    Failed {
        /// What it was doing.
        doing: &'static str,
        /// The cause, for the server's own output.
        cause: String,
    },
}

impl ApiError {
    /// A failure on this side.
    pub fn failed(doing: &'static str, cause: impl ToString) -> Self {
        Self::Failed { doing, cause: cause.to_string() }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Cursor(_) => StatusCode::BAD_REQUEST,
            Self::Unproved(_) => StatusCode::UNAUTHORIZED,
            Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Limited { .. } | Self::Crowded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NoEvidence(_) | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Damaged { .. } | Self::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match &self {
            Self::NoEvidence(cause) => tracing::error!(%cause, "the log took no evidence"),
            Self::Damaged { index, cause } => tracing::error!(%index, %cause, "the log is damaged"),
            Self::Failed { doing, cause } => tracing::error!(%doing, %cause, "a request failed"),
            _ => {}
        }
        let mut body = serde_json::json!({ "error": self.to_string() });
        if let (Self::Cursor(error), Some(fields)) = (&self, body.as_object_mut()) {
            fields.insert("code".to_owned(), error.code().into());
        }
        let body = Json(body);
        let mut response = (self.status(), body).into_response();
        // "Not yet" and "not now" are soon wrong.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::Limited { seconds } | Self::Crowded { seconds } = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<ProducerError> for ApiError {
    fn from(error: ProducerError) -> Self {
        match error {
            ProducerError::Unwritable(cause) => Self::Invalid(cause.to_string()),
            other => Self::NoEvidence(other),
        }
    }
}

impl From<ChangeRefused> for ApiError {
    fn from(error: ChangeRefused) -> Self {
        let line = error.to_string();
        match error {
            ChangeRefused::Invalid(_) | ChangeRefused::Policy(_) => Self::Invalid(line),
            ChangeRefused::Missing { .. } => Self::Missing(line),
            ChangeRefused::Conflict(_) => Self::Conflict(line),
        }
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Behind { .. } | SearchError::Stopped { .. } | SearchError::TooSlow => {
                Self::Unavailable(error.to_string())
            }
            SearchError::Log(error) => error.into(),
            other => Self::failed("searched", other),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange { wanted, size } => {
                Self::Missing(format!("there is no entry {wanted}: the log has {size}"))
            }
            ReadError::Damaged { index, .. } | ReadError::Io { index, .. } => {
                Self::Damaged { index, cause: error.to_string() }
            }
        }
    }
}

impl From<Stopped> for ApiError {
    fn from(error: Stopped) -> Self {
        Self::Unavailable(error.to_string())
    }
}
