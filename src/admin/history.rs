//! `GET /api/v1/history`: the last 15 minutes.

use http::StatusCode;

use crate::admin::desk::Desk;
use crate::admin::reply::{self, Reply};

pub(super) fn answer(desk: &Desk) -> Reply {
    reply::json(StatusCode::OK, &desk.live.telemetry.history_json())
}
