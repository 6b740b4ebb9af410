//! Clients that ask one thing at a time: cookie-jar sessions, visitors, downloads and uploads.

use bytes::Bytes;
use http::{Method, Request, StatusCode};

use super::browser::{Answer, Browser};
use super::{Client, Flaw, Kind, Trouble};
use crate::drill::wire;

/// Asks until the end.
pub(super) async fn run(mut client: Client) {
    let mut browser = Browser::new(&client.common);
    let mut number = 0_u64;
    while let Some(due) = client.next().await {
        number += 1;
        if client.kind == Kind::Visitor {
            browser = Browser::new(&client.common);
            client.forget();
        }
        let outcome = match client.kind {
            Kind::Download => download(&client, &mut browser, number).await,
            Kind::Upload => upload(&client, &mut browser, number).await,
            _ => session(&client, &mut browser, number).await,
        };
        let trouble = match outcome {
            Ok(Checked { answer, flaw }) => {
                if let Some(flaw) = flaw {
                    client.flaw(flaw);
                }
                match &answer.instance {
                    // Somebody else's instances need not name themselves, and may redirect.
                    name if client.common.path.is_some() && answer.status.as_u16() < 400 => {
                        if let Some(name) = name {
                            client.answered_by(name);
                        }
                        None
                    }
                    // Answers of the balancer itself name nobody.
                    Some(name) if answer.status == StatusCode::OK => {
                        client.answered_by(name);
                        None
                    }
                    _ => Some(Trouble::Status(answer.status.as_u16())),
                }
            }
            Err(trouble) => Some(trouble),
        };
        client.note(due, trouble);
    }
}

/// An answer, and what is wrong with it though it looks right.
struct Checked {
    answer: Answer,
    flaw: Option<Flaw>,
}

fn request(client: &Client, method: Method, path: &str, number: u64) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    request.header(wire::CLIENT, client.number).header(wire::NUMBER, number)
}

/// The builders here are given nothing that a request can't hold.
fn with_body(builder: http::request::Builder, body: Bytes) -> Request<Bytes> {
    builder.body(body).unwrap_or_default()
}

/// The answer repeats what was asked.
async fn session(client: &Client, browser: &mut Browser, number: u64) -> Result<Checked, Trouble> {
    if let Some(path) = &client.common.path {
        let asked = request(client, Method::GET, path, number);
        let asked = asked.header(wire::MARK, &client.common.mark);
        let answer = browser.ask(with_body(asked, Bytes::new())).await?;
        return Ok(Checked { answer, flaw: None });
    }
    let asked = request(client, Method::GET, wire::SESSION, number);
    let answer = browser.ask(with_body(asked, Bytes::new())).await?;
    let wanted = format!("{} {number} ", client.number);
    let is_right = answer.status != StatusCode::OK || answer.body.starts_with(wanted.as_bytes());
    Ok(Checked { answer, flaw: (!is_right).then_some(Flaw::Wrong) })
}

/// Every byte is the one that belongs there, and none is missing.
async fn download(client: &Client, browser: &mut Browser, number: u64) -> Result<Checked, Trouble> {
    let size = client.crowd.size;
    let path = format!("{}?size={size}", wire::DOWNLOAD);
    let asked = with_body(request(client, Method::GET, &path, number), Bytes::new());
    let (mut length, mut is_right) = (0_u64, true);
    let answer = browser.ask_for(asked, |data| {
        is_right &= data.iter().zip(length..).all(|(byte, at)| *byte == wire::byte(at));
        length += data.len() as u64;
    });
    let answer = answer.await?;
    let flaw = match answer.status {
        StatusCode::OK if !is_right => Some(Flaw::Wrong),
        StatusCode::OK if length < size => Some(Flaw::Lost),
        StatusCode::OK if length > size => Some(Flaw::Duplicated),
        _ => None,
    };
    Ok(Checked { answer, flaw })
}

/// The answer says what came.
async fn upload(client: &Client, browser: &mut Browser, number: u64) -> Result<Checked, Trouble> {
    let body = wire::pattern(number, usize::try_from(client.crowd.size).unwrap_or_default());
    let (length, sum) = (body.len(), crc32fast::hash(&body));
    let asked = request(client, Method::POST, wire::UPLOAD, number);
    let answer = browser.ask(with_body(asked, body)).await?;
    let wanted = format!("{} {number} {length} {sum:08x}", client.number);
    let is_right = answer.status != StatusCode::OK || answer.body == wanted.as_bytes();
    Ok(Checked { answer, flaw: (!is_right).then_some(Flaw::Wrong) })
}
