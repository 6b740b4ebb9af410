//! How far a request may go: `Max-Forwards`, and the echo of a TRACE that may go no further. Pure.

use bytes::Bytes;
use http::header::{HeaderMap, MAX_FORWARDS};
use http::{Method, Version, request};

use super::BadRequest;

/// Whether Burdock is the last to get a request (RFC 9110 section 7.6.2). If not, the next one is
/// told that it has come one step further.
pub fn is_last(head: &mut request::Parts) -> Result<bool, BadRequest> {
    if head.method != Method::OPTIONS && head.method != Method::TRACE {
        return Ok(false);
    }
    let Some(left) = steps(&head.headers)? else { return Ok(false) };
    match left.checked_sub(1) {
        None => Ok(true),
        Some(left) => {
            head.headers.insert(MAX_FORWARDS, left.into());
            Ok(false)
        }
    }
}

/// A number beyond what fits is the greatest that does, one more.
fn steps(headers: &HeaderMap) -> Result<Option<u64>, BadRequest> {
    let mut lines = headers.get_all(MAX_FORWARDS).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => {
            let digits = line.to_str().unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
                return Err(BadRequest::MaxForwards);
            }
            let most = u64::from(u32::MAX) + 1;
            Ok(Some(digits.parse().map_or(most, |steps: u64| steps.min(most))))
        }
        (Some(_), Some(_)) => Err(BadRequest::MaxForwards),
    }
}

/// A request's head as it came, for who sent it (RFC 9110 section 9.3.8). Names are in small
/// letters; what only their receiver should know was refused before.
pub fn echo(head: &request::Parts) -> Bytes {
    let version = if head.version == Version::HTTP_10 { "1.0" } else { "1.1" };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut text = format!("{} {target} HTTP/{version}\r\n", head.method).into_bytes();
    for (name, value) in &head.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn steps_are_counted_down_where_they_count() {
        for (method, steps, last, left) in [
            (Method::OPTIONS, "0", Ok(true), "0"),
            (Method::OPTIONS, "1", Ok(false), "0"),
            (Method::TRACE, "10", Ok(false), "9"),
            (Method::TRACE, "99999999999999999999999", Ok(false), "4294967295"),
            (Method::GET, "0", Ok(false), "0"),
            (Method::GET, "x", Ok(false), "x"),
            (Method::TRACE, "", Err(BadRequest::MaxForwards), ""),
            (Method::TRACE, "-1", Err(BadRequest::MaxForwards), "-1"),
            (Method::TRACE, "1, 2", Err(BadRequest::MaxForwards), "1, 2"),
        ] {
            let request = Request::builder().method(&method).header(MAX_FORWARDS, steps);
            let mut head = request.body(()).unwrap().into_parts().0;
            assert_eq!(is_last(&mut head), last, "{method} {steps}");
            assert_eq!(head.headers[MAX_FORWARDS], left, "{method} {steps}");
        }
    }
}
