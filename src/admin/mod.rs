//! The admin listener: `/healthz`, `/metrics`, the dashboard and the API under `/api/v1`.
//!
//! It reads the live state by itself, and hands what is to change to whoever runs the server, through
//! the [`desk`]. Never on a request's path. Read `router` first, which leads to one file for each
//! resource. The [`sampler`] looks at everything once a second, so that there are rates to tell.

mod ask;
mod auth;
mod configuration;
mod dashboard;
pub mod desk;
mod door;
mod drill;
pub mod events;
mod fleet;
mod history;
mod instances;
pub mod live;
pub mod metrics;
mod openapi;
pub mod problem;
mod ramp;
mod rebalance;
mod reload;
pub mod reply;
mod router;
pub mod sampler;
pub mod shapes;
mod split;
mod status;
pub mod stream;
pub mod tick;

pub use door::{adopt, bind, serve};
