//! What the client is told of its session, on its way from the session to the answer.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};

use crate::affinity::engine_io::{Heard, Opening};
use crate::affinity::{cache, cookie};
use crate::config::types::{Affinity, AffinityCookie, CacheControl};
use crate::instance::{Instance, Roster};

/// Fields for the answer, and what its body may tell.
#[derive(Debug, Default)]
pub struct Notice {
    cookies: [Option<HeaderValue>; 2],
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
        Self { cookies: [Some(set(&affinity.cookie)), paired], header, guards, listener: None }
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
        let is_plain = || status == StatusCode::OK && !headers.contains_key(CONTENT_ENCODING);
        self.listener.filter(|_| is_plain()).map(Box::new)
    }

    /// Lets `listener` hear the answer's body.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }
}

/// Hears the engine.io session that an instance's answer opens.
#[derive(Debug)]
pub struct Listener {
    opening: Opening,
    roster: Arc<Roster>,
    instance: Arc<Instance>,
}

impl Listener {
    /// Listens to an answer of `instance`.
    pub fn new(roster: Arc<Roster>, instance: Arc<Instance>) -> Self {
        Self { opening: Opening::default(), roster, instance }
    }

    /// Bytes on their way to the client, before the client has them. Gives whether more are needed.
    pub fn hear(&mut self, bytes: &[u8]) -> bool {
        match self.opening.hear(bytes) {
            Heard::Nothing => true,
            Heard::Never => false,
            Heard::Sid(sid) => {
                let sids = &self.roster.sids;
                sids.note(sids.key(&*sid), Arc::clone(&self.instance), Instant::now());
                false
            }
        }
    }
}
