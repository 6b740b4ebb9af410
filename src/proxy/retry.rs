//! Whether a failed attempt is tried again on another instance. Pure.

use http::Method;

/// How much of a request an instance may have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Not a byte, for certain.
    Nothing,
    /// Perhaps all of it.
    Something,
}

/// Why an attempt brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The connection was refused or reset while it was opened.
    Connect,
    /// It wasn't open in time.
    ConnectTimeout,
    /// It broke before the first byte of an answer.
    Reset(Sent),
    /// The answer broke the rules of HTTP.
    InvalidResponse,
    /// No byte of an answer in time.
    FirstByteTimeout,
    /// Readiness probes of the instance went unanswered while the request waited.
    Unanswered,
    /// The instance was found dead while the request waited.
    Dead,
}

impl Failure {
    /// Whether the instance has certainly not acted on the request.
    fn is_harmless(self) -> bool {
        match self {
            Self::Connect | Self::ConnectTimeout | Self::Reset(Sent::Nothing) => true,
            Self::Reset(Sent::Something)
            | Self::InvalidResponse
            | Self::FirstByteTimeout
            | Self::Unanswered
            | Self::Dead => false,
        }
    }

    /// Whether another instance is likely to do better, soon.
    fn is_local(self) -> bool {
        match self {
            Self::Connect
            | Self::ConnectTimeout
            | Self::Reset(_)
            | Self::Unanswered
            | Self::Dead => true,
            // A slow or broken answer is more often the request's doing than the instance's.
            Self::InvalidResponse | Self::FirstByteTimeout => false,
        }
    }
}

/// Whether trying another instance after `failure` counts: as one of `retry.attempts`, and against
/// the budget. `admitted` says that the next one's breaker lets the request through.
///
/// A failed connect costs the version nothing, so there is no storm to bound; where all breakers are
/// open, there is: each request would knock at every instance.
pub fn counts(failure: Failure, admitted: bool) -> bool {
    match failure {
        Failure::Connect | Failure::ConnectTimeout => !admitted,
        Failure::Reset(_)
        | Failure::InvalidResponse
        | Failure::FirstByteTimeout
        | Failure::Unanswered
        | Failure::Dead => true,
    }
}

/// Whether a request with `method` that failed with `failure` may be tried again.
///
/// RFC 9110 section 9.2.2: a proxy must not retry a method that isn't idempotent by itself, unless
/// it knows that the request was never acted upon. `replayable` says that all of the body that was
/// taken from the client is still held.
pub fn allowed(method: &Method, failure: Failure, replayable: bool) -> bool {
    failure.is_local() && replayable && (failure.is_harmless() || method.is_idempotent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_connect_counts_only_where_a_breaker_is_passed_over() {
        for failure in [Failure::Connect, Failure::ConnectTimeout] {
            assert!(!counts(failure, true) && counts(failure, false));
        }
        assert!(counts(Failure::Reset(Sent::Nothing), true));
    }

    #[test]
    fn only_what_is_safe_is_tried_again() {
        let (get, post) = (Method::GET, Method::POST);
        let reset = Failure::Reset;
        for (method, failure, replayable, expected) in [
            (&get, Failure::Connect, true, true),
            (&post, Failure::Connect, true, true),
            (&post, Failure::ConnectTimeout, true, true),
            (&post, Failure::Connect, false, false),
            (&get, reset(Sent::Something), true, true),
            (&post, reset(Sent::Something), true, false),
            (&post, reset(Sent::Nothing), true, true),
            (&Method::PUT, reset(Sent::Something), true, true),
            (&Method::PUT, reset(Sent::Something), false, false),
            (&get, Failure::Unanswered, true, true),
            (&post, Failure::Unanswered, true, false),
            (&get, Failure::Dead, true, true),
            (&get, Failure::FirstByteTimeout, true, false),
            (&get, Failure::InvalidResponse, true, false),
        ] {
            assert_eq!(allowed(method, failure, replayable), expected, "{method} {failure:?}");
        }
    }
}
