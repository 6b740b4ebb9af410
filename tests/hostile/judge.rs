//! Replays a case against a proxy, and holds what was seen to what may be.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::case::{self, Answer, Case, Got, Outcome};
use crate::origin::{Event, Origin};
use crate::strict::{self, Message, Read};
use crate::support;

/// What a case came to.
#[derive(Debug, Default)]
pub struct Seen {
    answers: Vec<Message>,
    interim: Vec<u16>,
    /// The last answer did not end.
    broken: bool,
    closed: bool,
    events: Vec<Event>,
    /// What the client got is no HTTP.
    fault: Option<String>,
    /// What shows that two sides read the same bytes differently.
    pub desync: Option<String>,
}

/// How strictly a proxy is looked at, and for how long it is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Burdock must do the first outcome with its very status; a peer any of them.
    pub exact: bool,
    pub patience: Duration,
}

struct Conversation {
    stream: TcpStream,
    bytes: Vec<u8>,
    patience: Duration,
}

enum Next {
    Answer(Message),
    Broken(Message),
    Closed,
    Silent,
    Bad(String),
}

impl Conversation {
    async fn open(proxy: SocketAddr, patience: Duration) -> Self {
        let stream = TcpStream::connect(proxy).await.expect("the proxy listens");
        let _ = stream.set_nodelay(true);
        Self { stream, bytes: Vec::new(), patience }
    }

    async fn next(&mut self, method: &str) -> Next {
        let mut ended = false;
        loop {
            match strict::response(&self.bytes, method, ended) {
                Read::Whole(message, size) => {
                    self.bytes.drain(..size);
                    return Next::Answer(message);
                }
                Read::Bad(why) => return Next::Bad(format!("{why} in {:?}", self.text())),
                Read::Part(head) if ended => {
                    return match head {
                        Some(head) => Next::Broken(head),
                        None if self.bytes.is_empty() => Next::Closed,
                        None => Next::Bad(format!("half a head: {:?}", self.text())),
                    };
                }
                Read::Part(_) => {}
            }
            match timeout(self.patience, self.stream.read_buf(&mut self.bytes)).await {
                Err(_elapsed) => return Next::Silent,
                Ok(read) => ended = !read.is_ok_and(|count| count > 0),
            }
        }
    }

    fn text(&self) -> String {
        strict::latin1(&self.bytes[..self.bytes.len().min(300)])
    }

    /// Whether an ordinary request is answered as it should be.
    async fn step(&mut self, target: &str) -> Step {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        if self.stream.write_all(request.as_bytes()).await.is_err() {
            return Step::Closed;
        }
        match self.next("GET").await {
            Next::Answer(answer) if answer.status() == 200 && answer.body == target => Step::Right,
            Next::Closed => Step::Closed,
            Next::Silent => Step::Silent,
            Next::Answer(other) | Next::Broken(other) => {
                Step::Wrong(format!("{target} got {:?} {:?}", other.start, other.body))
            }
            Next::Bad(why) => Step::Wrong(format!("{target} got {why}")),
        }
    }
}

/// How an ordinary request fares behind a case.
enum Step {
    Right,
    Closed,
    Silent,
    /// It got something else than its answer.
    Wrong(String),
}

/// Replays `case`.
pub async fn replay(proxy: SocketAddr, origin: &Origin, case: &Case, measure: Measure) -> Seen {
    let mut seen = Seen::default();
    origin.prepare(case);
    let sent = case::bytes(&case.send);
    let method = strict::latin1(sent.split(|byte| *byte == b' ').next().unwrap_or_default());
    let mut it = Conversation::open(proxy, measure.patience).await;
    // A proxy that closes before it has read everything is one that refuses.
    let _ = it.stream.write_all(&sent).await;
    if let Some(then) = &case.then {
        let _ = timeout(measure.patience, origin.head()).await;
        let _ = it.stream.write_all(&case::bytes(then)).await;
    }
    if case.finish {
        let _ = it.stream.shutdown().await;
    }
    let stays = !case.expect.closes();
    while !(stays && seen.answers.len() >= case.expect.answers()) {
        match it.next(if seen.answers.is_empty() { method.trim_start() } else { "GET" }).await {
            Next::Answer(answer) if answer.status() < 200 && answer.status() != 101 => {
                seen.interim.push(answer.status());
            }
            Next::Answer(answer) => seen.answers.push(answer),
            Next::Broken(answer) => {
                seen.answers.push(answer);
                (seen.broken, seen.closed) = (true, true);
                break;
            }
            Next::Closed => {
                seen.closed = true;
                break;
            }
            Next::Silent => break,
            Next::Bad(why) => {
                seen.fault = Some(why);
                break;
            }
        }
    }
    follow_up(proxy, origin, case, &mut seen, it).await;
    seen
}

/// What comes after the case must not notice it.
async fn follow_up(
    proxy: SocketAddr,
    origin: &Origin,
    case: &Case,
    seen: &mut Seen,
    mut it: Conversation,
) {
    if let Some(later) = &case.later {
        origin.send_later(case::bytes(later)).await;
        // Nothing tells when they have arrived. If they haven't, nobody could tell them from the
        // answer to what follows.
        for _ in 0..4 {
            support::pause().await;
        }
    }
    if !seen.closed && !case.finish && seen.fault.is_none() && !case.expect.closes() {
        match it.step("/after").await {
            Step::Right => {}
            Step::Closed => seen.closed = true,
            Step::Silent => seen.fault = Some("none to /after".to_owned()),
            Step::Wrong(why) => seen.desync = Some(why),
        }
    }
    let mut fresh = Conversation::open(proxy, it.patience * 4).await;
    match fresh.step("/fence").await {
        Step::Right => {}
        Step::Closed | Step::Silent => seen.fault = Some("none to /fence".to_owned()),
        Step::Wrong(why) => seen.desync = Some(why),
    }
    seen.events = origin.events();
    let is_own = |event: &Event| matches!(event, Event::Got(got) if ["/after", "/fence"].contains(&got.word(1)));
    seen.events.retain(|event| !is_own(event));
    for event in &seen.events {
        match event {
            Event::Bad(bytes) => seen.desync = Some(format!("the instance got {bytes:?}")),
            Event::Got(got) if got.start.contains("smuggled") => {
                seen.desync = Some(format!("the instance got {:?}", got.start));
            }
            Event::Got(_) | Event::Cut(_) => {}
        }
    }
}

