//! Interim answers of an instance (RFC 9110 section 15.2) on their way to a client of HTTP/1.1, whose
//! connection takes them from here: whoever asks the instance does not know it. hyper has no way to send
//! them on a stream of HTTP/2.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;

use crate::proxy::headers;

/// Bytes that may wait for a client. What comes beyond is left out: none of it is the answer.
const MAX_WAITING: usize = 16 * 1024;

/// What waits for one client; written and taken on one worker, so the flag is relaxed.
#[derive(Debug, Default)]
pub struct Interim {
    is_waiting: AtomicBool,
    text: Mutex<BytesMut>,
}

impl Interim {
    /// Leaves an interim answer to be sent.
    pub fn put(&self, status: StatusCode, fields: HeaderMap) {
        let head = head(status, fields);
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if text.len() + head.len() <= MAX_WAITING {
            text.extend_from_slice(&head);
            self.is_waiting.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there is something to take.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }

    /// Takes all of it.
    pub fn take(&self) -> Bytes {
        self.is_waiting.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.text.lock().unwrap_or_else(PoisonError::into_inner)).freeze()
    }
}

fn head(status: StatusCode, mut fields: HeaderMap) -> Vec<u8> {
    headers::to_client_interim(&mut fields, status);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &fields {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, LINK};

    #[test]
    fn what_waits_has_a_bound_and_fields_of_one_hop_stop() {
        let mut fields = HeaderMap::new();
        fields.insert(LINK, HeaderValue::from_static("</a.css>"));
        fields.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        fields.insert(CONNECTION, HeaderValue::from_static("x-a"));
        fields.insert(HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
        let interim = Interim::default();
        assert!(!interim.is_waiting());
        interim.put(StatusCode::EARLY_HINTS, fields.clone());
        assert!(interim.is_waiting());
        let one = interim.take();
        assert_eq!(one, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        assert!(!interim.is_waiting());
        for _ in 0..2 * MAX_WAITING / one.len() {
            interim.put(StatusCode::EARLY_HINTS, fields.clone());
        }
        let all = interim.take();
        assert!(all.len() <= MAX_WAITING && all.len() % one.len() == 0);
    }
}
