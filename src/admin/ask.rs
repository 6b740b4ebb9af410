//! `GET /api/v1/explain` and `POST /api/v1/check`: where a request would go, what a reload would change.
//!
//! Both only ask. What they are asked is the query and the body; what they say is JSON, or a problem by
//! RFC 9457.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use http::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{Method, StatusCode, request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{self, ConfigErrors};
use crate::proxy::explain::{self, Question};
use crate::snapshot::{Live, plan};

/// Longer texts than this are no configuration.
pub const MAX_BODY: usize = 1024 * 1024;

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// With this status.
    pub status: StatusCode,
    /// As `application/json`, or `application/problem+json` where the status is an error's.
    pub body: Value,
}

impl Reply {
    fn ok(value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(body) => Self { status: StatusCode::OK, body },
            Err(error) => Self::problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// An error in words.
    pub fn problem(status: StatusCode, detail: &str) -> Self {
        let title = status.canonical_reason().unwrap_or_default();
        let status_number = status.as_u16();
        let body = json!({ "type": "about:blank", "title": title, "status": status_number,
                           "detail": detail });
        Self { status, body }
    }
}

/// Whether a request comes from where requests may come from: by the name of this machine, since the page
/// of a stranger's site may have had its own name lead here, and from no other site's page.
pub fn admit(head: &request::Parts) -> Result<(), Reply> {
    let bar = |status, detail: &str| Err(Reply::problem(status, detail));
    let field = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = field(HOST).unwrap_or_default();
    let name = host.parse::<Authority>().ok().map(|it| it.host().to_owned()).unwrap_or_default();
    let address: Option<IpAddr> = name.trim_matches(['[', ']']).parse().ok();
    if name != "localhost" && !address.is_some_and(|it| it.is_loopback()) {
        return bar(StatusCode::MISDIRECTED_REQUEST, "the host must be this machine's loopback");
    }
    if head.method == Method::GET || head.method == Method::HEAD {
        return Ok(());
    }
    let kind = field(CONTENT_TYPE).and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        return bar(StatusCode::UNSUPPORTED_MEDIA_TYPE, "needed: Content-Type: application/json");
    }
    let own = field(ORIGIN).is_none_or(|origin| origin == format!("http://{host}"));
    match own {
        true => Ok(()),
        false => bar(StatusCode::FORBIDDEN, "it comes from another site's page"),
    }
}

/// Says where the request would go that this query describes.
pub fn explain(live: &Live, query: &str) -> Reply {
    let (mut url, mut method, mut cookie) = (None, "GET".to_owned(), None);
    let (mut client, mut fields) = (IpAddr::V4(Ipv4Addr::LOCALHOST), Vec::new());
    let refused = |detail: &str| Reply::problem(StatusCode::BAD_REQUEST, detail);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(value) = decoded(value) else {
            return refused(&format!("{name}: its escapes are not UTF-8"));
        };
        match name {
            "url" => url = Some(value),
            "method" => method = value,
            "cookie" => cookie = Some(value),
            "header" => fields.push(value),
            "client" => match value.parse() {
                Ok(address) => client = address,
                Err(_) => return refused(&format!("client: {value:?} is no IP address")),
            },
            _ => {
                let allowed = "url, method, cookie, client, header";
                return refused(&format!("{name:?} is no parameter; there are {allowed}"));
            }
        }
    }
    let Some(url) = url else { return refused("url: missing; needed: url=http://HOST/PATH") };
    match Question::new(&url, &method, cookie.as_deref(), client, &fields) {
        Ok(question) => Reply::ok(explain::explain(&live.snapshot(), question)),
        Err(error) => refused(&error.to_string()),
    }
}

/// A value of a query: `+` is a blank, and escapes are undone.
fn decoded(text: &str) -> Option<String> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let raw = text.as_bytes();
    let (mut bytes, mut at) = (Vec::with_capacity(raw.len()), 0);
    while let Some(byte) = raw.get(at) {
        let escape = digit(raw.get(at + 1)).zip(digit(raw.get(at + 2))).filter(|_| *byte == b'%');
        let decoded = escape.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        let plain = if *byte == b'+' { b' ' } else { *byte };
        bytes.push(decoded.unwrap_or(plain));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8(bytes).ok()
}

/// A configuration that might be reloaded.
#[derive(Debug, Deserialize)]
struct Proposal {
    /// Where it is, or would be: names it in problems, and relative paths in it begin at its folder.
    file: PathBuf,
    text: String,
}

/// Says what a reload to the configuration in `body` would change.
pub fn check(live: &Live, body: &[u8]) -> Reply {
    let proposal: Proposal = match serde_json::from_slice(body) {
        Ok(proposal) => proposal,
        Err(error) => {
            let detail = format!("needed: {{\"file\": .., \"text\": ..}}; {error}");
            return Reply::problem(StatusCode::BAD_REQUEST, &detail);
        }
    };
    match config::parse(&proposal.text, &proposal.file) {
        Ok(loaded) => Reply::ok(plan::plan(&live.snapshot(), &loaded.config, &loaded.warnings)),
        Err(errors) => rejected(&errors, &proposal.file),
    }
}

