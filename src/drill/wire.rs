//! What clients of a drill and its embedded instances agree on: paths, fields, and bytes that are
//! not the same at any two nearby places.

use bytes::Bytes;
use http::Uri;

pub(super) const READY: &str = "/readyz";
pub(super) const ALIVE: &str = "/healthz";
pub(super) const SESSION: &str = "/session";
pub(super) const DOWNLOAD: &str = "/download";
pub(super) const UPLOAD: &str = "/upload";
pub(super) const POLL: &str = "/engine.io/";
pub(super) const WEBSOCKET: &str = "/ws";

/// Who answered.
pub(super) const INSTANCE: &str = "x-instance";
/// Who asks.
pub(super) const CLIENT: &str = "x-drill-client";
/// What only clients of this drill know, on a running balancer.
pub(super) const MARK: &str = "x-drill-mark";
/// The client's own count of what it asks.
pub(super) const NUMBER: &str = "x-drill-number";

/// Bytes of a download that are sent at once.
pub(super) const CHUNK: usize = 16 * 1024;

/// The value of a query parameter, as it stands there.
pub(super) fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
}

/// Bytes of a download from the place `at` on.
pub(super) fn pattern(at: u64, length: usize) -> Bytes {
    (at..at + length as u64).map(byte).collect()
}

/// The byte at a place.
pub(super) fn byte(at: u64) -> u8 {
    let mixed = (at / 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (mixed as u8) ^ (at as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_stretch_of_a_download_shows() {
        let whole = pattern(0, 100_000);
        assert_eq!(whole[16_384..32_768], pattern(16_384, 16_384)[..]);
        for lost in [1, 2, 7, 16, 256, 16_384] {
            assert_ne!(whole[lost..lost + 64], whole[..64], "{lost}");
        }
    }
}
