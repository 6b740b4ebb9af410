//! Why a request failed, with one outward mapping: the status that the client sees, and the label
//! in the answer's body, the log and the metric. Pure.

use http::StatusCode;

use crate::proxy::headers::BadRequest;
use crate::proxy::retry::Failure;
use crate::route::Unrouted;

/// What went wrong. The name of a variant in snake case is its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request's head is malformed.
    BadRequest,
    /// A connection has no PROXY protocol header where it must, or a malformed one.
    ProxyHeader,
    /// The address is not let in.
    Denied,
    /// `limits.connections`.
    ConnectionLimit,
    /// `limits.connections_per_client`.
    ClientConnectionLimit,
    /// `limits.uri`.
    UriTooLong,
    /// `limits.max_body`.
    BodyTooLarge,
    /// `rate_limit`.
    RateLimited,
    /// The request's head is too long, or has too many fields.
    HeadTooLarge,
    /// Host is missing, repeated or malformed.
    BadHost,
    /// The target's scheme is not what the client came by.
    Misdirected,
    /// The request expects something other than 100-continue.
    ExpectationFailed,
    /// The request has passed this Burdock too often.
    LoopDetected,
    /// The body is coded in a way other than chunked.
    UnsupportedCoding,
    /// CONNECT was asked for.
    ConnectUnsupported,
    /// Instances may read the path in ways that lead to different services or routes.
    AmbiguousPath,
    /// No service takes this host and path.
    NoService,
    /// No instance may receive traffic.
    NoInstance,
    /// The session's instance can't serve it, and `affinity.strict` keeps it from moving.
    SessionUnavailable,
    /// `websocket.max_new_per_second`.
    UpgradeLimit,
    /// All instances are full, and as many wait as may.
    QueueFull,
    /// All instances were full for as long as a request may wait.
    QueueTimeout,
    /// The connection to an instance was refused or failed.
    ConnectFailed,
    /// `timeouts.connect`.
    ConnectTimeout,
    /// TLS with an instance failed.
    TlsFailed,
    /// Burdock has no descriptor, port or memory left for a connection to an instance.
    NoSocket,
    /// An instance broke the connection before its answer began.
    InstanceReset,
    /// An instance's answer broke the rules of HTTP.
    InvalidResponse,
    /// `timeouts.first_byte`.
    FirstByteTimeout,
    /// Readiness probes of the instance went unanswered meanwhile, and a retry wasn't safe.
    InstanceUnanswered,
    /// The instance was found dead meanwhile, and a retry wasn't safe.
    InstanceDead,
    /// `timeouts.header_read`.
    HeaderReadTimeout,
    /// `timeouts.keep_alive`.
    KeepAliveTimeout,
    /// `timeouts.idle` while the client sent its body.
    RequestIdleTimeout,
    /// `limits.min_upload`.
    RequestTooSlow,
    /// `limits.min_download`.
    ClientTooSlow,
    /// `timeouts.idle` while the instance sent its answer.
    ResponseIdleTimeout,
    /// `timeouts.idle` while the client took its answer.
    ClientIdleTimeout,
    /// The client sent too many frames of HTTP/2 that ask for nothing.
    Flood,
    /// An instance broke its answer off.
    ResponseBroken,
    /// The client went away first.
    ClientClosed,
    /// Burdock's drain deadline passed.
    ShutdownDeadline,
}

impl Reason {
    /// Every reason, in the order of the metric's rows.
    pub const ALL: [Self; 42] = [
        Self::BadRequest,
        Self::ProxyHeader,
        Self::Denied,
        Self::ConnectionLimit,
        Self::ClientConnectionLimit,
        Self::UriTooLong,
        Self::BodyTooLarge,
        Self::RateLimited,
        Self::HeadTooLarge,
        Self::BadHost,
        Self::Misdirected,
        Self::ExpectationFailed,
        Self::LoopDetected,
        Self::UnsupportedCoding,
        Self::ConnectUnsupported,
        Self::AmbiguousPath,
        Self::NoService,
        Self::NoInstance,
        Self::SessionUnavailable,
        Self::UpgradeLimit,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::TlsFailed,
        Self::NoSocket,
        Self::InstanceReset,
        Self::InvalidResponse,
        Self::FirstByteTimeout,
        Self::InstanceUnanswered,
        Self::InstanceDead,
        Self::HeaderReadTimeout,
        Self::KeepAliveTimeout,
        Self::RequestIdleTimeout,
        Self::RequestTooSlow,
        Self::ClientTooSlow,
        Self::ResponseIdleTimeout,
        Self::ClientIdleTimeout,
        Self::Flood,
        Self::ResponseBroken,
        Self::ClientClosed,
        Self::ShutdownDeadline,
    ];

