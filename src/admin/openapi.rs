//! `GET /api/v1/openapi.json`: what all of this is, as OpenAPI 3.1. The text is a file of its own; a
//! test holds the answers to it.

use http::StatusCode;

use crate::admin::reply::{self, Reply};

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn answer() -> Reply {
    reply::bytes(StatusCode::OK, "application/json", DOCUMENT)
}
