//! `POST /api/v1/versions/SERVICE/VERSION/rebalance`: moves tunnels to instances that have too few.

use http::StatusCode;
use serde_json::json;

use crate::admin::desk::{Desk, Done, Order};
use crate::admin::instances::known_version;
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};

pub(super) async fn answer(
    desk: &Desk,
    (service, version): (&str, &str),
) -> Result<Reply, Problem> {
    known_version(desk, service, version)?;
    let (service, version) = (service.to_owned(), version.to_owned());
    let Done::Rebalancing { tunnels } = desk.ask(Order::Rebalance { service, version }).await?
    else {
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "something else was done"));
    };
    Ok(reply::json(StatusCode::ACCEPTED, &json!({ "tunnels": tunnels })))
}
