//! Parameters in the query of a request's target: found, taken out, made unreadable.
//!
//! Names are compared as they stand: those that the configuration allows for a token hold no
//! character that a client would encode. All else in a target stays byte for byte.

use http::Uri;
use http::uri::PathAndQuery;

/// What stands in a log line for a token.
const CONCEALED: &str = "redacted";

/// The values of the parameter `name`, as they stand in the target.
pub fn values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| value_of(pair, name))
}

fn value_of<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    pair.strip_prefix(name)?.strip_prefix('=')
}

/// The target without the parameter `name`; `None` if it has none.
pub fn without(target: &Uri, name: &str) -> Option<Uri> {
    let query = target.query()?;
    values(query, name).next()?;
    let kept: Vec<&str> = query.split('&').filter(|pair| value_of(pair, name).is_none()).collect();
    with_query(target.path(), &kept.join("&"))
}

/// The target with nothing to read in the parameters `names`; `None` if it has none of them.
pub fn concealed(target: &Uri, names: &[String]) -> Option<Uri> {
    let query = target.query()?;
    let secret = |pair: &str| names.iter().find(|name| value_of(pair, name).is_some());
    query.split('&').find_map(secret)?;
    let told = query.split('&').map(|pair| match secret(pair) {
        Some(name) => format!("{name}={CONCEALED}"),
        None => pair.to_owned(),
    });
    with_query(target.path(), &told.collect::<Vec<_>>().join("&"))
}

fn with_query(path: &str, query: &str) -> Option<Uri> {
    let text = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    PathAndQuery::try_from(text).ok().map(Uri::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_and_taken_out_and_the_rest_stays_byte_for_byte() {
        let table: &[(&str, &[&str], Option<&str>)] = &[
            ("/a", &[], None),
            ("/a?", &[], None),
            ("/a?b=1&tt=2&T=3&t", &[], None),
            ("/a?t=x", &["x"], Some("/a")),
            ("/a?t=", &[""], Some("/a")),
            ("/a?b=%20&t=x&&c=t=y", &["x"], Some("/a?b=%20&&c=t=y")),
            ("/a?t=x&b=1&t=y=z", &["x", "y=z"], Some("/a?b=1")),
            ("http://h/a?t=x&b", &["x"], Some("/a?b")),
        ];
        for (target, found, rest) in table {
            let target: Uri = target.parse().unwrap();
            let query = target.query().unwrap_or_default();
            assert_eq!(values(query, "t").collect::<Vec<_>>(), *found, "{target}");
            assert_eq!(without(&target, "t").map(|uri| uri.to_string()).as_deref(), *rest);
        }
    }

    #[test]
    fn a_token_cannot_be_read_where_it_is_concealed() {
        let names = ["t".to_owned(), "u".to_owned()];
        for (target, told) in [
            ("/a?b=1", None),
            ("/a?t=x", Some("/a?t=redacted")),
            ("/a?b=1&u=x&t=y&t=&v=2", Some("/a?b=1&u=redacted&t=redacted&t=redacted&v=2")),
        ] {
            let concealed = concealed(&target.parse().unwrap(), &names);
            assert_eq!(concealed.map(|uri| uri.to_string()).as_deref(), told);
        }
        assert_eq!(concealed(&"/a?t=x".parse().unwrap(), &[]), None);
    }
}
