//! HTTP/1.1 as a client of instances (RFC 9112), on a connection that one request at a time has for
//! itself. Nothing here knows of retries, sessions or clients. Read [`answer`] first.

pub mod answer;
pub mod dialog;
pub mod request;
#[cfg(test)]
mod tests;
