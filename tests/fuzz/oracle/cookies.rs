//! Carriers of tokens in requests, and what else is read of a session: nothing that comes makes it
//! panic, the token is always taken out, and everything else stays byte for byte.
//!
//! Input: one byte of choices, then lines: the request's target; `h` and a value of the carrying
//! field; `o` and what an instance says; anything else is a `Cookie` line.

use burdock::affinity::engine_io::{self, Ask, Heard, Opening};
use burdock::affinity::{Rejection, cache, carriers, cookie, order};
use burdock::config::types::Affinity;
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Uri};

const FIELD: &str = "x-s";
const PARAMETER: &str = "s";

/// Panics where something is lost, left or made up.
pub(crate) fn check(data: &[u8]) {
    let Some((&choices, rest)) = data.split_first() else { return };
    let mut lines = rest.split(|byte| *byte == b'\n');
    let target = lines.next().and_then(|line| Uri::try_from(line).ok());
    let mut target =
        target.as_ref().and_then(in_origin_form).unwrap_or_else(|| Uri::from_static("/"));
    let (mut headers, mut said) = (HeaderMap::new(), Vec::new());
    for line in lines {
        let (name, value) = match line.split_first() {
            Some((b'h', value)) => (Some(FIELD), value),
            Some((b'o', value)) => (None, value),
            _ => (Some(COOKIE.as_str()), line),
        };
        match (name, HeaderValue::from_bytes(value)) {
            (Some(name), Ok(value)) => drop(headers.append(name, value)),
            (None, Ok(value)) => said.push(value),
            (_, Err(_no_field)) => {}
        }
    }
    takes_the_token_and_nothing_else(choices, &mut headers, &mut target);
    reads_engine_io(choices, target.query().unwrap_or_default(), rest);
    leaves_the_answer_whole(&said);
}

/// As a request's target is when carriers are looked for.
fn in_origin_form(target: &Uri) -> Option<Uri> {
    let origin = target.path_and_query().cloned().map(Uri::from)?;
    origin.path().starts_with('/').then_some(origin)
}

type Offer = Result<Vec<Vec<u8>>, Rejection>;

/// Cookies of one name that are looked at.
const MOST: usize = 4;

fn takes_the_token_and_nothing_else(choices: u8, headers: &mut HeaderMap, target: &mut Uri) {
    let mut affinity = Affinity {
        header: (choices & 1 != 0).then(|| FIELD.to_owned()),
        query: (choices & 2 != 0).then(|| PARAMETER.to_owned()),
        cross_site_cookie: choices & 4 != 0,
        pass_cookie: choices & 8 != 0,
        ..Affinity::default()
    };
    if choices & 16 != 0 {
        affinity.cookie.name = "a".to_owned();
    }
    let honoured = usize::from(choices >> 5);
    let expected = Expected::of(&affinity, headers, target);
    let mut offered: Vec<Offer> = Vec::new();
    carriers::take(&affinity, headers, target, true, |_carrier, found| {
        offered.push(found.map(|values| values.iter().map(|it| it.as_bytes().to_vec()).collect()));
        offered.len() > honoured
    });
    assert_eq!(offered, expected.offers[..expected.offers.len().min(honoured + 1)]);
    let left: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(left, expected.cookies);
    assert_eq!(target.to_string(), expected.target);
    assert_eq!(headers.contains_key(FIELD), expected.has_field);
}

/// What a parser of whole lines, written on its own, says must come of a request.
struct Expected {
    offers: Vec<Offer>,
    cookies: Vec<Vec<u8>>,
    target: String,
    has_field: bool,
}

