//! `traceparent` and `tracestate` (W3C Trace Context, level 1; section names are
//! its own). Pure.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// The field that names the caller's span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Of a field of version 00; of later versions at least.
const LENGTH: usize = 55;
/// "list": members of a `tracestate`.
const MOST_MEMBERS: usize = 32;
/// "tracestate Limits": what has to be passed on at least. More is cut.
const LONGEST_STATE: usize = 512;
/// The same: longer members are the first to go.
const LONG_MEMBER: usize = 128;
/// "list-members": of a key, and of a value.
const LONGEST: usize = 256;

/// The caller's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The trace; not 0.
    pub trace: u128,
    /// The span; not 0.
    pub span: u64,
    /// Whether the caller records it.
    pub sampled: bool,
}

impl Parent {
    /// What the one `traceparent` of a request says, if there is one and it can be understood.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        let line = lines.next().filter(|_| lines.next().is_none())?;
        Self::read(line.as_bytes())
    }

    /// "Versioning of traceparent": later versions begin as this one does, and may go on after another dash.
    fn read(text: &[u8]) -> Option<Self> {
        let version = hex(text.get(..2)?)?;
        let fits = match version {
            0xff => false,
            0 => text.len() == LENGTH,
            _ => text.len() == LENGTH || text.get(LENGTH) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
        if !fits || !dashes {
            return None;
        }
        let trace = hex(text.get(3..35)?)?;
        let span = u64::try_from(hex(text.get(36..52)?)?).ok()?;
        let flags = hex(text.get(53..55)?)?;
        (trace != 0 && span != 0).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

/// HEXDIGLC: in lower case only.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// The field that names `span`. Flags that this version does not know are not set.
pub fn traceparent(trace: u128, span: u64, sampled: bool) -> HeaderValue {
    let text = format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(sampled));
    HeaderValue::try_from(text).expect("hexadecimal digits and dashes are header-safe")
}

/// Forgets what vendors said of a trace that ends here.
pub fn forget_state(headers: &mut HeaderMap) {
    headers.remove(TRACESTATE);
}

/// Makes the lines of `tracestate` one that is within its limits; gives it. One that breaks the rules
/// is taken out.
pub fn settle_state(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(TRACESTATE).iter();
    let first = lines.next()?;
    let is_one = lines.next().is_none();
    let settled = match members(headers) {
        None => None,
        // Copied: a clone would hold on to all that was read with it.
        Some(_) if is_one && first.len() <= LONGEST_STATE => {
            HeaderValue::from_bytes(first.as_bytes()).ok()
        }
        Some(members) => HeaderValue::from_bytes(&cut(members)).ok(),
    };
    match settled.filter(|state| !state.is_empty()) {
        Some(state) => {
            headers.insert(TRACESTATE, state.clone());
            Some(state)
        }
        None => {
            headers.remove(TRACESTATE);
            None
        }
    }
}

/// All members, of all lines; `None` where one of them, or their number, breaks the rules. Empty ones are
/// allowed and mean nothing.
fn members(headers: &HeaderMap) -> Option<Vec<&[u8]>> {
    let lines = headers.get_all(TRACESTATE).iter();
    let pieces = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let trimmed = pieces.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    let (mut members, mut keys) = (Vec::new(), Vec::new());
    for member in trimmed {
        let key = key(member)?;
        if members.len() == MOST_MEMBERS || keys.contains(&key) {
            return None;
        }
        keys.push(key);
        members.push(member);
    }
    Some(members)
}

/// The key of a member that keeps the rules.
fn key(member: &[u8]) -> Option<&[u8]> {
    let at = member.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&member[..at], &member[at + 1..]);
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let in_key = |byte: &u8| is_letter(byte) || b"_-*/@".contains(byte);
    let in_value = |byte: &u8| (0x20..0x7f).contains(byte) && *byte != b'=';
    let fits = key.first().is_some_and(is_letter)
        && key.iter().all(in_key)
        && key.len() <= LONGEST
        && (1..=LONGEST).contains(&value.len())
        && value.iter().all(in_value);
    fits.then_some(key)
}

