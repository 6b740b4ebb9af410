//! What a drill does to requests on their way to an instance: some arrive later, some are answered in its
//! place. Exact: of any n requests that it may strike, a share of n is struck, give or take one.
//!
//! Where no drill runs an attempt reads one flag and nothing of this.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// All of them, in basis points.
const ALL: u32 = 10_000;

/// What becomes of a request that is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is sent so much later.
    Delay(Duration),
    /// It is not sent: this is the answer.
    Abort(StatusCode),
}

/// A field that marks the requests which are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The field.
    pub name: HeaderName,
    /// Its value; any where there is none.
    pub value: Option<HeaderValue>,
}

impl Mark {
    fn is_on(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        values.any(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

/// Something that is done to requests. Instances that share it share its count.
#[derive(Debug)]
pub struct Disturbance {
    /// What is done.
    pub effect: Effect,
    /// To how many, in basis points.
    pub share: u32,
    /// To which; to all where there is none.
    pub mark: Option<Mark>,
    met: AtomicU64,
    struck: AtomicU64,
}

/// What is done to one request, of all disturbances together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blow {
    /// How much later it is sent.
    pub delay: Duration,
    /// What it is answered instead, then.
    pub abort: Option<StatusCode>,
    /// Whether its mark is to blame for any of it: whoever sent it may have wanted that.
    pub is_marked: bool,
}

impl Disturbance {
    /// One that has struck nobody yet.
    pub fn new(effect: Effect, share: u32, mark: Option<Mark>) -> Self {
        Self { effect, share, mark, met: AtomicU64::new(0), struck: AtomicU64::new(0) }
    }

    /// Requests that were struck.
    pub fn struck(&self) -> u64 {
        self.struck.load(Ordering::Relaxed)
    }

    /// What of this is done to whoever comes. Who marks requests means them.
    pub fn of_all(&self) -> Option<Effect> {
        self.mark.is_none().then_some(self.effect)
    }

    /// Whether this request is struck.
    fn strikes(&self, headers: &HeaderMap) -> bool {
        if self.mark.as_ref().is_some_and(|mark| !mark.is_on(headers)) {
            return false;
        }
        let met = u128::from(self.met.fetch_add(1, Ordering::Relaxed));
        let of = |met: u128| met * u128::from(self.share) / u128::from(ALL);
        let strikes = of(met + 1) > of(met);
        self.struck.fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }
}

impl Blow {
    /// What all of these do to a request with these fields.
    pub(super) fn of<'a>(all: impl Iterator<Item = &'a Disturbance>, headers: &HeaderMap) -> Self {
        let mut blow = Self::default();
        for disturbance in all.filter(|it| it.strikes(headers)) {
            blow.is_marked |= disturbance.mark.is_some();
            match disturbance.effect {
                Effect::Delay(by) => blow.delay += by,
                Effect::Abort(status) => blow.abort = blow.abort.or(Some(status)),
            }
        }
        blow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static("x-drill"),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn a_share_is_exact_at_any_time() {
        for share in [1, 50, 333, 2500, 5000, 9999, 10_000] {
            let disturbance = Disturbance::new(Effect::Abort(StatusCode::BAD_GATEWAY), share, None);
            for met in 1..=20_000_u64 {
                disturbance.strikes(&HeaderMap::new());
                assert_eq!(disturbance.struck(), met * u64::from(share) / 10_000, "{share}");
            }
        }
    }

    #[test]
    fn only_marked_requests_are_met() {
        let name = HeaderName::from_static("x-drill");
        let mark = |value: Option<&'static str>| Mark {
            name: name.clone(),
            value: value.map(HeaderValue::from_static),
        };
        for (value, headers, expected) in [
            (None, HeaderMap::new(), false),
            (None, marked("x"), true),
            (Some("yes"), marked("no"), false),
            (Some("yes"), marked("yes"), true),
        ] {
            let effect = Effect::Delay(Duration::from_secs(1));
            let disturbance = Disturbance::new(effect, ALL, Some(mark(value)));
            assert_eq!(disturbance.strikes(&headers), expected, "{value:?} {headers:?}");
            assert_eq!(disturbance.met.load(Ordering::Relaxed), u64::from(expected));
        }
    }

    #[test]
    fn several_add_up() {
        let late = |ms| Effect::Delay(Duration::from_millis(ms));
        let abort = |status| Effect::Abort(StatusCode::from_u16(status).unwrap());
        let all = [late(20), abort(502), late(30), abort(404)];
        let all = all.map(|effect| Disturbance::new(effect, ALL, None));
        let blow = Blow::of(all.iter(), &HeaderMap::new());
        let (delay, abort) = (Duration::from_millis(50), Some(StatusCode::BAD_GATEWAY));
        assert_eq!(blow, Blow { delay, abort, is_marked: false });
        let mark = Some(Mark { name: HeaderName::from_static("x-drill"), value: None });
        let meant = [Disturbance::new(Effect::Delay(delay), ALL, mark)];
        let blow = Blow::of(all.iter().chain(&meant), &marked("x"));
        assert_eq!(blow, Blow { delay: 2 * delay, abort, is_marked: true });
        assert!(!Blow::of(meant.iter(), &HeaderMap::new()).is_marked, "nothing was done");
    }
}
