//! A copy of a request for another version, whose answer nobody gets.
//!
//! It goes its own way from the moment it is made: whatever becomes of it, the request that it is a copy of does
//! not wait for it, does not fail by it and is not answered otherwise; nor does it count for the health, breaker
//! or limits of the instance that gets it. What it comes to is counted by itself.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, TRAILER, TRANSFER_ENCODING};
use http::request;

use crate::balance::Draw;
use crate::config::types::{Mirror, Mirrored};
use crate::instance::body::{Tapped, Upload};
use crate::instance::kept::Ledger;
use crate::instance::link::Link;
use crate::instance::mirrored::{Copy, Fate};
use crate::instance::{InFlight, Kind};
use crate::proxy::coming::Coming;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::{Answer, Attempt, Origin};
use crate::proxy_protocol::Introduction;
use crate::snapshot::{Service, Snapshot};

/// Tells an instance that it gets a copy, and of what: the version that answers. Nobody else may say so.
pub static MARK: HeaderName = HeaderName::from_static("x-burdock-mirror");
/// The most that is read of an answer, so that its connection can be kept.
const MAX_READ: usize = 1024 * 1024;
/// And for how long.
const LONGEST_READ: Duration = Duration::from_secs(10);

/// What is to be sent.
struct Reflection {
    copy: Copy,
    snapshot: Arc<Snapshot>,
    head: request::Parts,
    /// The body, when all of it has come.
    body: Option<Tapped>,
    introduction: Option<Arc<Introduction>>,
    ledger: Arc<Ledger>,
    worker: usize,
    has_host: bool,
}

/// Takes the mark off a request whose service has a mirror.
pub fn unmark(service: &Service, head: &mut request::Parts) {
    if service.settings().mirror.is_some() {
        head.headers.remove(&MARK);
    }
}

/// Sends a copy of this request to the version that is to get copies, if it is one of those.
pub fn reflect(
    exchange: &Exchange,
    snapshot: &Arc<Snapshot>,
    service: &Service,
    head: &request::Parts,
    upload: Option<&Upload>,
) {
    let Some(mirror) = &service.settings().mirror else { return };
    let roster = &service.roster;
    let is_meant = !exchange.upgrade
        && roster.version() != mirror.to
        && (mirror.methods == Mirrored::All || head.method.is_safe())
        && fastrand::u32(..10_000) < mirror.share;
    let to = snapshot.branch_of(service).named(&mirror.to).filter(|_| is_meant);
    let Some(to) = to else { return };
    let Some(copy) = Copy::begin(&to.roster, mirror.max_in_flight) else { return };
    let body = match upload.map(|upload| tapped(upload, mirror)) {
        None => None,
        Some(Some(body)) => Some(body),
        Some(None) => return copy.came_to(Fate::TooLarge),
    };
    let introduction = to.version().proxy_protocol.map(|it| Arc::new(exchange.introduction(it)));
    let (snapshot, worker) = (Arc::clone(snapshot), exchange.client.worker);
    let (head, has_host) = (marked(head, roster.version()), exchange.host.is_some());
    let ledger = Arc::clone(&exchange.client.live.kept);
    let reflection =
        Reflection { copy, snapshot, head, body, introduction, ledger, worker, has_host };
    tokio::spawn(reflection.send());
}

/// Where the body comes by, unless it is known to be too long.
fn tapped(upload: &Upload, mirror: &Mirror) -> Option<Tapped> {
    let most = usize::try_from(mirror.max_body).unwrap_or(usize::MAX);
    (mirror.max_body > 0).then(|| upload.tap(most)).flatten()
}

/// The same head with the mark, and for a body that is there as a whole.
fn marked(head: &request::Parts, version: &str) -> request::Parts {
    let mut head = head.clone();
    for name in [CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    let version = HeaderValue::from_str(version);
    head.headers.insert(&MARK, version.unwrap_or(HeaderValue::from_static("1")));
    head
}

impl Reflection {
    async fn send(mut self) {
        let upload = match self.body.take() {
            None => None,
            Some(body) => match body.whole().await {
                Ok(bytes) => {
                    let length = HeaderValue::from(bytes.len());
                    self.head.headers.insert(CONTENT_LENGTH, length);
                    Some(Upload::whole(bytes, &self.ledger, Instant::now()))
                }
                Err(fate) => return self.copy.came_to(fate),
            },
        };
        self.ask(upload.as_ref()).await;
    }

    async fn ask(&self, upload: Option<&Upload>) {
        let roster = self.copy.roster();
        let draw = Draw { key: None, random: fastrand::u64(..) };
        let instance = roster.choose_by(&roster.tally.copies.turn, draw, Kind::Request, &[]);
        let place = instance.and_then(|it| InFlight::begin(&it, self.worker, Kind::Request));
        let services = self.snapshot.services().iter();
        let service = services.into_iter().find(|it| Arc::ptr_eq(&it.roster, roster));
        let (Some(place), Some(service)) = (place, service) else {
            return self.copy.came_to(Fate::NoInstance);
        };
        let attempt = Attempt {
            instance: Arc::clone(place.instance()),
            roster,
            version: service.version(),
            has_host: self.has_host,
            upload,
            hurries: false,
            introduction: self.introduction.clone(),
            traceparent: None,
            client: None,
        };
        match attempt.send(self.worker, &self.head, Instant::now()).await {
            Err(_failure) => self.copy.came_to(Fate::Failed),
            Ok(answer) => {
                self.copy.came_to(Fate::of(answer.response.status()));
                let is_sent = upload.is_none_or(Upload::is_sent);
                let read = tokio::time::timeout(LONGEST_READ, read(answer));
                if let Ok(Some(link)) = read.await
                    && is_sent
                    && link.rests()
                {
                    place.lane().pool.give(link, Instant::now());
                }
            }
        }
    }
}

/// Reads an answer to its end; if it has one that is near, gives what it came by and may be kept.
async fn read(answer: Answer) -> Option<Box<Link>> {
    let (mut body, mut left) = (answer.response.into_body(), MAX_READ);
    while !body.is_end_stream() {
        match poll_fn(|cx| body.poll_frame(cx)).await {
            None => break,
            Some(Err(_broken)) => return None,
            Some(Ok(frame)) => {
                left = left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len))?;
            }
        }
    }
    match (answer.origin, body) {
        (Origin::Kept, Coming::Http1(link)) => Some(link),
        _ => None,
    }
}
