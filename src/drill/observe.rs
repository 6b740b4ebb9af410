//! What the balancer says of its instances while a drill runs, read from its metrics: when it
//! stopped sending somebody requests, and when it began again. Knows the metrics' names only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::record::Record;

/// Between two looks: a detection is known this exactly.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(2);

/// An instance's state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at: Duration,
    /// As [`super::plan::Id`] is written.
    pub(super) instance: String,
    /// Whether it is sent whatever it may get; a draining one is.
    pub(super) serves: bool,
    /// `ready`, `unready`, `dead`, `unknown`, `breaker open`, `disabled`.
    pub(super) state: String,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Sight {
    pub(super) seen: Vec<Seen>,
    known: BTreeMap<String, String>,
}

impl Sight {
    /// Notes what has changed in these metrics.
    pub(super) fn note(&mut self, text: &str, at: Duration) {
        for (instance, state) in states(text) {
            if self.known.get(&instance) == Some(&state) {
                continue;
            }
            self.known.insert(instance.clone(), state.clone());
            let serves = state == "ready";
            self.seen.push(Seen { at, instance, serves, state });
        }
    }
}

/// Looks until told to stop, and gives back what it saw.
pub(super) async fn observe(
    admin: SocketAddr,
    record: Arc<Record>,
    mut stop: watch::Receiver<bool>,
) -> Vec<Seen> {
    let mut sight = Sight::default();
    while !*stop.borrow() {
        let answer = tokio::time::timeout(PATIENCE, metrics(admin)).await;
        // A balancer that is down says nothing, and changes nothing of what it last said.
        if let Ok(Some(text)) = answer {
            sight.note(&text, record.now());
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    sight.seen
}

/// One look; nothing where the balancer gives no answer.
async fn metrics(admin: SocketAddr) -> Option<String> {
    let stream = TcpStream::connect(admin).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/metrics").header(header::HOST, admin.to_string());
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    connection.abort();
    Some(String::from_utf8_lossy(&body).into_owned())
}

/// What each instance is, all of its gauges taken together.
fn states(text: &str) -> BTreeMap<String, String> {
    let mut states: BTreeMap<String, String> = BTreeMap::new();
    let rows = text.lines().filter_map(row).filter(|(.., value)| *value != 0.0);
    for (name, labels, value) in rows {
        let label = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
        let id = format!("{}/{}/{}", label("service"), label("version"), label("instance"));
        match name {
            // Health comes first in the text or not: what is worse stays.
            "burdock_instance_health" => {
                let state = states.entry(id).or_default();
                if state.is_empty() {
                    state.push_str(label("state"));
                }
            }
            "burdock_instance_breaker" if value == 2.0 => {
                states.insert(id, "breaker open".to_owned());
            }
            "burdock_instance_admin" if label("state") == "disabled" => {
                states.insert(id, "disabled".to_owned());
            }
            _ => {}
        }
    }
    states
}

/// Name, labels and value of a line.
pub(super) fn row(line: &str) -> Option<(&str, BTreeMap<&str, String>, f64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once("} ")?;
    let labels = labels.split("\",").filter_map(|label| {
        let (key, value) = label.split_once("=\"")?;
        Some((key, value.trim_end_matches('"').to_owned()))
    });
    Some((name, labels.collect(), value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_that_is_said_of_an_instance_counts() {
        let labels = |name: &str| format!("service=\"s\",version=\"v\",instance=\"{name}\"");
        let mut text = String::from("# TYPE burdock_instance_health gauge\n");
        for (name, state) in [("a", "ready"), ("b", "dead"), ("c", "ready"), ("d", "ready")] {
            for other in ["ready", "dead"] {
                let value = u8::from(other == state);
                let labels = labels(name);
                text += &format!("burdock_instance_health{{{labels},state=\"{other}\"}} {value}\n");
            }
        }
        text += &format!("burdock_instance_breaker{{{}}} 2\n", labels("c"));
        text += &format!("burdock_instance_admin{{{},state=\"disabled\"}} 1\n", labels("d"));
        text += "burdock_instance_tunnels{} 3\nburdock_workers 2\n";
        let told: Vec<_> = states(&text).into_iter().map(|(id, state)| id + " " + &state).collect();
        assert_eq!(told, ["s/v/a ready", "s/v/b dead", "s/v/c breaker open", "s/v/d disabled"]);
    }
}