/// Whether what was seen may be.
pub fn verdict(case: &Case, seen: &Seen, measure: Measure) -> Result<(), String> {
    if let Some(desync) = &seen.desync {
        return Err(format!("out of step: {desync}"));
    }
    if let Some(fault) = &seen.fault {
        return Err(format!("no answer: {fault}"));
    }
    let first = fits(case, &case.expect, seen, measure.exact);
    let others = case.or.iter().filter(|_| !measure.exact);
    match first {
        Err(_) if others.map(|it| fits(case, it, seen, false)).any(|it| it.is_ok()) => Ok(()),
        first => first,
    }
}

fn fits(case: &Case, outcome: &Outcome, seen: &Seen, exact: bool) -> Result<(), String> {
    let statuses: Vec<_> = seen.answers.iter().map(Message::status).collect();
    reached(case, outcome, seen)?;
    if seen.broken != outcome.broken {
        return Err(format!("broken off: {}", seen.broken));
    }
    if (exact || outcome.closed.is_some()) && seen.closed != outcome.closes() {
        return Err(format!("closed: {}; {statuses:?}", seen.closed));
    }
    if exact && !outcome.crowd && seen.interim != outcome.interim {
        return Err(format!("interim answers {:?}", seen.interim));
    }
    // Whether a refusal was made by closing without a word.
    let mute = !exact && seen.closed && seen.answers.len() + 1 == outcome.answers();
    let is_refusal = |status: &u16| match outcome.refused {
        Some(wanted) if exact => *status == wanted,
        Some(_) => *status >= 400,
        None => true,
    };
    let all = seen.answers.len() == outcome.answers() && statuses.last().is_none_or(is_refusal);
    let allowed = all || (mute && outcome.refused.is_some());
    if !allowed {
        return Err(format!("answers {statuses:?}"));
    }
    match (&outcome.answer, seen.answers.last()) {
        (Some(wanted), Some(last)) => answered(wanted, last, exact),
        (Some(_), None) => Err("no answer".to_owned()),
        (None, _) => Ok(()),
    }
}

/// What the instance got.
fn reached(case: &Case, outcome: &Outcome, seen: &Seen) -> Result<(), String> {
    if case.answer.is_some() && outcome.passed.is_empty() {
        return Ok(());
    }
    let mut got = Vec::new();
    for event in &seen.events {
        match event {
            Event::Got(message) => got.push(message),
            Event::Cut(_) if outcome.cut => {}
            Event::Cut(bytes) | Event::Bad(bytes) => {
                return Err(format!("a part got there: {bytes:?}"));
            }
        }
    }
    if got.len() != outcome.passed.len() {
        let lines: Vec<_> = got.iter().map(|message| &message.start).collect();
        return Err(format!("the instance got {lines:?}"));
    }
    for (wanted, got) in outcome.passed.iter().zip(got) {
        arrived(wanted, got)?;
    }
    Ok(())
}

fn arrived(wanted: &Got, got: &Message) -> Result<(), String> {
    let line = got.start.rsplit_once(' ').unwrap_or_default().0;
    if line != strict::latin1(&case::bytes(&wanted.line)) {
        return Err(format!("the instance got {:?}", got.start));
    }
    fields(&wanted.has, &wanted.lacks, &got.fields)?;
    let body = wanted.body.as_deref().map(|body| strict::latin1(&case::bytes(body)));
    if body.is_some_and(|body| body != got.body) {
        return Err(format!("the instance got the body {:?}", got.body));
    }
    if let Some(trailers) = &wanted.trailers {
        fields(trailers, &[], &got.trailers)?;
        if trailers.len() != got.trailers.len() {
            return Err(format!("the instance got trailers {:?}", got.trailers));
        }
    }
    Ok(())
}

fn answered(wanted: &Answer, got: &Message, exact: bool) -> Result<(), String> {
    if wanted.status != got.status() && (exact || wanted.status < 300) {
        return Err(format!("answered with {:?}", got.start));
    }
    fields(&wanted.has, &wanted.lacks, &got.fields)?;
    let body = wanted.body.as_deref().map(|body| strict::latin1(&case::bytes(body)));
    match body.is_some_and(|body| body != got.body) {
        true => Err(format!("the client got the body {:?}", got.body)),
        false => Ok(()),
    }
}

fn fields(
    has: &std::collections::BTreeMap<String, String>,
    lacks: &[String],
    fields: &[(String, String)],
) -> Result<(), String> {
    for (name, value) in has {
        let plain = |text: &str| strict::latin1(&case::bytes(text));
        let found = strict::values(fields, &plain(name)).join(" | ");
        if found != plain(value) {
            return Err(format!("{name}: {found:?}"));
        }
    }
    match lacks.iter().find(|name| !strict::values(fields, name).is_empty()) {
        Some(name) => Err(format!("{name} is there")),
        None => Ok(()),
    }
}
