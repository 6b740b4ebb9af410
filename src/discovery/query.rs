//! Text as it stands in the query of a URL.

/// RFC 3986 section 2.1: all but unreserved characters stand as their bytes.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                encoded.push('%');
                for nibble in [byte >> 4, byte & 15] {
                    encoded.extend(char::from_digit(u32::from(nibble), 16));
                }
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stand_for_themselves() {
        assert_eq!(encoded("a-Z_0.~/=&+ \u{e4}"), "a-Z_0.~%2f%3d%26%2b%20%c3%a4");
    }
}
