//! Parts of a service that are treated differently.

use http::header::{HeaderName, HeaderValue};

/// A part of a service by host and path, and what is done to its requests.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Route {
    /// As those of the service; empty takes the service's.
    pub hosts: Vec<String>,
    /// Path prefixes that end at a segment boundary; at least one.
    pub paths: Vec<String>,
    /// Where its clients are sent instead.
    pub redirect: Option<Redirect>,
    /// What stands in the place of the prefix for instances; begins with a slash.
    pub rewrite_prefix: Option<String>,
    /// Of requests, for instances.
    pub request_headers: Edits,
    /// Of instances' answers, for clients.
    pub response_headers: Edits,
}

/// Where clients are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// A URL or a path with `{scheme}`, `{host}`, `{path}`, `{rest}` and `{query}` in it.
    pub to: String,
}

/// Fields that are taken out, then set, then added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    /// Taken out.
    pub remove: Vec<HeaderName>,
    /// Instead of what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}
