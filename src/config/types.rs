//! The validated configuration: what every other room may assume to be true.
//!
//! Values here are in range, names are unique, durations are [`Duration`]s and each default has
//! been filled in. Only `config::load` builds a [`Config`]. This file knows no YAML, no network and
//! no other room of the crate. Read [`Config`] first, then [`Version`].

mod health;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use health::{Breaker, Check, InitialState, OnRestart};

/// One whole configuration file, validated.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Worker threads; read at start only.
    pub workers: Workers,
    /// Addresses that accept clients; at least one.
    pub listeners: Vec<Listener>,
    /// Peers whose `X-Forwarded-*` and `Forwarded` request fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What is told to instances about the client.
    pub forwarding: Forwarding,
    /// Where `/metrics` and `/healthz` are served; `None` switches the admin listener off.
    pub admin: Option<Admin>,
    /// Keys that seal and open affinity tokens.
    pub affinity_keys: AffinityKeys,
    /// Whether each finished request writes a line to the log.
    pub access_log: bool,
    /// Limits on the client side of every listener.
    pub client_timeouts: ClientTimeouts,
    /// How long a stopping process waits for requests and tunnels.
    pub shutdown: Drain,
    /// At least one; names are unique.
    pub services: Vec<Service>,
}

/// The number of worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One per core that this process may use.
    Auto,
    /// Exactly this many, 1 to 1024.
    Count(usize),
}

/// An address that accepts clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// IP address and port; port 0 asks the kernel for a free one.
    pub address: SocketAddr,
    /// Whether clients may begin with HTTP/2 (RFC 9113 section 3.3).
    pub http2: bool,
}

impl Listener {
    /// One that is as it is unless it is told otherwise.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, http2: true }
    }
}

/// The request fields that tell an instance about the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarding {
    /// Send `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    pub x_forwarded: bool,
    /// Send `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// Send `X-Request-Id`: the client's own where it brings a sane one, else a new one.
    pub request_id: bool,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { x_forwarded: true, forwarded: false, request_id: true }
    }
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// IP address and port; must be loopback.
    pub address: SocketAddr,
    /// Whether the file names it. An address taken by default may be in use without harm.
    pub explicit: bool,
}

impl Admin {
    /// `127.0.0.1:9900`.
    pub const DEFAULT_ADDRESS: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);
}

/// Where the keys of affinity tokens come from. With neither, a key is made when one is needed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AffinityKeys {
    /// A file with one base64 key of 32 bytes per line, newest first; read again at each reload.
    pub file: Option<PathBuf>,
    /// Keys in the configuration itself, newest first.
    pub inline: Vec<[u8; 32]>,
}

impl std::fmt::Debug for AffinityKeys {
    /// Keys are secrets: only how many there are is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AffinityKeys")
            .field("file", &self.file)
            .field("inline", &self.inline.len())
            .finish()
    }
}

/// Limits on a client's connection, each with its own reason label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// From the first byte of a request head, or from the accept, to the end of the head.
    pub header_read: Duration,
    /// How long a connection may rest between two requests.
    pub keep_alive: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self { header_read: Duration::from_secs(10), keep_alive: Duration::from_secs(75) }
    }
}

/// A service: what a host and a path lead to.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Unique among services.
    pub name: String,
    /// Lower-case host names without port, `*.` allowed as the first label; empty takes every host.
    pub hosts: Vec<String>,
    /// Path prefixes that end at a segment boundary; `/` takes every path.
    pub paths: Vec<String>,
    /// The version that serves it.
    pub version: Version,
}