fn cut(mut members: Vec<&[u8]>) -> Vec<u8> {
    let length = |members: &[&[u8]]| members.iter().map(|it| it.len() + 1).sum::<usize>();
    while length(&members) > LONGEST_STATE + 1 {
        match members.iter().rposition(|member| member.len() > LONG_MEMBER) {
            Some(long) => drop(members.remove(long)),
            None => drop(members.pop()),
        }
    }
    members.join(&b","[..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "12345678901234567890123456789012";

    fn read(text: &str) -> Option<Parent> {
        Parent::read(text.as_bytes())
    }

    #[test]
    fn what_is_understood_and_what_begins_a_new_trace() {
        let trace = 0x1234_5678_9012_3456_7890_1234_5678_9012;
        let parent = |sampled| Some(Parent { trace, span: 0x1234_5678_9012_3456, sampled });
        let span = "1234567890123456";
        for (text, expected) in [
            (format!("00-{TRACE}-{span}-01"), parent(true)),
            (format!("00-{TRACE}-{span}-00"), parent(false)),
            (format!("00-{TRACE}-{span}-fe"), parent(false)),
            (format!("00-{TRACE}-{span}-03"), parent(true)),
            // Later versions.
            (format!("cc-{TRACE}-{span}-01"), parent(true)),
            (format!("cc-{TRACE}-{span}-01-what-the-future-will-be-like"), parent(true)),
            (format!("cc-{TRACE}-{span}-01.what-the-future-will-be-like"), None),
            (format!("cc-{TRACE}-{span}-0"), None),
            (format!("ff-{TRACE}-{span}-01"), None),
            // Lengths.
            (format!("00-{TRACE}-{span}-01."), None),
            (format!("00-{TRACE}-{span}-01-more"), None),
            (format!("000-{TRACE}-{span}-01"), None),
            (format!("0-{TRACE}-{span}-01"), None),
            (format!("00-{TRACE}3-{span}-01"), None),
            (format!("00-{}-{span}-01", &TRACE[1..]), None),
            (format!("00-{TRACE}-{span}7-01"), None),
            (format!("00-{TRACE}-{}-01", &span[1..]), None),
            (format!("00-{TRACE}-{span}-001"), None),
            (format!("00-{TRACE}-{span}-1"), None),
            (format!("00-{TRACE}-{span}"), None),
            (format!("00_{TRACE}_{span}_01"), None),
            (String::new(), None),
            // Letters.
            (format!(".0-{TRACE}-{span}-01"), None),
            (format!("0.-{TRACE}-{span}-01"), None),
            (format!("00-.{}-{span}-01", &TRACE[1..]), None),
            (format!("00-A{}-{span}-01", &TRACE[1..]), None),
            (format!("00-{TRACE}-.{}-01", &span[1..]), None),
            (format!("00-{TRACE}-{span}-.0"), None),
            (format!("00-{TRACE}-{span}-0A"), None),
            // Nothing.
            (format!("00-{}-{span}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
        ] {
            assert_eq!(read(&text), expected, "{text}");
        }
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let value = |line: &&str| HeaderValue::from_str(line).unwrap();
        lines.iter().map(|line| (TRACESTATE, value(line))).collect()
    }

    fn settled(lines: &[&str]) -> Option<String> {
        let mut headers = headers(lines);
        let given = settle_state(&mut headers);
        assert_eq!(headers.get(TRACESTATE), given.as_ref());
        given.map(|state| state.to_str().unwrap().to_owned())
    }

    #[test]
    fn two_lines_are_none() {
        let line = HeaderValue::from_str(&format!("00-{TRACE}-1234567890123456-01")).unwrap();
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, line.clone());
        assert!(Parent::of(&headers).is_some());
        headers.append(TRACEPARENT, line);
        assert_eq!(Parent::of(&headers), None);
    }

    #[test]
    fn a_state_is_passed_on_within_its_limits() {
        let same = |text: &str| (vec![text.to_owned()], Some(text.to_owned()));
        let numbered = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("k{n}=1")).collect();
            members.join(",")
        };
        let long = |key: &str, length: usize| format!("{key}={}", "v".repeat(length));
        let two = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        for (lines, expected) in [
            same("foo=1"),
            same("foo=1 \t , \t bar=2"),
            (vec!["0@v=x,_=1".to_owned()], None),
            same("a-b_c*d/e@f=some value !<>"),
            (two("foo=1", "bar=2"), Some("foo=1,bar=2".to_owned())),
            (two("foo=1,", ""), Some("foo=1".to_owned())),
            (vec![String::new()], None),
            (vec!["foo=1,foo=2".to_owned()], None),
            (vec!["foo".to_owned()], None),
            (vec!["foo=".to_owned()], None),
            (vec!["=1".to_owned()], None),
            (vec!["FOO=1".to_owned()], None),
            (vec!["foo =1".to_owned()], None),
            (vec!["foo=bar=baz".to_owned()], None),
            same(&numbered(32)),
            (vec![numbered(33)], None),
            same(&long("a", 256)),
            (vec![long("a", 257)], None),
            (vec![format!("{}=1", "a".repeat(257))], None),
            // Long members go first, then from the end.
            (
                vec![[long("a", 100), long("b", 200), long("c", 100), long("d", 200)].join(",")],
                Some([long("a", 100), long("b", 200), long("c", 100)].join(",")),
            ),
            (
                vec![
                    "abcdef"
                        .chars()
                        .map(|key| long(&key.to_string(), 120))
                        .collect::<Vec<_>>()
                        .join(","),
                ],
                Some(
                    "abcd"
                        .chars()
                        .map(|key| long(&key.to_string(), 120))
                        .collect::<Vec<_>>()
                        .join(","),
                ),
            ),
        ] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(settled(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_state_holds_on_to_nothing_that_was_read_with_it() {
        let read = bytes::Bytes::from(format!("foo=1{}", "x".repeat(60_000)));
        let state = HeaderValue::from_maybe_shared(read.slice(..5)).unwrap();
        let mut headers = HeaderMap::from_iter([(TRACESTATE, state)]);
        let settled = settle_state(&mut headers).unwrap();
        assert_eq!(settled, "foo=1");
        assert!(read.is_unique(), "the buffer can be used again");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let written = traceparent(trace, span, sampled);
            prop_assert_eq!(Parent::read(written.as_bytes()), Some(Parent { trace, span, sampled }));
        }

        #[test]
        fn nothing_that_comes_makes_trouble(line in "[ -~]{0,80}", state in "[ -~]{0,700}") {
            let _ = read(&line);
            if let Some(settled) = settled(&[&state]) {
                prop_assert!(settled.len() <= LONGEST_STATE);
            }
        }
    }
}
