//! The Prometheus exposition: values are read when somebody asks; nothing is summed on a request's
//! path.
//!
//! `names` is the table of everything, and each entry is looked up by its name in one of three
//! places: what belongs to the process, to a version, or to an instance. What is read of the many
//! instances is read once, before anything is written of it.

mod instances;
mod names;
mod process;
mod rows;
mod versions;

use crate::admin::metrics::rows::Rows;
use crate::snapshot::Live;

pub use names::NAMES;

/// Room for the rows of an instance, and for all others.
const ROOM: (usize, usize) = (4 * 1024, 32 * 1024);

/// One scrape.
pub fn render(live: &Live) -> String {
    let snapshot = live.snapshot();
    let instances = instances::read(&snapshot);
    let listeners = process::listeners(live);
    let versions = versions::read(live, &snapshot);
    let mut text = String::with_capacity(ROOM.0 * instances.len() + ROOM.1);
    for (name, kind, help) in NAMES {
        let mut rows = Rows::begin(&mut text, name, kind, help);
        if process::write(&mut rows, live, &snapshot) {
            continue;
        }
        if name.starts_with("burdock_listener_") {
            process::write_listeners(&mut rows, &listeners);
        } else if !instances::write(&mut rows, &instances) {
            versions.iter().for_each(|version| versions::write(&mut rows, version));
        }
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::affinity::token::Keyring;
    use crate::config;
    use crate::instance::{InFlight, Kind};
    use crate::observe::red::Ended;

    /// So many instances, each of which has had an answer, a tunnel and sessions.
    pub(in crate::admin) fn busy(instances: usize) -> Live {
        let address = |n: usize| format!("10.{}.{}.1:80", n / 250, n % 250);
        let list = (0..instances).map(address).collect::<Vec<_>>().join(", ");
        let text = format!("session_affinity: true\ninstances: [{list}]\n");
        let config = config::parse(&text, Path::new("c.yaml")).unwrap().config;
        let keyring = Keyring::new(&[[0; 32]]).unwrap();
        let (live, _) = Live::new(Arc::new(config), Arc::new(keyring), 2);
        let second = Some(Duration::from_secs(1));
        let status = Some(StatusCode::OK);
        let ended =
            Ended { status, is_error: false, attempts: 1, first_byte: second, duration: second };
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        live.listener(address, 1).count(&ended);
        for instance in live.snapshot().services()[0].roster.members().all() {
            for worker in 0..2 {
                instance.lane(worker).answered(StatusCode::OK);
                instance.lane(worker).took(Duration::from_millis(3));
                instance.sessions.seen(fastrand::u64(..));
            }
            drop(InFlight::begin(instance, 0, Kind::Tunnel).unwrap().become_tunnel());
        }
        live.snapshot().services()[0].roster.red(0).unwrap().count(&ended);
        live
    }

    /// What this thread has used of a core: what else the machine does is not what is measured.
    pub(in crate::admin) fn busy_time() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        Duration::from_nanos(nanos.unwrap_or_default())
    }

    #[test]
    fn every_name_is_told_once_and_no_series_twice() {
        let live = busy(3);
        let _held = live.listener(SocketAddr::from(([127, 0, 0, 1], 8080)), 0);
        let text = render(&live);
        for (name, kind, _) in NAMES {
            let heads = text.lines().filter(|line| *line == format!("# TYPE {name} {kind}"));
            assert_eq!(heads.count(), 1, "{name}");
        }
        let series: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').unwrap().0)
            .collect();
        assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len());
        for expected in [
            "burdock_listener_requests_total{listener=\"127.0.0.1:8080\",class=\"2xx\"} 1",
            "burdock_client_requests_total{service=\"default\",version=\"default\",class=\"2xx\"} 1",
            "burdock_client_request_duration_seconds_bucket{service=\"default\",\
             version=\"default\",le=\"0.5\"} 0",
            "burdock_instance_first_byte_seconds_count{service=\"default\",version=\"default\",\
             instance=\"10.0.1.1:80\"} 2",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} in {text}");
        }
    }

    #[test]
    fn a_listener_is_forgotten_when_nobody_is_left_there() {
        let live = busy(1);
        assert!(!render(&live).contains("listener=\"127.0.0.1:8080\""));
    }

    /// What a scrape of many takes is printed, not promised: `--nocapture`.
    #[test]
    fn ten_thousand_instances_are_told_of() {
        let live = busy(10_000);
        for _ in 0..3 {
            let begun = busy_time();
            let text = render(&live);
            let took = busy_time() - begun;
            let (rows, bytes) = (text.lines().count(), text.len());
            println!("{rows} lines, {bytes} bytes in {took:?} of a core");
            assert!(rows > 10_000 * 30);
            assert!(!text.contains("instance_first_byte_seconds_bucket{service=\"default\",version=\"default\",instance=\"10.0.1.1:80\",le=\"1\""));
        }
    }
}