/// A version of a service: instances that answer alike, and how they are treated.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Unique within its service.
    pub name: String,
    /// `Some` when `session_affinity` is on.
    pub affinity: Option<Affinity>,
    /// How an instance is chosen for a request that is bound to none.
    pub balance: Balance,
    /// At least one; names are unique within the version.
    pub instances: Vec<Instance>,
    /// May it get traffic?
    pub readiness_check: Option<Check>,
    /// Is it alive?
    pub liveness_check: Option<Check>,
    /// Passive ejection; `None` switches it off.
    pub breaker: Option<Breaker>,
    /// Share of ready instances, in basis points, below which unready ones serve too; 0 is never.
    pub panic_threshold: u32,
    /// How long an instance that recovered or was added takes fewer new sessions than its weight
    /// says; `None` for not at all.
    pub slow_start: Option<Duration>,
    /// What is tried again, and how often.
    pub retry: Retry,
    /// Protocols that a client may upgrade to, in lower case; `h2c` is never among them.
    pub upgrades: Vec<String>,
    /// Upgraded connections.
    pub websocket: Websocket,
    /// Moving tunnels to instances that have too few.
    pub rebalance: Rebalance,
    /// What happens to an instance that is drained or removed.
    pub drain: Drain,
    /// Limits on the way to an instance and back.
    pub timeouts: Timeouts,
}

/// One process that serves a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its identity, and what a token names: the name if given, else the address.
    pub name: String,
    /// `IP:port`, `[IPv6]:port` or `host:port`.
    pub address: String,
    /// Its share of new sessions beside its siblings', 0 to 1000; 0 takes none.
    pub weight: u32,
    /// What the operator wants of it.
    pub state: State,
}

/// What an operator wants of an instance, the strictest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum State {
    /// It serves.
    #[default]
    Active,
    /// It takes no new sessions, and keeps those that it has until `drain.timeout` has passed.
    Draining,
    /// It serves nobody.
    Disabled,
}

impl State {
    /// Every state with its word in the configuration.
    pub const WORDS: [(&'static str, Self); 3] =
        [("active", Self::Active), ("draining", Self::Draining), ("disabled", Self::Disabled)];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// How an instance is chosen for a request that is bound to none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balance {
    /// Weighted round robin, exact over all workers.
    #[default]
    Even,
    /// The less busy of two drawn at random; tunnels count as requests.
    LeastRequests,
    /// A weighted draw.
    Random,
    /// A ketama ring over this part of the request; even where the part is absent.
    Hash(HashKey),
}

/// The part of a request that `balance: hash` looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address, as trusted proxies tell it.
    ClientIp,
    /// The path and query.
    Uri,
    /// The value of a request field, by its lower-case name.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a query parameter.
    Query(String),
}

/// Session affinity by a sealed token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affinity {
    /// The carrier.
    pub cookie: AffinityCookie,
    /// Absolute lifetime of a token; `None` means as long as the client keeps it.
    pub ttl: Option<Duration>,
    /// Lifetime since the last renewal; renewed when a quarter of it has passed.
    pub idle_ttl: Option<Duration>,
    /// Whether the instance sees the cookie.
    pub pass_cookie: bool,
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

/// What is tried again, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries of one request, failed connects aside, 1 to 10; 1 means no retry at all.
    pub attempts: u32,
    /// Bytes of a request body that are kept for another try.
    pub max_body: usize,
    /// Retries allowed as a share of requests, in basis points (2000 is 20 %). Those that follow a
    /// failed connect are free.
    pub budget: u32,
    /// Retries always allowed per second, whatever the share.
    pub budget_floor: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, max_body: 64 * 1024, budget: 2000, budget_floor: 100 }
    }
}

/// Upgraded connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Websocket {
    /// Longest life of a tunnel; `None` for no limit.
    pub max_lifetime: Option<Duration>,
    /// Random share of `max_lifetime` that is taken off, in basis points (500 is 5 %).
    pub lifetime_jitter: u32,
    /// A tunnel without a byte in either direction for this long is ended; `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// A side that was silent for this long is sent a Ping, and has as long again to say anything;
    /// `None` for no pings.
    pub ping_interval: Option<Duration>,
    /// How long a peer's Close is waited for after Burdock sent its own.
    pub close_grace: Duration,
    /// Tunnels opened in a second, at most; `None` for no limit.
    pub max_new_per_second: Option<u32>,
    /// When Burdock ends tunnels, and what their peers are told.
    pub closes: Closes,
}