/// Every problem. What is wrong within other files is not told: whoever may ask this need not be one who
/// may read them.
fn rejected(errors: &ConfigErrors, file: &Path) -> Reply {
    let told = |problem: &config::Problem| match problem.file == file {
        true => problem.to_string(),
        false => format!("{}: has problems; `burdock check` beside it says which", {
            problem.file.display()
        }),
    };
    let mut problems: Vec<_> = errors.problems().iter().map(told).collect();
    problems.dedup();
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let mut reply = Reply::problem(status, "the configuration would be rejected");
    reply.body["problems"] = problems.into();
    reply
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::affinity::token::Keyring;

    fn live() -> Live {
        let text = "session_affinity: true\ninstances: [{ name: a, address: 127.0.0.1:1 }]\n";
        let config = config::parse(text, Path::new("c.yaml")).unwrap().config;
        let keyring = Keyring::new(&[[1; 32]]).unwrap();
        Live::new(Arc::new(config), Arc::new(keyring), 1).0
    }

    #[test]
    fn only_this_machine_asks_and_no_page_of_another_site() {
        let json = "application/json";
        for (method, host, kind, origin, status) in [
            ("GET", "127.0.0.1:9900", "", "", 200),
            ("GET", "localhost", "", "", 200),
            ("GET", "[::1]:9900", "", "", 200),
            ("GET", "evil.test:9900", "", "", 421),
            ("GET", "", "", "", 421),
            ("POST", "127.0.0.1:9900", json, "", 200),
            ("POST", "127.0.0.1:9900", json, "http://127.0.0.1:9900", 200),
            ("POST", "127.0.0.1:9900", "text/plain", "", 415),
            ("POST", "127.0.0.1:9900", json, "http://evil.test", 403),
        ] {
            let mut request = http::Request::builder().method(method).uri("/");
            for (name, value) in [("host", host), ("content-type", kind), ("origin", origin)] {
                request = if value.is_empty() { request } else { request.header(name, value) };
            }
            let head = request.body(()).unwrap().into_parts().0;
            let found = admit(&head).err().map_or(200, |reply| reply.status.as_u16());
            assert_eq!(found, status, "{method} {host} {kind} {origin}");
        }
    }

    #[test]
    fn a_query_is_taken_apart() {
        let query = "url=http%3A%2F%2Fa.test%2Fx%3Fy&method=POST&client=192.0.2.7\
                     &header=x%3A+y&header=host:b.test&cookie=a%3Db";
        let reply = explain(&live(), query);
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(
            (&reply.body["choice"], &reply.body["service"]),
            (&json!("a"), &json!("default"))
        );
        assert_eq!(
            reply.body["candidates"],
            json!([{ "instance": "a", "in": true, "reason": "ready" }])
        );
    }

    #[test]
    fn a_question_that_has_no_meaning_is_told_why() {
        for (query, detail) in [
            ("", "url: missing; needed: url=http://HOST/PATH"),
            ("url=x", "url: must be http://HOST/PATH or https://HOST/PATH, not \"x\""),
            ("url=http://a/&client=b", "client: \"b\" is no IP address"),
            ("url=http://a/&url=%ff", "url: its escapes are not UTF-8"),
            (
                "uri=http://a/",
                "\"uri\" is no parameter; there are url, method, cookie, client, header",
            ),
        ] {
            let reply = explain(&live(), query);
            assert_eq!((reply.status.as_u16(), &reply.body["detail"]), (400, &json!(detail)));
            assert_eq!(
                (&reply.body["status"], &reply.body["title"]),
                (&json!(400), &json!("Bad Request"))
            );
        }
    }

    fn proposed(text: &str) -> Reply {
        check(&live(), json!({ "file": "new.yaml", "text": text }).to_string().as_bytes())
    }

    #[test]
    fn a_proposal_is_compared_with_what_runs() {
        let reply = proposed("instances: [{ name: b, address: 127.0.0.1:1 }]\n");
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.body["instances"]["added"], json!(["default/default/b"]));
        assert_eq!(reply.body["instances"]["removed"], json!(["default/default/a"]));
        assert_eq!(check(&live(), b"{}").status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn problems_are_told_but_not_what_other_files_hold() {
        let reply = proposed("nonsense: 1\n");
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
        let problems = reply.body["problems"].as_array().unwrap();
        assert!(
            problems[0].as_str().unwrap().starts_with("new.yaml:1: nonsense: "),
            "{problems:?}"
        );
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/rustfmt.toml");
        let reply = proposed(&format!("instances: [a:1]\napp_yaml: {manifest}\n"));
        let told = reply.body["problems"].to_string();
        assert!(told.contains("has problems") && !told.contains("max_width"), "{told}");
    }
}
