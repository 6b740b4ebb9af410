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
//! Beside it: [`config`] (file -> validated types), [`snapshot`] (what a request may read),
//! [`tls`] (certificates, tickets, secured streams), [`outward`] (what it asks itself), [`acme`] (certificates from a CA), [`health`]
//! (checks and breaker), [`discovery`] (instances that are found), [`etcd`] (keys, leases, watches), [`fleet`] (what balancers share), [`observe`] (logs), [`trace`] (spans),
//! [`admin`] (its API, metrics), [`doctor`] (classic mistakes), [`rehearsal`] (a drill on this balancer),
//! [`run`] (puts all of it together), [`demo`] (embedded instances). Outside all of it, and only by the
//! admin API: [`operate`] (commands for a running balancer), [`top`] (a live view of it); and by the wire
//! alone: [`drill`] (rehearsed failures).
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
//! | drain | refuse new sessions, keep bound ones, until a deadline |
//! | tunnel | an upgraded connection |
//! | drill | a scripted failure with limits on what clients may notice |
//! | attempt, retry | one try at an instance; the same request again on another |
//!
//! # Direction
//!
//! Rooms depend downwards only, and a test holds them to it: `config::types`, then `tls` and `config`,
//! which looks with it at what it has read, then the pure decisions (`route`, `affinity`, `balance`, `doctor`,
//! `proxy_protocol`, the machines of `health`, `proxy::retry`,
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
pub mod instance;
pub mod listener;
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
