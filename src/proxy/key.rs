//! The part of a request that decides where it goes on a ring.

use http::header::{COOKIE, HeaderMap};
use http::request;

use crate::affinity::query;
use crate::config::types::{Balance, HashKey};

/// The value that `balance: hash` looks at; `None` where it is absent. `client` is its address.
pub fn of_balance(balance: &Balance, client: &str, head: &request::Parts) -> Option<Vec<u8>> {
    let Balance::Hash(key) = balance else { return None };
    of(key, client, head)
}

/// The value of this part; `None` where it is absent or empty.
pub fn of(key: &HashKey, client: &str, head: &request::Parts) -> Option<Vec<u8>> {
    let value = match key {
        HashKey::ClientIp => Some(client.as_bytes().to_vec()),
        HashKey::Path => Some(head.uri.path().as_bytes().to_vec()),
        HashKey::Uri => head.uri.path_and_query().map(|uri| uri.as_str().as_bytes().to_vec()),
        HashKey::Header(name) => head.headers.get(name).map(|value| value.as_bytes().to_vec()),
        HashKey::Cookie(name) => cookie(&head.headers, name),
        HashKey::Query(name) => {
            query::values(head.uri.query()?, name).next().map(|value| value.as_bytes().to_vec())
        }
    };
    // Clients that all have nothing there have nothing in common.
    value.filter(|value| !value.is_empty())
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let pairs =
        headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let value = |pair: &[u8]| {
        pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec)
    };
    pairs.filter_map(value).next()
}
