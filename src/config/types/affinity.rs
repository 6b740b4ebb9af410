//! How sessions are told apart, and what carries their tokens.

use std::time::Duration;

use super::HashKey;

/// Session affinity: by a sealed token, unless the app has session ids of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affinity {
    /// The app's own session id, which a ring leads to an instance; with it there is no token, and
    /// all that is about tokens has its default.
    pub by: Option<HashKey>,
    /// With `by`: how much of its fair share of the load an instance may get, in basis points.
    pub load_factor: Option<u32>,
    /// The carrier that browsers know how to use.
    pub cookie: AffinityCookie,
    /// Whether a second cookie goes with it, for pages of other sites.
    pub cross_site_cookie: bool,
    /// A field that carries the token both ways, by its lower-case name.
    pub header: Option<String>,
    /// A query parameter that carries the token of a request.
    pub query: Option<String>,
    /// Whether a request without a token is kept on the instance that issued its engine.io `sid`.
    pub engine_io: bool,
    /// Absolute lifetime of a token; `None` means as long as the client keeps it.
    pub ttl: Option<Duration>,
    /// Lifetime since the last renewal; renewed when a quarter of it has passed.
    pub idle_ttl: Option<Duration>,
    /// Whether the instance sees the cookie.
    pub pass_cookie: bool,
    /// Whether a session is refused rather than moved.
    pub strict: bool,
    /// What keeps shared caches away from an answer with a token.
    pub cache_control: CacheControl,
    /// A field of answers by which an instance orders about the session, by its lower-case name.
    pub instance_header: Option<String>,
    /// Which requests without a token count as one client's.
    pub first_burst: FirstBurst,
}

/// Which requests without a token, within a second, count as one client's and land together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstBurst {
    /// None.
    #[default]
    Off,
    /// Those from one address with one `User-Agent`.
    Client,
}

/// What keeps shared caches away from an answer with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheControl {
    /// `Cache-Control: private`.
    #[default]
    Private,
    /// Nothing.
    Off,
}

/// The attributes of the affinity cookie (RFC 6265bis section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffinityCookie {
    /// A token of RFC 9110; `BURDOCK` by default.
    pub name: String,
    /// `Domain`; host-only when absent.
    pub domain: Option<String>,
    /// `Path`.
    pub path: String,
    /// `Secure`.
    pub secure: Secure,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Partitioned`; needs `secure` other than `never`.
    pub partitioned: bool,
    /// `Max-Age`; a session cookie when absent.
    pub max_age: Option<Duration>,
}

impl Default for AffinityCookie {
    fn default() -> Self {
        Self {
            name: "BURDOCK".to_owned(),
            domain: None,
            path: "/".to_owned(),
            secure: Secure::Auto,
            http_only: true,
            same_site: SameSite::Lax,
            partitioned: false,
            max_age: None,
        }
    }
}

/// When a cookie is marked `Secure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secure {
    /// When the client came by https, as this listener or a trusted proxy tells.
    Auto,
    /// On every response.
    Always,
    /// On none.
    Never,
}

/// `SameSite` of the affinity cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Sent with requests of the same site only.
    Strict,
    /// Also with top-level navigation from elsewhere.
    Lax,
    /// Always; browsers ask for `Secure`.
    None,
}
