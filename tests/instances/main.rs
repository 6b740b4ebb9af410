//! What Burdock makes of instances: whether they are ready and alive, how much they may have at once, and
//! how they are spoken to.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support_clients/mod.rs"]
mod support_clients;

mod adaptive;
mod agent;
mod breaker;
mod grpc;
mod health;
mod http2;
mod limits;
mod slow_start;
mod tls;
