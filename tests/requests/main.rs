//! What becomes of one request on its way and of its answer: fields, bodies, further tries.

#[path = "../support/mod.rs"]
mod support;

mod headers;
mod hedge;
mod policy;
mod retry;
mod streaming;
