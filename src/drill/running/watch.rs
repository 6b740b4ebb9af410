//! Looks at a running balancer while a drill is played on it: what it says of its instances, and what it
//! counts of its clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::drill::observe::{Seen, Sight};
use crate::drill::record::Record;
use crate::drill::watched;
use crate::operate::client::Client;

/// Between two looks, where they cost little.
const LOOK: Duration = Duration::from_millis(100);
/// Of a large balancer a look takes long; it is to have a tenth of the time at most.
const SHARE: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks until told to stop, and once more then. Counts go to the record, where whoever draws finds them.
pub(in crate::drill) async fn watch(
    client: Client,
    versions: Vec<(String, String)>,
    record: Arc<Record>,
    mut stop: watch::Receiver<bool>,
) -> Vec<Seen> {
    let mut sight = Sight::default();
    loop {
        let is_last = *stop.borrow();
        let began = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, client.text("/metrics")).await;
        // A balancer that is down says nothing, and changes nothing of what it last said.
        if let Ok(Ok(text)) = answer {
            let at = record.now();
            sight.note(&text, at);
            let look = watched::read(&text, at, &versions);
            record.notes().watched.push(look);
        }
        if is_last {
            return sight.seen;
        }
        let pause = LOOK.max(began.elapsed() * SHARE);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
