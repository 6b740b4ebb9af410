//! HTTP/1.1 as messages (RFC 9112): what both sides have in common, that towards clients
//! ([`crate::listener`]) and that towards instances ([`crate::instance`]).
//!
//! hyper's own connections are made for callers who know nothing of each other: a channel for each body,
//! a task or a turn of the scheduler for each step, a buffer for each connection. Here the task of a
//! request does all of it, and small answers cost less for it (`benches/README.md`). The grammar is still
//! httparse's; what is decided here is where a message ends, and each rule of that names its
//! section. Nothing here knows who is at the other end. Read [`content`] first.

pub mod chunks;
pub mod content;
pub mod fields;
pub mod input;
pub mod sending;
pub mod spare;

/// What came makes no sense, or is more than is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;
