//! The syntax of names, hosts, addresses and tokens.
//!
//! Pure functions from text to a verdict; knows no keys.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What [`is_name`] takes.
pub(super) const NAME: &str = "1 to 63 letters, digits and . _ - : [ ]";

/// Whether a service, version or instance may be called this.
pub(in crate::config) fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte))
}

/// Whether this is `IPv4:port`, `[IPv6]:port` or `host:port` with a port from 1 to 65535.
pub(in crate::config) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = port.len() <= 5
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    is_port && is_host(host)
}

/// Whether this is an IPv4 address, an IPv6 address in brackets or a DNS name.
pub(super) fn is_host(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        // No top-level domain is numeric (RFC 3696 section 2), so this can only be an address.
        return text.parse::<Ipv4Addr>().is_ok();
    }
    text.len() <= 253 && text.split('.').all(is_label)
}

/// One label of a DNS name (RFC 1035 section 2.3.4); `_` is common in service names.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether this can stand in a request target: it starts with `/` and is visible ASCII.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in [
            "127.0.0.1:1",
            "[::1]:65535",
            "localhost:80",
            "a.b-c.example:443",
            "_sip._tcp.example:5060",
            "1and1.example:80",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            ":",
            ":80",
            "a:",
            "a",
            "a:0",
            "a:65536",
            "a:+80",
            "a:080000",
            "::1:80",
            "[::1]",
            "[::1]80",
            "[127.0.0.1]:80",
            "256.0.0.1:80",
            "1.2.3:80",
            "-a:80",
            "a-:80",
            "a..b:80",
            "a.:80",
            "a b:80",
            "http://a:80",
            "ü:80",
            "a:80:90",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
        assert!(is_address(&format!("{}:80", "a".repeat(63))));
        assert!(!is_address(&format!("{}:80", "a".repeat(64))));
        assert!(!is_address(&format!("{}a:80", "a.".repeat(127))));
    }

    #[test]
    fn names_tokens_and_paths() {
        assert!(is_name("a") && is_name("[::1]:80") && is_name(&"x".repeat(63)));
        assert!(!is_name("") && !is_name("a b") && !is_name("a/b") && !is_name(&"x".repeat(64)));
        assert!(is_token("__Host-B.1") && !is_token("") && !is_token("a b") && !is_token("a=b"));
        assert!(is_path("/") && is_path("/a?b=c"));
        assert!(!is_path("a") && !is_path("") && !is_path("/a b") && !is_path("/\n"));
        assert!(!is_path("/ü") && !is_path("/a#b"));
    }
}
