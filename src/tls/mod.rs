//! TLS: what is proved to whom, and the streams that come of it.
//!
//! Knows certificates and sockets, no HTTP, and reads no files: the configuration has read them.

pub mod client;
