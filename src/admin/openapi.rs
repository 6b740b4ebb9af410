//! `GET /api/v1/openapi.json`: what all of this is, as OpenAPI 3.1. The text is a file of its own; a
//! test holds the answers to it.

use http::StatusCode;

use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};
use crate::admin::router::{Question, is_read};

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn answer(question: &Question) -> Result<Reply, Problem> {
    if !is_read(&question.method) {
        return Ok(reply::not_allowed("GET, HEAD"));
    }
    Ok(reply::bytes(StatusCode::OK, "application/json", DOCUMENT))
}
