//! The validated configuration: what every other room may assume to be true.
//!
//! Values here are in range, names are unique, durations are [`Duration`]s and each default has
//! been filled in. Only `config::load` builds a [`Config`]. This file knows no YAML, no network and
//! no other room of the crate. Read [`Config`] first, then [`Version`].

mod access_log;
mod acme;
mod affinity;
mod clients;
mod discovery;
mod docker;
mod etcd;
mod fleet;
mod health;
mod instance_tls;
mod kubernetes;
mod mirror;
mod retry;
mod route;
mod split;
mod tls;
mod tracing;
mod tunnels;
mod via;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use access_log::{AccessLog, Destination, LineFormat};
pub use acme::{Acme, CaRoots, Challenge, ExternalAccount};
pub use affinity::{Affinity, AffinityCookie, CacheControl, FirstBurst, SameSite, Secure};
pub use clients::{Acceptance, Access, ClientLimits, Limits, ProxyVersion, RateLimit};
pub use discovery::{Discovery, Dns, Names, Source};
pub use docker::Docker;
pub use etcd::{Etcd, EtcdKeys, EtcdUser};
pub use fleet::Fleet;
pub use health::{Breaker, Check, CheckTls, Concurrency, InitialState, OnRestart};
pub use instance_tls::{ClientCertificate, InstanceTls};
pub use kubernetes::{Kubernetes, SlicePort};
pub use mirror::{Mirror, Mirrored};
pub use retry::{Condition, Retry};
pub use route::{Edits, Redirect, Route};
pub use split::{AtZero, Recall, SHARE_UNIT, ShardBy, Split};
pub use tls::{
    Certificate, ClientCertificates, Hsts, HttpsRedirect, KeyKind, Tickets, Tls, TlsVersion,
};
pub use tracing::{Tracing, Trust};
pub use tunnels::{Action, Close, Closes, Exit, Rebalance, RebalanceMode, Websocket};
pub use via::Via;

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
    /// What is shared with other balancers; `None` for nothing.
    pub fleet: Option<Arc<Fleet>>,
    /// Keys that seal and open affinity tokens.
    pub affinity_keys: AffinityKeys,
    /// What is written of finished requests and tunnels; `None` for nothing.
    pub access_log: Option<AccessLog>,
    /// How requests are traced; `None` for not at all.
    pub tracing: Option<Arc<Tracing>>,
    /// Limits on the client side of every listener.
    pub client_timeouts: ClientTimeouts,
    /// What clients may take of Burdock itself.
    pub client_limits: ClientLimits,
    /// How long a stopping process waits for requests and tunnels.
    pub shutdown: Drain,
    /// How long a process that another has taken over from waits for its tunnels and connections.
    pub upgrade: Drain,
    /// Who a process that was started as root becomes; read at the start only.
    pub user: Option<User>,
    /// At least one, unless they are the fleet's and not known yet; names are unique.
    pub services: Vec<Service>,
}

/// A user of the system, and a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Another group than the user's own.
    pub group: Option<String>,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// IP address and port; port 0 asks the kernel for a free one.
    pub address: SocketAddr,
    /// Whether clients may speak HTTP/2: by ALPN with TLS, else by beginning with it (RFC 9113
    /// section 3.3).
    pub http2: bool,
    /// `None` on a plain listener.
    pub tls: Option<Arc<Tls>>,
    /// Whether clients are sent to https; on a plain listener only.
    pub https_redirect: Option<HttpsRedirect>,
    /// Whether they come behind a PROXY protocol header.
    pub proxy_protocol: Acceptance,
    /// Whose connections are let in, by the address at their other end.
    pub access: Access,
}

impl Listener {
    /// One that is as it is unless it is told otherwise.
    pub fn at(address: SocketAddr) -> Self {
        let proxy_protocol = Acceptance::Off;
        let access = Access::default();
        Self { address, http2: true, proxy_protocol, access, tls: None, https_redirect: None }
    }
}

/// The request fields that tell an instance about the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// Send `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    pub x_forwarded: bool,
    /// Send `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// Send `X-Request-Id`: the client's own where it brings a sane one, else a new one.
    pub request_id: bool,
    /// What Burdock calls itself in `Via`; `None` sends no such field.
    pub via: Option<Via>,
}

impl Default for Forwarding {
    fn default() -> Self {
        let via = Some(Via::default());
        Self { x_forwarded: true, forwarded: false, request_id: true, via }
    }
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// IP address and port; must be loopback unless there is a token.
    pub address: SocketAddr,
    /// Whether the file names it. An address taken by default may be in use without harm.
    pub explicit: bool,
    /// What whoever asks must know; read again at each reload.
    pub token: Option<Token>,
    /// Where what is changed at run time is kept.
    pub state_file: StateFile,
}

