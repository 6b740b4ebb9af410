//! Header maps that are done with and were made room in: each message needs one, and each that was
//! passed on leaves one.

use std::cell::RefCell;

use http::HeaderMap;

/// As many are kept by a worker.
const MOST: usize = 128;
/// Fields that a new one has room for: those of small messages, which lie closer together for it. Those
/// that grew for the requests of browsers stay so.
const ROOM: usize = 12;
/// What has room for more is not kept.
const LARGEST: usize = 48;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty one with room for so many fields at least.
pub fn take(fields: usize) -> HeaderMap {
    match SPARE.with_borrow_mut(Vec::pop) {
        Some(mut map) => {
            map.reserve(fields);
            map
        }
        None => HeaderMap::with_capacity(fields.max(ROOM)),
    }
}

/// Keeps one that is done with.
pub fn give(mut map: HeaderMap) {
    if (ROOM..=LARGEST).contains(&map.capacity()) {
        map.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(map);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{HOST, HeaderValue};

    #[test]
    fn what_is_given_is_empty_when_it_is_taken_and_has_a_bound() {
        give(HeaderMap::with_capacity(1));
        assert_eq!(SPARE.with_borrow(Vec::len), 0);
        let mut map = take(3);
        assert!(map.capacity() >= ROOM);
        map.insert(HOST, HeaderValue::from_static("a"));
        give(map);
        assert_eq!(SPARE.with_borrow(Vec::len), 1);
        let map = take(100);
        assert!(map.is_empty() && map.capacity() >= 100);
        give(map);
        assert_eq!(SPARE.with_borrow(Vec::len), 0);
        (0..2 * MOST).for_each(|_| give(HeaderMap::with_capacity(ROOM)));
        assert_eq!(SPARE.with_borrow(Vec::len), MOST);
    }
}
