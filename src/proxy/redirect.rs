//! What a plain listener answers that sends its clients to https: the same URL there.

use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode, request};

use crate::config::types::HttpsRedirect;
use crate::instance::body::Incoming;
use crate::proxy::answer::{self, AnswerBody};
use crate::proxy::client::Came;
use crate::proxy::error::Reason;
use crate::proxy::exchange::Exchange;
use crate::proxy::headers::{self, Fields};

/// Answers one request. Of a client that came to a trusted proxy by https it is none to redirect:
/// that would go on for ever.
pub async fn handle(
    came: Came,
    request: Request<Option<Incoming>>,
    redirect: HttpsRedirect,
) -> Response<AnswerBody> {
    let client = came.client();
    let snapshot = client.live.snapshot();
    if headers::is_https(request.headers(), client.origin(&snapshot, request.version())) {
        return super::handle(came, request).await;
    }
    let mut exchange = Exchange::begin(came, &request);
    exchange.log_as(&snapshot, Some(request.headers()));
    let (head, _unread) = request.into_parts();
    let origin = exchange.client.origin(&snapshot, head.version);
    let trusted = &snapshot.config.trusted_proxies;
    let address = headers::client_address(&head.headers, origin, trusted);
    exchange.told = (address != origin.peer).then(|| address.to_string().into());
    exchange.host = head.headers.get(HOST).cloned();
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    match location(&head, redirect.port) {
        Ok(location) => answer::redirect(exchange, status, location, "https_redirect"),
        Err(reason) => answer::refuse(exchange, reason, false),
    }
}

/// The URL of the request, with https in the place of http.
fn location(head: &request::Parts, port: u16) -> Result<HeaderValue, Reason> {
    headers::check(head, Fields::of(&head.headers), None)?;
    headers::check_scheme(head, false)?;
    // RFC 9112 section 3.2.2: the host of an absolute target overrides the field.
    let host = match head.uri.authority() {
        Some(authority) => headers::host_of(authority)?,
        None => head.headers.get(HOST).cloned().ok_or(Reason::BadHost)?,
    };
    let host = host.to_str().map_err(|_| Reason::BadHost)?;
    let name = match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if !port.ends_with(']') => name,
        Some(_) | None => host,
    };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    // RFC 9110 section 7.1: `*` asks for the whole server, and an empty path is `/`.
    let target = if target == "*" { "/" } else { target };
    let slash = if target.starts_with('/') { "" } else { "/" };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    HeaderValue::try_from(format!("https://{name}{port}{slash}{target}"))
        .map_err(|_| Reason::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn host_path_and_query_stay_and_the_port_is_that_of_https() {
        for (target, host, port, expected) in [
            ("/a?b=c", Some("x.test"), 443, Ok("https://x.test/a?b=c")),
            ("/", Some("x.test:80"), 8443, Ok("https://x.test:8443/")),
            ("/a", Some("[::1]"), 443, Ok("https://[::1]/a")),
            ("/a", Some("[::1]:80"), 443, Ok("https://[::1]/a")),
            ("http://y.test?q", Some("x.test"), 443, Ok("https://y.test/?q")),
            ("*", Some("x.test"), 443, Ok("https://x.test/")),
            ("//evil.test/%0d%0a", Some("x.test"), 443, Ok("https://x.test//evil.test/%0d%0a")),
            ("/a", Some("x.test/evil"), 443, Err(Reason::BadHost)),
            ("/a", Some("user@x.test"), 443, Err(Reason::BadHost)),
            ("/a", None, 443, Err(Reason::BadHost)),
        ] {
            let method = if target == "*" { Method::OPTIONS } else { Method::GET };
            let mut request = Request::builder().method(method).uri(target);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let head = request.body(()).unwrap().into_parts().0;
            let found = location(&head, port);
            let found = found.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(found, expected.as_ref().map(|text| *text), "{target} {host:?}");
        }
    }
}
