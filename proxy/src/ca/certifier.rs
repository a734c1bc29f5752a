//! How a proxy gets a certificate for one session's key, wherever the authority is.

use super::Authorities;
use super::ssh::{IssueError, IssuedSsh, SessionRequest};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A certificate for a session, with what its event says.
pub type SessionCredential = IssuedSsh;

/// Why a session got no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// The authority refused.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// It can't be reached, or its log takes no events.
    #[error("the certificate authority can't be used: {0}")]
    Unavailable(String),
}

/// Certifies a session's key. A proxy knows only this: it holds no authority's key, and the authority may be in the
/// same process or behind mutual TLS on another machine.
///
/// `Ok` says that the certificate is signed; not that `certificate.issued` is durable, unless the implementation
/// says so. The one who asks must not use the certificate before that event is durable.
pub trait SessionCertifier: Send + Sync {
    /// Certifies the request's key for its session.
    fn certify<'a>(
        &'a self,
        request: &'a SessionRequest,
    ) -> Pin<Box<dyn Future<Output = Result<SessionCredential, CertifyError>> + Send + 'a>>;
}

/// The authority in the same process. Appends nothing: the caller makes the event durable.
pub struct LocalCertifier<Clock> {
    authorities: Arc<Authorities>,
    now: Clock,
}

impl<Clock: Fn() -> u64 + Send + Sync> LocalCertifier<Clock> {
    /// Certifies with these authorities; `now` tells the seconds since 1970.
    pub fn new(authorities: Arc<Authorities>, now: Clock) -> Self {
        Self { authorities, now }
    }
}

impl<Clock: Fn() -> u64 + Send + Sync> SessionCertifier for LocalCertifier<Clock> {
    fn certify<'a>(
        &'a self,
        request: &'a SessionRequest,
    ) -> Pin<Box<dyn Future<Output = Result<SessionCredential, CertifyError>> + Send + 'a>> {
        let issued = self.authorities.ssh_target.issue((self.now)(), request);
        Box::pin(std::future::ready(issued.map_err(CertifyError::from)))
    }
}
