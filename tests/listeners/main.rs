//! What clients meet before anything is asked of an instance: who is let in and what they may take, TLS and
//! its certificates, HTTP/2, PROXY headers.

#[path = "../support/mod.rs"]
mod support;

mod acme;
mod client_limits;
mod http2;
mod proxy_protocol;
mod tls;
mod tls_openssl;