    /// The label everywhere, and the status where one can still be sent.
    pub const fn outward(self) -> (&'static str, Option<StatusCode>) {
        match self {
            Self::BadRequest => ("bad_request", Some(StatusCode::BAD_REQUEST)),
            Self::ProxyHeader => ("proxy_header", None),
            Self::Denied => ("denied", Some(StatusCode::FORBIDDEN)),
            Self::ConnectionLimit => ("connection_limit", None),
            Self::ClientConnectionLimit => ("client_connection_limit", None),
            Self::UriTooLong => ("uri_too_long", Some(StatusCode::URI_TOO_LONG)),
            Self::BodyTooLarge => ("body_too_large", Some(StatusCode::PAYLOAD_TOO_LARGE)),
            Self::RateLimited => ("rate_limited", Some(StatusCode::TOO_MANY_REQUESTS)),
            Self::HeadTooLarge => {
                ("head_too_large", Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
            }
            Self::BadHost => ("bad_host", Some(StatusCode::BAD_REQUEST)),
            Self::Misdirected => ("misdirected", Some(StatusCode::MISDIRECTED_REQUEST)),
            Self::ExpectationFailed => ("expectation_failed", Some(StatusCode::EXPECTATION_FAILED)),
            Self::LoopDetected => ("loop_detected", Some(StatusCode::LOOP_DETECTED)),
            Self::UnsupportedCoding => ("unsupported_coding", Some(StatusCode::NOT_IMPLEMENTED)),
            Self::ConnectUnsupported => ("connect_unsupported", Some(StatusCode::NOT_IMPLEMENTED)),
            Self::AmbiguousPath => ("ambiguous_path", Some(StatusCode::BAD_REQUEST)),
            Self::NoService => ("no_service", Some(StatusCode::NOT_FOUND)),
            Self::NoInstance => ("no_instance", Some(StatusCode::SERVICE_UNAVAILABLE)),
            Self::SessionUnavailable => {
                ("session_unavailable", Some(StatusCode::SERVICE_UNAVAILABLE))
            }
            Self::UpgradeLimit => ("upgrade_limit", Some(StatusCode::SERVICE_UNAVAILABLE)),
            Self::QueueFull => ("queue_full", Some(StatusCode::SERVICE_UNAVAILABLE)),
            Self::QueueTimeout => ("queue_timeout", Some(StatusCode::SERVICE_UNAVAILABLE)),
            Self::ConnectFailed => ("connect_failed", Some(StatusCode::BAD_GATEWAY)),
            Self::ConnectTimeout => ("connect_timeout", Some(StatusCode::GATEWAY_TIMEOUT)),
            Self::TlsFailed => ("tls_failed", Some(StatusCode::BAD_GATEWAY)),
            Self::NoSocket => ("no_socket", Some(StatusCode::SERVICE_UNAVAILABLE)),
            Self::InstanceReset => ("instance_reset", Some(StatusCode::BAD_GATEWAY)),
            Self::InvalidResponse => ("invalid_response", Some(StatusCode::BAD_GATEWAY)),
            Self::FirstByteTimeout => ("first_byte_timeout", Some(StatusCode::GATEWAY_TIMEOUT)),
            Self::InstanceUnanswered => ("instance_unanswered", Some(StatusCode::GATEWAY_TIMEOUT)),
            Self::InstanceDead => ("instance_dead", Some(StatusCode::BAD_GATEWAY)),
            Self::HeaderReadTimeout => ("header_read_timeout", Some(StatusCode::REQUEST_TIMEOUT)),
            Self::KeepAliveTimeout => ("keep_alive_timeout", None),
            Self::RequestIdleTimeout => ("request_idle_timeout", Some(StatusCode::REQUEST_TIMEOUT)),
            Self::RequestTooSlow => ("request_too_slow", Some(StatusCode::REQUEST_TIMEOUT)),
            Self::ClientTooSlow => ("client_too_slow", None),
            Self::ResponseIdleTimeout => ("response_idle_timeout", None),
            Self::ClientIdleTimeout => ("client_idle_timeout", None),
            Self::Flood => ("flood", None),
            Self::ResponseBroken => ("response_broken", None),
            Self::ClientClosed => ("client_closed", None),
            Self::ShutdownDeadline => ("shutdown_deadline", None),
        }
    }

    /// Whether Burdock or an instance has failed, rather than the client.
    pub const fn is_failure(self) -> bool {
        let is_client =
            matches!(self, Self::UnsupportedCoding | Self::ConnectUnsupported | Self::LoopDetected);
        let breaks = matches!(
            self,
            Self::ResponseIdleTimeout | Self::ResponseBroken | Self::ShutdownDeadline
        );
        breaks || !is_client && matches!(self.outward().1, Some(status) if status.as_u16() >= 500)
    }

    /// The label in the answer's body, the log and the metric.
    pub const fn label(self) -> &'static str {
        self.outward().0
    }
}

impl From<BadRequest> for Reason {
    fn from(bad: BadRequest) -> Self {
        match bad {
            BadRequest::Host => Self::BadHost,
            BadRequest::Coding => Self::UnsupportedCoding,
            BadRequest::Connect => Self::ConnectUnsupported,
            BadRequest::Misdirected => Self::Misdirected,
            BadRequest::Expectation => Self::ExpectationFailed,
            BadRequest::Loop => Self::LoopDetected,
            BadRequest::Target
            | BadRequest::Framing
            | BadRequest::Trace
            | BadRequest::MaxForwards => Self::BadRequest,
        }
    }
}

impl From<Unrouted> for Reason {
    fn from(why: Unrouted) -> Self {
        match why {
            Unrouted::Nobody => Self::NoService,
            Unrouted::Ambiguous => Self::AmbiguousPath,
        }
    }
}

impl From<Failure> for Reason {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connect => Self::ConnectFailed,
            Failure::ConnectTimeout => Self::ConnectTimeout,
            Failure::Tls => Self::TlsFailed,
            Failure::Reset(_) => Self::InstanceReset,
            Failure::InvalidResponse => Self::InvalidResponse,
            Failure::FirstByteTimeout | Failure::TryTimeout => Self::FirstByteTimeout,
            Failure::Unanswered(_) => Self::InstanceUnanswered,
            Failure::Dead(_) => Self::InstanceDead,
            Failure::NoSocket => Self::NoSocket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
