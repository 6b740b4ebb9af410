//! An instance that comes or comes back is filled slowly, and then treated like the others.

use crate::support::{Backend, Burdock, FAST_READINESS, yaml};

#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_instance_takes_a_tenth_at_first_and_its_share_in_the_end() {
    let backends = Backend::several(&["a", "b"]).await;
    let [a, b] = &backends[..] else { unreachable!() };
    let config = |slow_start| yaml(&[a, b], &format!("{FAST_READINESS}slow_start: {slow_start}\n"));
    let burdock = Burdock::start(&config("1h")).await;
    let weight = async |instance, wanted| {
        let labels = [("instance", instance)];
        burdock.wait_metric("burdock_instance_effective_weight", &labels, |v| v == wanted).await;
    };
    burdock.wait_health("a", "ready").await;
    burdock.wait_health("b", "ready").await;
    weight("a", 1.0).await;
    weight("b", 1.0).await;
    b.ready(false);
    burdock.wait_health("b", "unready").await;
    b.ready(true);
    weight("b", 0.1).await;
    burdock.wait_health("b", "ready").await;
    let (asked, mut client) = (b.request_count(), burdock.client());
    for _ in 0..110 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(b.request_count() - asked, 10);
    assert_eq!(burdock.reload(&config("100ms")).await["message"], "reloaded");
    b.ready(false);
    burdock.wait_health("b", "unready").await;
    b.ready(true);
    burdock.wait_health("b", "ready").await;
    weight("b", 1.0).await;
}
