//! The commands that ask and steer a running balancer.
//!
//! They know of it what the admin API's JSON says, and nothing of its insides: what they can do, a script
//! can do with curl. Read [`run`] first; [`client`] asks, [`show`] tells.

pub mod client;
mod drain;
mod events;
mod fleet;
pub mod manual;
mod ramp;
pub mod shapes;
pub mod show;
mod split;
pub mod sse;
mod steer;
pub mod table;
pub mod words;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::{Access, Explain, Operate};
use client::{Client, ClientError, escaped};
use shapes::{Effective, Explanation, Plan, Status};
use table::{Paper, Tone};

/// Failed at run time.
const FAILED: u8 = 1;
/// A configuration was rejected.
const REJECTED: u8 = 3;

/// Does what `command` says; `top` has a room of its own.
pub async fn run(command: Operate) -> ExitCode {
    let done = match command {
        Operate::Status { fleet: false, access } => status(&access).await,
        Operate::Status { fleet: true, access } => fleet::status(&access).await,
        Operate::Drain { instance, deadline, wait, access } => {
            drain::run(&access, &instance, deadline.as_deref(), wait).await
        }
        Operate::Enable { instance, access } => steer::state(&access, &instance, "active").await,
        Operate::Disable { instance, access } => steer::state(&access, &instance, "disabled").await,
        Operate::Weight { instance, weight, access } => {
            steer::weight(&access, &instance, weight).await
        }
        Operate::Split { service, weights, access } => {
            split::run(&access, &service, &weights).await
        }
        Operate::Ramp(asked) => ramp::run(&asked).await,
        Operate::Rebalance { version, access } => steer::rebalance(&access, &version).await,
        Operate::Reload { access } => steer::reload(&access).await,
        Operate::Explain(explain) => self::explain(&explain).await,
        Operate::Events { follow, since, access } => events::run(&access, follow, since).await,
        Operate::Config { access } => config(&access).await,
        // Without a terminal of its own it is one look.
        Operate::Top { access } => status(&access).await,
    };
    done.unwrap_or_else(|error| failed(&error))
}

/// What a reload to this file would change.
pub async fn check(file: &Path, access: &Access) -> ExitCode {
    let done = async {
        let text = std::fs::read_to_string(file);
        let refused = |error| ClientError::Refused(format!("reading {}: {error}", file.display()));
        // What is relative in it begins at its folder, wherever the balancer runs.
        let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let body = json!({ "file": whole, "text": text.map_err(refused)? });
        let client = client_of(access)?;
        let answer = client.send(http::Method::POST, "/api/v1/check", &body).await?;
        print(access, &answer, |value| Ok(show::plan(&client.read::<Plan>(value)?, paper())))
    };
    done.await.unwrap_or_else(|error| failed(&error))
}

async fn status(access: &Access) -> Result<ExitCode, ClientError> {
    let client = client_of(access)?;
    let answer = client.get("/api/v1/status").await?;
    print(access, &answer, |value| Ok(show::status(&client.read::<Status>(value)?, paper())))
}

async fn explain(asked: &Explain) -> Result<ExitCode, ClientError> {
    let client = client_of(&asked.access)?;
    let url = match &asked.url {
        Some(url) => url.clone(),
        None => {
            let status = client.get("/api/v1/status?instances=false").await?;
            let status: Status = client.read(status)?;
            let listener = status.listeners.first().cloned().unwrap_or_default();
            let scheme = if listener.tls { "https" } else { "http" };
            format!("{scheme}://{}/", listener.address)
        }
    };
    let mut query = format!("url={}&method={}", escaped(&url), escaped(&asked.method));
    let mut add = |name: &str, value: &str| query.push_str(&format!("&{name}={}", escaped(value)));
    if let Some(cookie) = &asked.cookie {
        add("cookie", cookie);
    }
    if let Some(address) = asked.client {
        add("client", &address.to_string());
    }
    asked.header.iter().for_each(|line| add("header", line));
    let answer = client.get(&format!("/api/v1/explain?{query}")).await?;
    print(&asked.access, &answer, |value| {
        Ok(show::explanation(&client.read::<Explanation>(value)?, paper()))
    })
}

async fn config(access: &Access) -> Result<ExitCode, ClientError> {
    let client = client_of(access)?;
    let answer = client.get("/api/v1/config").await?;
    if !access.json {
        let shown: Effective = client.read(answer.clone())?;
        for difference in &shown.differences {
            eprintln!("not as the file says: {}", show::difference(difference));
        }
    }
    print(access, &answer, |value| Ok(client.read::<Effective>(value)?.effective))
}

fn client_of(access: &Access) -> Result<Client, ClientError> {
    Client::new(&access.admin, access.token_file.as_deref())
}

/// Prints an answer: as it is for scripts, else as `text` puts it.
fn print(
    access: &Access,
    answer: &Value,
    text: impl FnOnce(Value) -> Result<String, ClientError>,
) -> Result<ExitCode, ClientError> {
    let text = if access.json { format!("{answer:#}\n") } else { text(answer.clone())? };
    say(&text);
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output; whether somebody still reads it.
fn say(text: &str) -> bool {
    let mut out = io::stdout().lock();
    // Who closes a pipe has seen enough.
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// What standard output is.
pub fn paper() -> Paper {
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let is_terminal = io::stdout().is_terminal();
    let seen = || ratatui::crossterm::terminal::size().ok().map(|(columns, _)| columns.into());
    let width = if is_terminal { columns.or_else(seen) } else { columns };
    Paper { colour: is_terminal && shows_colour(), width }
}

/// <https://no-color.org>, and terminals that can't.
fn shows_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Says what went wrong.
fn failed(error: &ClientError) -> ExitCode {
    if let ClientError::Rejected(problems) = error {
        // As `check` and `run` print them.
        problems.iter().for_each(|problem| eprintln!("{}", table::safe(problem)));
    } else {
        let colour = io::stderr().is_terminal() && shows_colour();
        let name = Paper { colour, width: None }.paint("burdock:", Tone::Bad);
        eprintln!("{name} {}", table::safe(&error.to_string()));
    }
    ExitCode::from(if error.is_rejection() { REJECTED } else { FAILED })
}