impl Admin {
    /// `127.0.0.1:9900`.
    pub const DEFAULT_ADDRESS: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);

    /// One without a token.
    pub fn at(address: SocketAddr, explicit: bool) -> Self {
        Self { address, explicit, token: None, state_file: StateFile::default() }
    }
}

/// What whoever uses the admin API must know.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Where it stands.
    pub file: PathBuf,
    /// 16 to 1024 visible ASCII characters.
    pub text: String,
}

impl std::fmt::Debug for Token {
    /// It is a secret: only where it stands is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Where overrides are kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StateFile {
    /// Beside the configuration, by its name with `.state` after it.
    #[default]
    Beside,
    /// In this file.
    At(PathBuf),
    /// Nowhere: a restart forgets them.
    Off,
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
    /// Whose requests it takes, by the client's address as trusted proxies tell it.
    pub access: Access,
    /// The versions that serve it; at least one, with unique names.
    pub versions: Vec<Version>,
    /// Parts of it that are treated differently.
    pub routes: Vec<Route>,
    /// How its requests are shared among them; there is one if there are several.
    pub split: Option<Split>,
    /// Which of its requests another version gets a copy of.
    pub mirror: Option<Mirror>,
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
    /// Names are unique within the version. At least one, unless there is `discovery`: then these are
    /// there besides those that are found.
    pub instances: Vec<Instance>,
    /// Where more of them are found while Burdock runs.
    pub discovery: Option<Discovery>,
    /// How connections to them are secured; `None` for not at all.
    pub tls: Option<InstanceTls>,
    /// What is spoken to them.
    pub protocol: Protocol,
    /// May it get traffic?
    pub readiness_check: Option<Check>,
    /// Is it alive?
    pub liveness_check: Option<Check>,
    /// What its instances are told of each connection's client before anything else.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Passive ejection; `None` switches it off.
    pub breaker: Option<Breaker>,
    /// Share of ready instances, in basis points, below which unready ones serve too; 0 is never.
    pub panic_threshold: u32,
    /// How long an instance that recovered or was added takes fewer new sessions than its weight
    /// says; `None` for not at all.
    pub slow_start: Option<Duration>,
    /// What is tried again, and how often.
    pub retry: Retry,
    /// Who waits when instances are full.
    pub queue: Queue,
    /// How each instance's limit on requests in flight follows its answers; `None` for not at all.
    pub concurrency: Option<Concurrency>,
    /// Protocols that a client may upgrade to, in lower case; `h2c` is never among them.
    pub upgrades: Vec<String>,
    /// Upgraded connections.
    pub websocket: Websocket,
    /// Moving tunnels to instances that have too few.
    pub rebalance: Rebalance,
    /// What happens to an instance that is drained or removed.
    pub drain: Drain,
    /// How often a client may ask.
    pub rate_limit: Option<RateLimit>,
    /// Limits on the way to an instance and back.
    pub timeouts: Timeouts,
    /// What a request may be.
    pub limits: Limits,
}

impl Version {
    /// Whether a client's address decides where its requests go.
    pub fn is_by_address(&self) -> bool {
        let by = self.affinity.as_ref().and_then(|affinity| affinity.by.as_ref());
        by == Some(&HashKey::ClientIp) || self.balance == Balance::Hash(HashKey::ClientIp)
    }
}

/// What is spoken to instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1: a connection takes one request at a time.
    #[default]
    Http1,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without (RFC 9113 section 3.3).
    Http2,
}

impl Protocol {
    /// Each with its word in the configuration.
    pub const WORDS: [(&'static str, Self); 2] = [("http1", Self::Http1), ("http2", Self::Http2)];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
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
    /// Requests that it may have in flight, 1 to 1000000; `None` for no limit.
    pub max_requests: Option<u32>,
    /// Tunnels that it may have, 1 to 1000000; `None` for no limit.
    pub max_tunnels: Option<u32>,
    /// Whether the source that named it says that it can't serve now. No file says so.
    pub unready: bool,
}

impl Instance {
    /// One that is named by its address, and is as it is unless it is told otherwise.
    pub fn at(address: String) -> Self {
        Self {
            name: address.clone(),
            address,
            weight: 1,
            state: State::Active,
            max_requests: None,
            max_tunnels: None,
            unready: false,
        }
    }
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
    /// The one of two drawn at random that has fewer live sessions for its weight.
    LeastSessions,
    /// A weighted draw.
    Random,
    /// A ketama ring over this part of the request; even where the part is absent.
    Hash(HashKey),
}

/// The part of a request that decides its place on a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address, as trusted proxies tell it.
    ClientIp,
    /// The path without the query.
    Path,
    /// The path and query.
    Uri,
    /// The value of a request field, by its lower-case name.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a query parameter.
    Query(String),
}

/// Who waits for a place when all instances that may serve a request are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Requests that may wait; 0 for none.
    pub max: usize,
    /// How long each may.
    pub timeout: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { max: 1000, timeout: Duration::from_secs(5) }
    }
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
