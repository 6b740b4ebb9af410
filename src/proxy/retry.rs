//! Whether a failed attempt is tried again on another instance. Pure.

use http::{Method, StatusCode};

use crate::config::types::{Condition, Retry};

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
    /// No byte of an answer in `retry.per_try_timeout`, while another instance could be tried.
    TryTimeout,
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
            Self::Connect | Self::ConnectTimeout | Self::NoSocket => true,
            Self::Reset(sent) | Self::Unanswered(sent) | Self::Dead(sent) => sent == Sent::Nothing,
            Self::InvalidResponse | Self::FirstByteTimeout | Self::TryTimeout => false,
        }
    }

    /// What it is in `retry.on`; `None` if that has no say.
    fn condition(self) -> Option<Condition> {
        match self {
            Self::Connect | Self::ConnectTimeout | Self::NoSocket => Some(Condition::Connect),
            Self::Reset(_) => Some(Condition::Reset),
            Self::Unanswered(_) | Self::Dead(_) => Some(Condition::Unanswered),
            Self::FirstByteTimeout => Some(Condition::Timeout),
            Self::InvalidResponse => Some(Condition::InvalidResponse),
            Self::TryTimeout => None,
        }
    }
}

/// Whether trying another instance after `failure` counts: as one of `retry.attempts`, and against
/// the budget. `admitted` says that the next one's breaker lets the request through.
///
/// What was never sent costs the version nothing, so there is no storm to bound; where all breakers
/// are open, there is: each request would knock at every instance. A try that was cut short for the
/// next one has been paid for.
pub fn counts(failure: Failure, admitted: bool) -> bool {
    failure != Failure::TryTimeout && (!failure.is_harmless() || !admitted)
}

/// Whether `limits` know of another try after a failure of this kind.
pub fn has_say(limits: &Retry, condition: Condition) -> bool {
    limits.attempts > 1 && limits.on.contains(&condition)
}

/// Whether another instance is tried after a request with `method` has failed with `failure`.
pub fn allowed(limits: &Retry, method: &Method, failure: Failure, replayable: bool) -> bool {
    let is_wanted = match failure.condition() {
        Some(condition) => has_say(limits, condition),
        None => limits.attempts > 1,
    };
    is_wanted && is_safe(method, failure, replayable)
}

/// Whether a request with `method` that failed with `failure` may be sent again.
///
/// RFC 9110 section 9.2.2: a proxy must not retry a method that isn't idempotent by itself, unless
/// it knows that the request was never acted upon. `replayable` says that all of the body that was
/// taken from the client is still held.
pub fn is_safe(method: &Method, failure: Failure, replayable: bool) -> bool {
    replayable && (failure.is_harmless() || method.is_idempotent())
}

/// Whether an answer with `status` to a request with `method` is given up for that of another
/// instance, if there is one. Whoever answers has acted: RFC 9110 section 9.2.2 leaves only
/// idempotent methods.
pub fn gives_up(limits: &Retry, method: &Method, status: StatusCode) -> bool {
    limits.attempts > 1 && is_listed(limits, status) && method.is_idempotent()
}

/// Whether an answer with `status` ends a race: an error that came first does not, since the other
/// may still do better.
pub fn wins(limits: &Retry, status: StatusCode) -> bool {
    !status.is_server_error() && !is_listed(limits, status)
}

fn is_listed(limits: &Retry, status: StatusCode) -> bool {
    let status = status.as_u16();
    limits.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status))
}

