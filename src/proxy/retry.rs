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
    /// It was open, and then TLS failed on it.
    Tls,
    /// It broke before the first byte of an answer.
    Reset(Sent),
    /// The answer broke the rules of HTTP.
    InvalidResponse,
    /// No byte of an answer in time.
    FirstByteTimeout,
    /// Readiness probes of the instance went unanswered while the request waited.
    Unanswered(Sent),
    /// The instance was found dead while the request waited.
    Dead(Sent),
    /// Burdock has no descriptor, port or memory left for a connection.
    NoSocket,
}

impl Failure {
    /// Whether it says nothing of the instance.
    pub const fn is_own(self) -> bool {
        matches!(self, Self::NoSocket)
    }

    /// Whether it speaks against the instance. An upgrade that fails later than the connection may
    /// be what the application wants.
    pub fn is_blamed(self, upgrade: bool) -> bool {
        !self.is_own() && (!upgrade || self.is_harmless())
    }

    /// Whether the instance has certainly not acted on the request.
    fn is_harmless(self) -> bool {
        match self {
            Self::Connect | Self::ConnectTimeout | Self::Tls | Self::NoSocket => true,
            Self::Reset(sent) | Self::Unanswered(sent) | Self::Dead(sent) => sent == Sent::Nothing,
            Self::InvalidResponse | Self::FirstByteTimeout => false,
        }
    }

    /// Whether another instance is likely to do better, soon.
    fn is_local(self) -> bool {
        match self {
            Self::Connect
            | Self::ConnectTimeout
            | Self::Tls
            | Self::NoSocket
            | Self::Reset(_)
            | Self::Unanswered(_)
            | Self::Dead(_) => true,
            // A slow or broken answer is more often the request's doing than the instance's.
            Self::InvalidResponse | Self::FirstByteTimeout => false,
        }
    }
}

/// Whether trying another instance after `failure` counts: as one of `retry.attempts`, and against
/// the budget. `admitted` says that the next one's breaker lets the request through.
///
/// What was never sent costs the version nothing, so there is no storm to bound; where all breakers
/// are open, there is: each request would knock at every instance.
pub fn counts(failure: Failure, admitted: bool) -> bool {
    !failure.is_harmless() || !admitted
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
    fn what_was_never_sent_counts_only_where_a_breaker_is_passed_over() {
        for failure in [Failure::Connect, Failure::Dead(Sent::Nothing)] {
            assert!(!counts(failure, true) && counts(failure, false));
        }
        assert!(counts(Failure::Reset(Sent::Something), true));
    }

    #[test]
    fn an_upgrade_is_held_against_an_instance_only_if_it_could_not_connect() {
        for (failure, request, upgrade) in [
            (Failure::Connect, true, true),
            (Failure::ConnectTimeout, true, true),
            (Failure::Tls, true, true),
            (Failure::Reset(Sent::Something), true, false),
            (Failure::FirstByteTimeout, true, false),
            (Failure::InvalidResponse, true, false),
            (Failure::NoSocket, false, false),
        ] {
            let blamed = (failure.is_blamed(false), failure.is_blamed(true));
            assert_eq!(blamed, (request, upgrade), "{failure:?}");
        }
    }

    #[test]
    fn only_what_is_safe_is_tried_again() {
        let (get, post) = (Method::GET, Method::POST);
        let reset = Failure::Reset;
        for (method, failure, replayable, expected) in [
            (&get, Failure::Connect, true, true),
            (&post, Failure::Connect, true, true),
            (&post, Failure::ConnectTimeout, true, true),
            (&post, Failure::Tls, true, true),
            (&post, Failure::Tls, false, false),
            (&post, Failure::Connect, false, false),
            (&get, reset(Sent::Something), true, true),
            (&post, reset(Sent::Something), true, false),
            (&post, reset(Sent::Nothing), true, true),
            (&Method::PUT, reset(Sent::Something), true, true),
            (&Method::PUT, reset(Sent::Something), false, false),
            (&get, Failure::Unanswered(Sent::Something), true, true),
            (&post, Failure::Unanswered(Sent::Something), true, false),
            (&post, Failure::Unanswered(Sent::Nothing), true, true),
            (&get, Failure::Dead(Sent::Something), true, true),
            (&post, Failure::Dead(Sent::Nothing), true, true),
            (&post, Failure::Dead(Sent::Nothing), false, false),
            (&post, Failure::NoSocket, true, true),
            (&get, Failure::FirstByteTimeout, true, false),
            (&get, Failure::InvalidResponse, true, false),
        ] {
            assert_eq!(allowed(method, failure, replayable), expected, "{method} {failure:?}");
        }
    }
}
