//! From a request to the resource that answers it. One file per resource; what all of them need
//! (who asks, whether it may, how large a body is) is decided here, once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::admin::reply::{self, PLAIN, Reply};
use crate::admin::{
    ask, auth, configuration, dashboard, drill, events, fleet, history, instances, live, metrics,
    openapi, ramp, rebalance, reload, split, status,
};

/// Bytes of a request's body.
const MAX_BODY: usize = 1024 * 1024;
/// A body that takes longer is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request is answered with.
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// Whether it has no end of its own.
    pub(super) streams: bool,
}

/// A request that may be answered.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) query: Query,
    pub(super) body: Bytes,
}

/// What can be asked for. One row for each here, in [`Resource::at`], [`Resource::methods`] and
/// [`ask()`].
#[derive(Debug, Clone, Copy)]
enum Resource<'a> {
    Health,
    Metrics,
    Events,
    Live,
    History,
    Status,
    Fleet,
    Version(&'a str, &'a str),
    Instance(&'a str, &'a str, &'a str),
    Rebalance(&'a str, &'a str),
    Split(&'a str),
    Ramp(&'a str),
    Reload,
    Configuration,
    Explain,
    Check,
    Drill,
    DrillOf(&'a str),
    Heartbeat(&'a str),
    Faults(&'a str),
    Fault(&'a str, &'a str),
    OpenApi,
}

impl<'a> Resource<'a> {
    fn at(parts: &[&'a str]) -> Option<Self> {
        Some(match parts {
            ["healthz"] => Self::Health,
            ["metrics"] => Self::Metrics,
            ["api", "v1", "events"] => Self::Events,
            ["api", "v1", "live"] => Self::Live,
            ["api", "v1", "history"] => Self::History,
            ["api", "v1", "status"] => Self::Status,
            ["api", "v1", "fleet"] => Self::Fleet,
            ["api", "v1", "instances", service, version] => Self::Version(service, version),
            ["api", "v1", "instances", service, version, name] => {
                Self::Instance(service, version, name)
            }
            ["api", "v1", "versions", service, version, "rebalance"] => {
                Self::Rebalance(service, version)
            }
            ["api", "v1", "services", service, "split"] => Self::Split(service),
            ["api", "v1", "services", service, "ramp"] => Self::Ramp(service),
            ["api", "v1", "reload"] => Self::Reload,
            ["api", "v1", "config"] => Self::Configuration,
            ["api", "v1", "explain"] => Self::Explain,
            ["api", "v1", "check"] => Self::Check,
            ["api", "v1", "drill"] => Self::Drill,
            ["api", "v1", "drill", id] => Self::DrillOf(id),
            ["api", "v1", "drill", id, "heartbeat"] => Self::Heartbeat(id),
            ["api", "v1", "drill", id, "faults"] => Self::Faults(id),
            ["api", "v1", "drill", id, "faults", number] => Self::Fault(id, number),
            ["api", "v1", "openapi.json"] => Self::OpenApi,
            _ => return None,
        })
    }

    /// As RFC 9110 section 10.2.1 writes them.
    fn methods(self) -> &'static str {
        match self {
            Self::Events | Self::Live | Self::History | Self::Explain | Self::OpenApi => {
                "GET, HEAD"
            }
            Self::Health | Self::Metrics | Self::Status | Self::Fleet | Self::Configuration => {
                "GET, HEAD"
            }
            Self::Version(..) | Self::Rebalance(..) | Self::Reload | Self::Check => "POST",
            Self::Instance(..) => "GET, HEAD, PATCH, DELETE",
            Self::Drill => "GET, HEAD, POST, DELETE",
            Self::Heartbeat(_) | Self::Faults(_) => "POST",
            Self::DrillOf(_) | Self::Fault(..) => "DELETE",
            Self::Split(_) => "GET, HEAD, PUT, DELETE",
            Self::Ramp(_) => "GET, HEAD, POST, PATCH",
        }
    }

    /// Whether it holds no data, and is answered to anybody.
    fn is_open(self) -> bool {
        matches!(self, Self::Health)
    }
}

/// Answers, whoever asks; `is_here` says whether from this machine.
pub(super) async fn answer(desk: &Arc<Desk>, request: Request<Incoming>, is_here: bool) -> Answer {
    let reply = decide(desk, request, is_here).await;
    let reply = reply.unwrap_or_else(|problem| reply::problem(&problem));
    let streams = reply::is_stream(&reply);
    Answer { reply: reply::secured(reply), streams }
}

/// In this order: whether it is the dashboard, which holds no data; whether it can be read, who asks,
/// what for, whether it may, and only then its body.
async fn decide(
    desk: &Arc<Desk>,
    request: Request<Incoming>,
    is_here: bool,
) -> Result<Reply, Problem> {
    let (head, body) = request.into_parts();
    if let Some(page) = dashboard::answer(&head.method, head.uri.path(), &head.headers) {
        return Ok(page);
    }
    let malformed =
        || Problem::new(StatusCode::BAD_REQUEST, "the path is not percent-encoded UTF-8");
    let parts = parts(head.uri.path()).ok_or_else(malformed)?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let resource = Resource::at(&parts);
    if !resource.is_some_and(Resource::is_open) {
        admit(desk, &head.headers, is_here)?;
    }
    let unknown = || Problem::unknown("nothing is here; /api/v1/openapi.json lists what there is");
    let resource = resource.ok_or_else(unknown)?;
    let methods = resource.methods();
    if !methods.split(", ").any(|method| head.method == method) {
        return Ok(reply::not_allowed(methods));
    }
    auth::may_change(&head.method, &head.headers)?;
    let query = Query::parse(head.uri.query().unwrap_or_default())?;
    let (method, headers, body) = (head.method, head.headers, read(body).await?);
    let question = Question { method, headers, query, body };
    ask(desk, resource, &question).await
}

fn admit(desk: &Desk, headers: &HeaderMap, is_here: bool) -> Result<(), Problem> {
    let snapshot = desk.live.snapshot();
    let token = snapshot.config.admin.as_ref().and_then(|admin| admin.token.as_ref());
    // A reload may have moved the address here and dropped the token, while old connections last.
    if token.is_none() && !is_here {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "only this machine is answered now"));
    }
    auth::admit(headers, token)
}

async fn ask(desk: &Arc<Desk>, of: Resource<'_>, question: &Question) -> Result<Reply, Problem> {
    match of {
        Resource::Health => Ok(reply::bytes(StatusCode::OK, PLAIN, "ok\n")),
        Resource::Metrics => {
            // The exposition format's own content type, version included.
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            // Of many instances it takes long enough for a probe to be late by it.
            let live = Arc::clone(&desk.live);
            let rendered = reply::aside("reading the metrics", move || metrics::render(&live));
            Ok(reply::bytes(StatusCode::OK, kind, rendered.await?))
        }
        Resource::Events => events::answer(desk, question),
        Resource::Live => live::answer(desk),
        Resource::History => Ok(history::answer(desk)),
        Resource::Status => status::answer(desk, question).await,
        Resource::Fleet => fleet::answer(desk),
        Resource::Version(service, version) => {
            instances::add(desk, (service, version), question).await
        }
        Resource::Instance(service, version, name) => {
            instances::one(desk, (service, version, name), question).await
        }
        Resource::Rebalance(service, version) => rebalance::answer(desk, (service, version)).await,
        Resource::Split(service) => split::answer(desk, service, question).await,
        Resource::Ramp(service) => ramp::answer(desk, service, question).await,
        Resource::Reload => reload::answer(desk).await,
        Resource::Configuration => Ok(configuration::answer(desk)),
        Resource::Explain => ask::explain(&desk.live, &question.query),
        Resource::Check => ask::check(desk, question.body.clone()).await,
        Resource::Drill => drill::current(desk, question),
        Resource::DrillOf(id) => drill::end(desk, id, question),
        Resource::Heartbeat(id) => drill::hear(desk, id),
        Resource::Faults(id) => drill::inject(desk, id, question),
        Resource::Fault(id, number) => drill::undo(desk, id, number),
        Resource::OpenApi => Ok(openapi::answer()),
    }
}

async fn read(body: Incoming) -> Result<Bytes, Problem> {
    let collected = Limited::new(body, MAX_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body has more than {MAX_BODY} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(error)) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, format!("reading the body: {error}")))
        }
        Err(_late) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

/// The parts of a path, each decoded by itself: a `%2F` is part of a name. `None` if it is no text.
fn parts(path: &str) -> Option<Vec<String>> {
    path.strip_prefix('/')?.split('/').map(|part| decode(part, false)).collect()
}

/// The fields of a query.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let field = |field: &str| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            Some((decode(name, true)?, decode(value, true)?))
        };
        let fields = text.split('&').filter(|field| !field.is_empty()).map(field);
        let wrong =
            || Problem::new(StatusCode::BAD_REQUEST, "the query is not percent-encoded UTF-8");
        fields.collect::<Option<_>>().map(Self).ok_or_else(wrong)
    }

    /// The values of this field, in their order.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The value of a field that may be there once.
    pub(super) fn one<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Problem> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Problem::wrong(format!("{name}: given more than once"))),
        }
    }
}

fn decode(text: &str, is_query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            // As forms write a space.
            b'+' if is_query => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_part_by_part_and_once() {
        let parts = |path: &str| parts(path).map(|parts| parts.join("|"));
        for (path, expected) in [
            ("/", Some("")),
            ("/api/v1/status", Some("api|v1|status")),
            ("/a/127.0.0.1%3A9001", Some("a|127.0.0.1:9001")),
            ("/a%2Fb/c", Some("a/b|c")),
            ("/a%252Fb", Some("a%2Fb")),
            ("/a+b", Some("a+b")),
            ("/../x", Some("..|x")),
            ("//x", Some("|x")),
            ("/%C3%A9", Some("é")),
            ("/%ff", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%+1", None),
            ("*", None),
        ] {
            assert_eq!(parts(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_query_is_read_as_forms_write_it() {
        let query = Query::parse("a=1&b=x+y%26z&a=2&c&=d&&").unwrap();
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.one("b").unwrap(), Some("x y&z"));
        assert_eq!(query.one("c").unwrap(), Some(""));
        assert_eq!(query.one("d").unwrap(), None);
        assert!(query.one("a").is_err());
        assert!(Query::parse("a=%ff").is_err());
    }
}