impl Default for Websocket {
    fn default() -> Self {
        Self {
            max_lifetime: Some(Duration::from_secs(3600)),
            lifetime_jitter: 500,
            idle_timeout: None,
            ping_interval: None,
            close_grace: Duration::from_secs(5),
            max_new_per_second: None,
            closes: Closes::default(),
        }
    }
}

/// What the peers of a tunnel are told when Burdock ends it, by cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closes {
    /// `max_lifetime`.
    pub lifetime: Close,
    /// `idle_timeout`.
    pub idle: Close,
    /// A side that was pinged said nothing.
    pub ping_timeout: Close,
    /// The instance is no longer named. When they end, its version's drain says.
    pub removed: Exit,
    /// The operator drains it. When they end, its version's drain says.
    pub draining: Exit,
    /// The operator has disabled it.
    pub disabled: Exit,
    /// When they end then.
    pub disabled_window: Drain,
    /// Its readiness check fails.
    pub unready: Exit,
    /// When they end then.
    pub unready_window: Drain,
    /// Its liveness check fails.
    pub dead: Exit,
    /// When they end then.
    pub dead_window: Drain,
    /// Another instance has too few tunnels.
    pub rebalanced: Close,
    /// Burdock stops.
    pub shutdown: Close,
    /// The instance broke off without a Close; only the client is told.
    pub instance: Close,
}

impl Default for Closes {
    fn default() -> Self {
        let close = |code, reason: &str| Close { code, reason: reason.to_owned() };
        let exit = |action, close| Exit { action, close };
        let second = Duration::from_secs(1);
        let out = || close(1012, "the instance is being taken out");
        let gone = || close(1014, "the instance is gone");
        Self {
            lifetime: close(1001, "the connection reached its lifetime"),
            idle: close(1001, "the connection was idle"),
            ping_timeout: close(1011, "a ping was not answered"),
            removed: exit(Action::Close, out()),
            draining: exit(Action::Close, out()),
            disabled: exit(Action::Close, out()),
            disabled_window: Drain { timeout: second, spread: second },
            unready: exit(Action::Keep, out()),
            unready_window: Drain::default(),
            dead: exit(Action::Close, gone()),
            dead_window: Drain { timeout: second, spread: second },
            rebalanced: close(1012, "the connection is being moved"),
            shutdown: close(1012, "the balancer is restarting"),
            instance: gone(),
        }
    }
}

/// A Close frame (RFC 6455 section 7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// 1000 to 1014 but those that are never sent, or 3000 to 4999.
    pub code: u16,
    /// At most 123 bytes.
    pub reason: String,
}

/// What becomes of the tunnels of an instance that can no longer be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Whether they end.
    pub action: Action,
    /// What their peers are told.
    pub close: Close,
}

/// What to do with tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave them alone.
    Keep,
    /// Close them, spread over a window.
    Close,
}

/// How long-lived connections are moved to instances that have too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebalance {
    /// Whether they are.
    pub mode: RebalanceMode,
    /// Tunnels closed for it in a minute, at most.
    pub max_per_minute: u32,
    /// How far above its fair share an instance may be, in basis points of the share.
    pub tolerance: u32,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { mode: RebalanceMode::Never, max_per_minute: 60, tolerance: 1000 }
    }
}

/// Whether long-lived connections are moved to instances that have too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceMode {
    /// They stay until they end by themselves.
    Never,
    /// Slowly, and no more of them than needed.
    Bounded,
}

/// How something that leaves is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long requests, bound sessions and tunnels may go on.
    pub timeout: Duration,
    /// Tunnels that are still open are closed spread over this long, ending at the deadline.
    pub spread: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), spread: Duration::from_secs(10) }
    }
}

/// Limits on the way to an instance and back, each with its own reason label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To open a connection to an instance.
    pub connect: Duration,
    /// From the request sent to the first byte of the answer.
    pub first_byte: Duration,
    /// Between two reads or two writes of a message that has begun, on either side.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(60),
        }
    }
}