/// Whether a request with `method` may be asked of two instances at once: one that only reads,
/// though RFC 9110 section 9.2.2 would let others pass. Of two that delete, the second would say
/// that there is nothing, and might be the first to answer.
pub fn may_hedge(limits: &Retry, method: &Method) -> bool {
    limits.attempts > 1 && method.is_safe()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: [Failure; 12] = [
        Failure::Connect,
        Failure::ConnectTimeout,
        Failure::NoSocket,
        Failure::Reset(Sent::Nothing),
        Failure::Reset(Sent::Something),
        Failure::Unanswered(Sent::Nothing),
        Failure::Unanswered(Sent::Something),
        Failure::Dead(Sent::Nothing),
        Failure::Dead(Sent::Something),
        Failure::FirstByteTimeout,
        Failure::InvalidResponse,
        Failure::TryTimeout,
    ];

    fn on(conditions: &[Condition]) -> Retry {
        Retry { on: conditions.to_vec(), ..Retry::default() }
    }

    #[test]
    fn what_was_never_sent_counts_only_where_a_breaker_is_passed_over() {
        for failure in [Failure::Connect, Failure::Dead(Sent::Nothing)] {
            assert!(!counts(failure, true) && counts(failure, false));
        }
        assert!(counts(Failure::Reset(Sent::Something), true));
        assert!(counts(Failure::FirstByteTimeout, true));
        assert!(!counts(Failure::TryTimeout, true) && !counts(Failure::TryTimeout, false));
    }

    #[test]
    fn an_upgrade_is_held_against_an_instance_only_if_it_could_not_connect() {
        for (failure, request, upgrade) in [
            (Failure::Connect, true, true),
            (Failure::ConnectTimeout, true, true),
            (Failure::Reset(Sent::Something), true, false),
            (Failure::FirstByteTimeout, true, false),
            (Failure::TryTimeout, true, false),
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
            let found = allowed(&Retry::default(), method, failure, replayable);
            assert_eq!(found, expected, "{method} {failure:?}");
        }
    }

    #[test]
    fn each_condition_switches_its_own_failures_and_no_others() {
        let after = |condition| match condition {
            Condition::Connect => 0..3,
            Condition::Reset => 3..5,
            Condition::Unanswered => 5..9,
            Condition::Timeout => 9..10,
            Condition::InvalidResponse => 10..11,
        };
        for condition in Condition::ALL {
            let limits = on(&[condition]);
            for (place, failure) in EVERY.into_iter().enumerate().take(11) {
                let expected = after(condition).contains(&place);
                let found = allowed(&limits, &Method::GET, failure, true);
                assert_eq!(found, expected, "{condition:?} {failure:?}");
            }
        }
        assert!(allowed(&on(&[]), &Method::GET, Failure::TryTimeout, true), "it has no word");
    }

    #[test]
    fn no_condition_sends_again_what_may_have_been_acted_upon() {
        for limits in [on(&Condition::ALL), Retry::default()] {
            for failure in EVERY {
                let found = allowed(&limits, &Method::POST, failure, true);
                assert!(!found || failure.is_harmless(), "{failure:?}");
                assert!(!allowed(&limits, &Method::PUT, failure, false), "{failure:?}: not kept");
            }
        }
    }

    #[test]
    fn with_one_attempt_nothing_is_tried_again() {
        let off = Retry { attempts: 1, statuses: vec![(500, 599)], ..on(&Condition::ALL) };
        for failure in EVERY {
            assert!(!allowed(&off, &Method::GET, failure, true), "{failure:?}");
        }
        assert!(!gives_up(&off, &Method::GET, StatusCode::SERVICE_UNAVAILABLE));
        assert!(!may_hedge(&off, &Method::GET));
    }

    #[test]
    fn answers_of_listed_statuses_are_given_up_for_idempotent_methods() {
        let limits = Retry { statuses: vec![(429, 429), (502, 504)], ..Retry::default() };
        for (method, status, expected) in [
            (Method::GET, 503, true),
            (Method::GET, 429, true),
            (Method::PUT, 502, true),
            (Method::DELETE, 504, true),
            (Method::POST, 503, false),
            (Method::PATCH, 503, false),
            (Method::GET, 500, false),
            (Method::GET, 505, false),
            (Method::GET, 200, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(gives_up(&limits, &method, status), expected, "{method} {status}");
            assert!(!gives_up(&Retry::default(), &method, status), "off by default");
        }
    }

    #[test]
    fn an_error_does_not_win_a_race_and_only_reading_begins_one() {
        let limits = Retry { statuses: vec![(429, 429)], ..Retry::default() };
        for (status, expected) in
            [(200, true), (404, true), (302, true), (429, false), (500, false)]
        {
            assert_eq!(wins(&limits, StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
        for (method, expected) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::DELETE, false),
            (Method::POST, false),
        ] {
            assert_eq!(may_hedge(&limits, &method), expected, "{method}");
        }
    }
}
