//! Burdock: a sticky load balancer in front of any HTTP backend.
//!
//! # The path of a request
//!
//! ```text
//! listener ── proxy::handle ─┬─ route       host and path -> service
//!                            ├─ affinity    token -> bound instance
//!                            ├─ balance     else: whose turn is it
//!                            ├─ instance    its connections, counters, eligibility
//!                            └─ tunnel      after a 101: two raw sockets
//! ```
//!
//! On the path: [`listener`], [`proxy`], [`route`], [`affinity`], [`balance`], [`instance`], [`tunnel`].
//! Beside it: [`config`] (file -> validated types), [`snapshot`] (what a request may read), [`proxy_protocol`]
//! (who a client is behind proxies that pass bytes on), [`http1`] (messages, to both sides), [`tls`] (certificates, tickets, secured streams), [`outward`]
//! (what Burdock asks on its own account), [`memory`] (the allocator, large futures),
//! [`turn`] (who goes first), [`acme`] (certificates from a CA), [`health`] (checks and breaker), [`discovery`]
//! (instances that are found), [`etcd`] (keys, leases, watches), [`fleet`] (what balancers share), [`observe`] (logs), [`trace`] (spans),
//! [`admin`] (its API, metrics), [`doctor`] (classic mistakes), [`rehearsal`] (a drill on this balancer),
//! [`run`] (puts all of it together), [`demo`] (embedded instances), [`cli`] (the command line's shape). Outside all of it, and only by the
//! admin API: [`operate`] (commands for a running balancer), [`top`] (a live view of it); and by the wire
//! alone: [`drill`] (rehearsed failures).
//!
//! # At run time
//!
//! - A worker is a thread with a runtime of its own: its accept loops (`SO_REUSEPORT`), its clients, its tunnels, its
//!   connections to instances. A request stays on the worker that accepted it, and waits for no lock there.
//! - The configuration becomes one immutable [`snapshot`], published in one place. A request loads it once and keeps
//!   it; a tunnel keeps its instance only, so that an old one pins no old configuration.
//! - What is live of an instance (health, breaker, counters, what the operator wants) belongs to its identity, and
//!   outlives reloads. Four axes, folded once into what it may receive; never one status.
//! - Pure rooms decide, and give reasons; whoever asked them logs and counts. Time and chance are their arguments.
//! - One thread reads signals, watches files, reloads, and hands over to a newer process: [`run`].
//!
//! What it does for its users is in `config/*.md`, how it is operated in `deploy/README.md`, and which test holds which
//! promise in `tests/README.md`.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | listener | an address that accepts clients |
//! | service, version, instance | as App Engine has them: a service has versions, a version instances |
//! | session | the requests of one client, recognised by its affinity token |
//! | bound instance | the instance that a valid token names |
//! | re-home | bind a session to another instance because its own can't serve it |
//! | probe | one active health check |
//! | breaker | passive ejection: closed passes, open refuses, half-open tries |
//! | ramp | the share of a version grows by steps, and goes back if it does badly |
//! | mirror | another version gets copies of requests, whose answers nobody gets |
//! | drain | refuse new sessions, keep bound ones, until a deadline |
//! | tunnel | an upgraded connection |
//! | drill | a scripted failure with limits on what clients may notice |
//! | attempt, retry | one try at an instance; the same request again on another |
//!
//! # Direction
//!
//! Rooms depend downwards only, and a test holds them to it: `config::types`, then `tls` and `config`,
//! which looks with it at what it has read, then the pure decisions (`route`, `affinity`, `balance`, `doctor`,
//! `proxy_protocol`, `http1`, the machines of `health`, `proxy::retry`,
//! `proxy::headers`, `proxy::error`, `tunnel::frames`) and `outward`, then `etcd`, `instance`, `acme`, `discovery`, `fleet` and `trace`, then
//! `rehearsal`, then `snapshot`, then `proxy`, `tunnel`, `listener`, `admin` and the prober, then `run`. `operate`
//! and `top` use none of them.

pub mod acme;
pub mod admin;
pub mod affinity;
pub mod balance;
pub mod cli;
pub mod config;
pub mod demo;
pub mod discovery;
pub mod doctor;
pub mod drill;
pub mod etcd;
pub mod fleet;
pub mod health;
pub mod http1;
pub mod instance;
pub mod listener;
pub mod memory;
pub mod observe;
pub mod operate;
pub mod outward;
pub mod proxy;
pub mod proxy_protocol;
pub mod rehearsal;
pub mod route;
pub mod run;
pub mod snapshot;
pub mod tls;
pub mod top;
pub mod trace;
pub mod tunnel;
pub mod turn;
