//! What tests of several sources share.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::api::Api;
use crate::support::{Burdock, pause, within};

/// Starts one with this configuration in this folder.
pub(crate) async fn start(folder: PathBuf, text: &str) -> Burdock {
    let config = folder.join("burdock.yaml");
    std::fs::write(&config, text).expect("write the config");
    let path = config.display().to_string();
    Burdock::spawn(folder, config, &["run", "-c", &path]).await
}

/// What the API tells of the source, once it is so.
pub(crate) async fn source(
    burdock: &Burdock,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let mut api = Api::of(burdock);
    within(what, async {
        loop {
            let status = api.status().await;
            let source = &status["services"][0]["versions"][0]["discovery"];
            if wanted(source) {
                return source.clone();
            }
            pause().await;
        }
    })
    .await
}
