//! What `Date` says of answers that do not say it themselves (RFC 9110 section 6.6.1).

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

thread_local! {
    /// A second and its text: many answers share it.
    static NOW: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Writes the present moment.
pub(in crate::listener) fn now(text: &mut Vec<u8>) {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    NOW.with_borrow_mut(|(known, written)| {
        if *known != second || written.is_empty() {
            (*known, *written) = (second, HttpDate::from(now).to_string());
        }
        text.extend_from_slice(written.as_bytes());
    });
}
