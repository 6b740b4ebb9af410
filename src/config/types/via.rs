//! The name that Burdock adds to `Via` (RFC 9110 section 7.6.3).

use http::Version;
use http::header::{HeaderName, HeaderValue};

/// A pseudonym, and its lines for what a client may speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    lines: [HeaderValue; 3],
}

impl Via {
    /// What the longest name has, in bytes.
    pub const LONGEST: usize = 64;

    /// Called `name`, if that is a token (RFC 9110 section 5.6.2) of at most [`Via::LONGEST`] bytes.
    pub fn new(name: &str) -> Option<Self> {
        // The name of a field is a token too.
        if name.len() > Self::LONGEST || HeaderName::try_from(name).is_err() {
            return None;
        }
        let line = |version| HeaderValue::try_from(format!("{version} {name}")).ok();
        Some(Self { lines: [line("1.0")?, line("1.1")?, line("2.0")?] })
    }

    /// The pseudonym.
    pub fn name(&self) -> &str {
        self.lines[1].to_str().unwrap_or_default().trim_start_matches("1.1 ")
    }

    /// What is added to a request that came by `version`.
    pub fn line(&self, version: Version) -> &HeaderValue {
        let [http10, http11, http2] = &self.lines;
        match version {
            Version::HTTP_10 => http10,
            Version::HTTP_2 => http2,
            _ => http11,
        }
    }
}

impl Default for Via {
    /// `burdock`.
    fn default() -> Self {
        // Static, and so free to clone for each request.
        let lines = ["1.0 burdock", "1.1 burdock", "2.0 burdock"];
        Self { lines: lines.map(HeaderValue::from_static) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_token() {
        for (name, fine) in [("lb-1.example", true), ("a b", false), ("", false), ("a,b", false)] {
            assert_eq!(Via::new(name).map(|via| via.name().to_owned()).is_some(), fine, "{name:?}");
        }
        assert!(Via::new(&"a".repeat(Via::LONGEST + 1)).is_none());
        assert_eq!(Via::new("burdock"), Some(Via::default()));
        assert_eq!(Via::new("x").unwrap().line(Version::HTTP_2), "2.0 x");
    }
}
