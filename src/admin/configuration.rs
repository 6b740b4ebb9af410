//! `GET /api/v1/config`: what is served by, with every default filled in and no secret.

use http::StatusCode;
use serde_json::json;

use crate::admin::desk::Desk;
use crate::admin::reply::{self, Reply};
use crate::admin::status::differences;
use crate::config;

pub(super) fn answer(desk: &Desk) -> Reply {
    let snapshot = desk.live.snapshot();
    let effective = config::effective(&snapshot.filed);
    let told = json!({
        "generation": snapshot.generation,
        "file": desk.file.as_ref().map(|file| file.display().to_string()),
        "effective": effective,
        "differences": differences(&snapshot),
    });
    reply::json(StatusCode::OK, &told)
}