impl Expected {
    fn of(affinity: &Affinity, headers: &HeaderMap, target: &Uri) -> Self {
        let mut offers: Vec<Offer> = Vec::new();
        let lines = |name: &str| -> Vec<Vec<u8>> {
            headers.get_all(name).iter().map(|line| line.as_bytes().to_vec()).collect()
        };
        let field = lines(FIELD);
        if affinity.header.is_some() {
            offers.extend(some_of(&field, 1));
        }
        let (mut told, query) = (target.to_string(), target.query().unwrap_or_default());
        if affinity.query.is_some() {
            let is_ours = |pair: &&str| pair.split_once('=').is_some_and(|it| it.0 == PARAMETER);
            let (ours, kept): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_ours);
            let values: Vec<_> = ours.iter().map(|pair| pair.as_bytes()[2..].to_vec()).collect();
            offers.extend(some_of(&values, 1));
            if !ours.is_empty() {
                let mark = if kept.concat().is_empty() && kept.len() < 2 { "" } else { "?" };
                told = format!("{}{mark}{}", target.path(), kept.join("&"));
            }
        }
        let mut cookies = lines(COOKIE.as_str());
        let paired = affinity.cross_site_cookie.then(|| format!("{}_XS", affinity.cookie.name));
        for name in [Some(affinity.cookie.name.clone()), paired].into_iter().flatten() {
            let (ours, rest) = without(&cookies, &name);
            offers.extend(some_of(&ours, MOST));
            if !affinity.pass_cookie && !ours.is_empty() {
                cookies = rest;
            }
        }
        let has_field = affinity.header.is_none() && !field.is_empty();
        Self { offers, cookies, target: told, has_field }
    }
}

/// Up to `most` values that one carrier holds.
fn some_of(values: &[Vec<u8>], most: usize) -> Option<Offer> {
    match values.len() {
        0 => None,
        count if count <= most => Some(Ok(values.to_vec())),
        _ => Some(Err(Rejection::Duplicated)),
    }
}

/// The values of the cookie `name`, and the lines without it, those that have nothing else left out.
fn without(lines: &[Vec<u8>], name: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let start = [name.as_bytes(), b"="].concat();
    let (mut values, mut rest) = (Vec::new(), Vec::new());
    for line in lines {
        let mut kept: Vec<&[u8]> = Vec::new();
        for pair in line.split(|byte| *byte == b';') {
            match pair.trim_ascii_start().strip_prefix(&start[..]) {
                Some(value) => values.push(value.trim_ascii_end().to_vec()),
                None => kept.push(pair),
            }
        }
        let line = kept.join(&b';');
        if !line.trim_ascii().is_empty() {
            rest.push(line.trim_ascii_start().to_vec());
        }
    }
    (values, rest)
}

/// What is heard of an answer does not depend on the pieces in which it comes.
fn reads_engine_io(choices: u8, query: &str, body: &[u8]) {
    if let Some(Ask::Continues(sid)) = engine_io::ask(query) {
        assert!((1..=128).contains(&sid.len()) && sid.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(query.split('&').any(|pair| pair.strip_prefix("sid=") == Some(sid)));
    }
    let whole = Opening::default().hear(body);
    let mut slow = Opening::default();
    let mut pieces = body.chunks(usize::from(choices % 7) + 1).map(|piece| slow.hear(piece));
    let pieces = pieces.find(|heard| *heard != Heard::Nothing).unwrap_or(Heard::Nothing);
    assert_eq!(whole, pieces);
    if let Heard::Sid(sid) = whole {
        assert!(body.windows(sid.len()).any(|window| window == sid.as_bytes()));
        assert!((1..=128).contains(&sid.len()) && sid.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

/// An instance's own fields, after Burdock has had its say.
fn leaves_the_answer_whole(said: &[HeaderValue]) {
    let mut headers = HeaderMap::new();
    for value in said {
        headers.append(CACHE_CONTROL, value.clone());
        headers.append(SET_COOKIE, value.clone());
        if let Some(order::Order::Rebind(name)) = order::parse(value.as_bytes()) {
            assert!(!name.is_empty() && value.as_bytes().trim_ascii().ends_with(name.as_bytes()));
        }
    }
    cookie::unset(&mut headers, "BURDOCK");
    for line in headers.get_all(SET_COOKIE) {
        let name = line.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        assert!(![&b"BURDOCK"[..], b"BURDOCK_XS"].contains(&name.trim_ascii()));
    }
    cache::guard(&mut headers);
    let once: Vec<HeaderValue> = headers.get_all(CACHE_CONTROL).iter().cloned().collect();
    let told = once.iter().map(|line| String::from_utf8_lossy(line.as_bytes()).to_lowercase());
    assert!(told.into_iter().any(|line| line.contains("private") || line.contains("no-store")));
    cache::guard(&mut headers);
    assert_eq!(once, headers.get_all(CACHE_CONTROL).iter().cloned().collect::<Vec<_>>());
}
