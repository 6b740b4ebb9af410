//! What tests of orders and keys share.

use std::time::Instant;

use serde_json::Value;

use crate::support::{Api, Burdock, DEADLINE, pause};

/// A new process over the same files.
pub(crate) async fn again(burdock: &Burdock) -> Burdock {
    let (directory, config) = (burdock.directory.clone(), burdock.config.clone());
    Burdock::spawn(directory, config, &["run", "-c", "burdock.yaml"]).await
}

/// What a balancer says of its fleet.
pub(crate) async fn fleet(burdock: &Burdock) -> Value {
    let (status, told) = Api::of(burdock).get("fleet").await;
    assert_eq!(status, 200, "{told}");
    told
}

/// The same, once it is so.
pub(crate) async fn wait_fleet(
    burdock: &Burdock,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let begun = Instant::now();
    loop {
        let told = fleet(burdock).await;
        if wanted(&told) {
            return told;
        }
        assert!(begun.elapsed() < DEADLINE, "never {what}, at last: {told}");
        pause().await;
    }
}

/// Waits until a balancer hears its etcd, or no longer does.
pub(crate) async fn heard(burdock: &Burdock, is_heard: bool) {
    wait_fleet(burdock, "heard as it should be", |it| it["connected"] == is_heard).await;
}
