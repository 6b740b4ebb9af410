//! What a request says of the program that sends it.

use http::HeaderMap;
use http::header::{HeaderValue, REFERER, USER_AGENT};

/// What a request says of the program that sends it, and of where that came from.
#[derive(Debug)]
pub struct Agent([Option<HeaderValue>; 2]);

impl Agent {
    /// Of the fields of a request.
    pub fn of(fields: &HeaderMap) -> Self {
        Self([REFERER, USER_AGENT].map(|name| fields.get(name).cloned()))
    }

    /// `Referer` and `User-Agent`.
    pub fn bytes(&self) -> [&[u8]; 2] {
        self.0.each_ref().map(|value| value.as_ref().map_or(&[][..], HeaderValue::as_bytes))
    }

    /// One that keeps no read buffer.
    #[must_use]
    pub fn copied(&self) -> Self {
        let copied = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
        Self(self.0.each_ref().map(|value| value.as_ref().and_then(copied)))
    }
}
