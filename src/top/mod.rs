//! `burdock top`: a running balancer, live, on a terminal of 80 by 24 or more.
//!
//! `state` is all that is shown, `keys` what a key makes of it, `draw` its picture: three pure parts.
//! `feed` brings news from the admin API. Read [`run`] first.

mod draw;
mod feed;
mod keys;
mod state;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc as blocking;
use std::time::Duration;

use anyhow::{Context, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Access;
use crate::operate::client::Client;
use keys::Effect;
use state::{News, State};

/// Between two looks at whether a key was pressed, for the thread that waits for one.
const KEY_LOOK: Duration = Duration::from_millis(200);

/// Shows it until somebody has seen enough.
pub async fn run(access: &Access) -> anyhow::Result<ExitCode> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!(
            "top needs a terminal; `burdock status` prints one look, `burdock events -f` goes on"
        );
    }
    let client = Client::new(&access.admin, access.token_file.as_deref())?;
    // What can't be asked at all is told before the screen is cleared.
    let first = client.read(client.get(feed::STATUS).await?)?;
    let mut state = State::new(client.address());
    state.hear(News::Status(Box::new(first)));
    let mut screen = Screen::open().context("taking over the terminal")?;
    let shown = show(&mut screen, &mut state, &client).await;
    shown.map(|()| ExitCode::SUCCESS)
}

async fn show(screen: &mut Screen, state: &mut State, client: &Client) -> anyhow::Result<()> {
    let (sender, mut news) = mpsc::channel(256);
    feed::begin(client, &sender);
    let (_stop, stopped) = blocking::channel::<()>();
    let (typed, mut keys) = mpsc::channel(64);
    std::thread::spawn(move || listen(&typed, &stopped));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        screen.0.draw(|frame| draw::draw(frame, state))?;
        let effect = tokio::select! {
            Some(heard) = news.recv() => {
                state.hear(heard);
                None
            }
            input = keys.recv() => match input {
                Some(Input::Key(key)) if key.kind != KeyEventKind::Release => state.key(key),
                Some(_) => None,
                None => Some(Effect::Quit),
            },
            _ = terminate.recv() => Some(Effect::Quit),
            _ = hangup.recv() => Some(Effect::Quit),
            _ = interrupt.recv() => Some(Effect::Quit),
        };
        match effect {
            Some(Effect::Quit) => return Ok(()),
            Some(Effect::Steer(id, wanted)) => feed::steer(client, &sender, id, wanted),
            None => {}
        }
    }
}

/// Sends what is typed until nobody wants it.
fn listen(typed: &mpsc::Sender<Input>, stopped: &blocking::Receiver<()>) {
    while stopped.try_recv() == Err(blocking::TryRecvError::Empty) {
        match event::poll(KEY_LOOK) {
            Ok(false) => {}
            Ok(true) => {
                let Ok(input) = event::read() else { return };
                if typed.blocking_send(input).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// The terminal while it is taken over; given back when dropped, and by a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| ratatui::restore())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
