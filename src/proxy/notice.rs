//! What the client is told of its session, on its way from the session to the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SET_COOKIE,
};
use http::{Response, StatusCode, request};

use crate::affinity::engine_io::{self, Heard, MAX_COMPLAINT, Opening};
use crate::affinity::{cache, cookie};
use crate::config::types::{self, Affinity, AffinityCookie, CacheControl};
use crate::instance::roster::count;
use crate::instance::{Instance, Roster};
use crate::snapshot::Service;

/// A client that comes back later finds the same version.
const NUMBER_LASTS: Duration = Duration::from_secs(30 * 24 * 3600);

/// Fields for the answer, and what its body may tell.
#[derive(Debug, Default)]
pub struct Notice {
    cookies: [Option<HeaderValue>; 3],
    header: Option<(HeaderName, HeaderValue)>,
    guards: bool,
    listener: Option<Listener>,
}

impl Notice {
    /// The client is to bring `token` from now on; it came by https or not.
    pub fn token(affinity: &Affinity, token: &str, https: bool) -> Self {
        let set = |cookie: &AffinityCookie| cookie::set(cookie, token.to_owned(), https);
        Self::new(affinity, https, set, token)
    }

    /// The client is to forget its token. In a field, nothing stands for none.
    pub fn release(affinity: &Affinity, https: bool) -> Self {
        Self::new(affinity, https, |cookie| cookie::expire(cookie, https), "")
    }

    fn new(
        affinity: &Affinity,
        https: bool,
        set: impl Fn(&AffinityCookie) -> HeaderValue,
        field: &str,
    ) -> Self {
        let paired = affinity.cross_site_cookie && cookie::may_pair(&affinity.cookie, https);
        let paired = paired.then(|| set(&cookie::paired(&affinity.cookie)));
        let header = affinity.header.as_deref().and_then(|name| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, field.parse().ok()?))
        });
        let guards = affinity.cache_control == CacheControl::Private;
        Self {
            cookies: [Some(set(&affinity.cookie)), paired, None],
            header,
            guards,
            listener: None,
        }
    }

    /// The client is to bring this number from now on, which leads it to its version of the service.
    pub fn number(&mut self, service: &types::Service, number: u32, https: bool) {
        let Some(split) = &service.split else { return };
        let (name, max_age) = (split.cookie.clone(), Some(NUMBER_LASTS));
        let cookie = AffinityCookie { name, max_age, ..AffinityCookie::default() };
        self.cookies[2] = Some(cookie::set(&cookie, number.to_string(), https));
        self.guards = true;
    }

    /// Puts the fields on an answer. What is left is to be told of the answer's body.
    pub fn put(self, headers: &mut HeaderMap, status: StatusCode) -> Option<Box<Listener>> {
        for cookie in self.cookies.into_iter().flatten() {
            headers.append(SET_COOKIE, cookie);
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        if self.guards {
            cache::guard(headers);
        }
        // A packet that is compressed can't be read as it passes.
        let is_heard = status == StatusCode::OK || status == StatusCode::BAD_REQUEST;
        let is_plain = || is_heard && !headers.contains_key(CONTENT_ENCODING);
        self.listener.filter(|_| is_plain()).map(Box::new)
    }

    /// Lets `listener` hear the answer's body.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }
}

/// Nothing for the client; but where affinity is off, an answer may tell of an engine.io session that is
/// unknown for want of it.
pub fn of_sid<Body>(
    service: &Service,
    instance: &Arc<Instance>,
    head: &request::Parts,
    answer: &Response<Body>,
) -> Option<Box<Notice>> {
    if service.version().affinity.is_some() {
        return None;
    }
    let roster = &service.roster;
    let listener = match answer.status() {
        StatusCode::BAD_REQUEST => Listener::of_refusal(roster, instance, head, answer.headers())?,
        // Once a session was unknown, it matters who opens others.
        StatusCode::OK if roster.evidence.is_suspicious() => {
            let opens = head.uri.query().and_then(engine_io::ask) == Some(engine_io::Ask::Opens);
            opens.then(|| Listener::new(Arc::clone(roster), Arc::clone(instance)))?
        }
        _ => return None,
    };
    Some(Box::new(Notice { listener: Some(listener), ..Notice::default() }))
}

/// Hears what an instance's answer tells of an engine.io session.
#[derive(Debug)]
pub struct Listener {
    subject: Subject,
    roster: Arc<Roster>,
}

#[derive(Debug)]
enum Subject {
    /// That it is opened, at this instance.
    Opening(Opening, Arc<Instance>),
    /// That it is unknown, at this instance.
    Complaint(Complaint),
}

#[derive(Debug)]
struct Complaint {
    heard: Vec<u8>,
    /// The session's mark.
    sid: u64,
    instance: Arc<Instance>,
}

impl Complaint {
    /// The session is unknown here: whether another instance has opened it, and is there to be asked.
    fn tell(&self, roster: &Roster) {
        let now = Instant::now();
        roster.evidence.suspect(now);
        let is_elsewhere = |opened: Arc<Instance>| {
            !Arc::ptr_eq(&opened, &self.instance) && opened.eligibility().bound.is_ok()
        };
        if roster.sids.peek(self.sid, now).is_some_and(is_elsewhere) {
            count(&roster.evidence.misled);
        }
    }
}

impl Listener {
    /// Listens to an answer of `instance`.
    pub fn new(roster: Arc<Roster>, instance: Arc<Instance>) -> Self {
        Self { subject: Subject::Opening(Opening::default(), instance), roster }
    }

    /// Listens for a complaint in a refusal that is short enough to be one.
    pub fn of_refusal(
        roster: &Arc<Roster>,
        instance: &Arc<Instance>,
        head: &request::Parts,
        answer: &HeaderMap,
    ) -> Option<Self> {
        let Some(engine_io::Ask::Continues(sid)) = head.uri.query().and_then(engine_io::ask) else {
            return None;
        };
        // Without a length: engine.io's own server sends it in chunks.
        let length = |text: &HeaderValue| text.to_str().ok()?.parse::<u64>().ok();
        let length = answer.get(CONTENT_LENGTH).and_then(length).unwrap_or(0);
        let complaint = || Complaint {
            heard: Vec::new(),
            sid: roster.sids.key(sid),
            instance: Arc::clone(instance),
        };
        (length <= MAX_COMPLAINT)
            .then(|| Self { subject: Subject::Complaint(complaint()), roster: Arc::clone(roster) })
    }

    /// Bytes on their way to the client, before the client has them. Gives whether more are needed.
    pub fn hear(&mut self, bytes: &[u8]) -> bool {
        match &mut self.subject {
            Subject::Opening(opening, instance) => match opening.hear(bytes) {
                Heard::Nothing => true,
                Heard::Never => false,
                Heard::Sid(sid) => {
                    let sids = &self.roster.sids;
                    sids.note(sids.key(&*sid), Arc::clone(instance), Instant::now());
                    false
                }
            },
            Subject::Complaint(complaint) => {
                let heard = &mut complaint.heard;
                let room = MAX_COMPLAINT as usize - heard.len();
                heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
                let complains = engine_io::is_unknown_session(heard);
                let is_over = complains || heard.len() == MAX_COMPLAINT as usize;
                if complains {
                    complaint.tell(&self.roster);
                }
                !is_over
            }
        }
    }
}
