//! `POST /api/v1/reload`: reads the file again, and tells what came of it.

use http::StatusCode;
use serde_json::json;

use crate::admin::desk::{Desk, Done, Order};
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};

pub(super) async fn answer(desk: &Desk) -> Result<Reply, Problem> {
    let Done::Reloaded { generation, changes, warnings } = desk.ask(Order::Reload).await? else {
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "something else was done"));
    };
    let told = json!({ "generation": generation, "changes": changes, "warnings": warnings });
    Ok(reply::json(StatusCode::OK, &told))
}
