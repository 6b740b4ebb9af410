//! The terminal side of `burdock demo`: keys that kill and restore instances, and what to try from
//! another terminal. It must not know the balancer; it owns the instances while it runs.
//!
//! Start at [`console`].

use std::future::Future;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::thread;

use tokio::sync::mpsc;

use super::Instance;

/// Lines typed ahead of the console; more wait in the terminal.
const LINES_AHEAD: usize = 16;

/// Runs until `q` is typed or `stop` completes, and gives back what is still running, so that the
/// balancer can finish with it. `url` is where the balancer serves the page. Where standard input
/// is not a terminal nothing is read from it.
///
/// Cancel safety: dropping the future drops, and so stops, the instances.
pub async fn console(
    instances: Vec<Instance>,
    url: &str,
    stop: impl Future<Output = ()>,
) -> Vec<Instance> {
    let mut stage = Stage::new(instances, url, io::stdout());
    let lines = if io::stdin().is_terminal() { terminal_lines() } else { None };
    let interactive = lines.is_some();
    stage.introduce(interactive);
    tokio::select! {
        () = stop => {}
        () = stage.follow(lines) => {}
    }
    stage.places.into_iter().filter_map(|place| place.running).collect()
}

/// Lines from the terminal. The thread is not tokio's, since a runtime waits at its end for
/// blocking reads and this one would last until somebody presses Enter.
fn terminal_lines() -> Option<mpsc::Receiver<String>> {
    let (typed, lines) = mpsc::channel(LINES_AHEAD);
    let reader = thread::Builder::new().name("demo-console".to_owned());
    let reading = reader.spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if typed.blocking_send(line).is_err() {
                return;
            }
        }
    });
    reading.ok().map(|_| lines)
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Toggle(usize),
    Quit,
    Help,
    Nothing,
    Unknown,
}

/// Reads one line; instances are numbered from 1.
fn parse(line: &str, instances: usize) -> Command {
    match line.trim() {
        "" => Command::Nothing,
        "q" | "quit" | "exit" => Command::Quit,
        "?" | "h" | "help" => Command::Help,
        number => match number.parse::<usize>() {
            Ok(n) if (1..=instances).contains(&n) => Command::Toggle(n - 1),
            _ => Command::Unknown,
        },
    }
}

/// A place for an instance: it keeps its name and its port while nobody is in it.
struct Place {
    name: String,
    address: SocketAddr,
    running: Option<Instance>,
}

struct Stage<W> {
    places: Vec<Place>,
    url: String,
    out: W,
}

impl<W: Write> Stage<W> {
    fn new(instances: Vec<Instance>, url: &str, out: W) -> Self {
        let places = instances
            .into_iter()
            .map(|instance| Place {
                name: instance.name().to_owned(),
                address: instance.address(),
                running: Some(instance),
            })
            .collect();
        Self { places, url: url.trim_end_matches('/').to_owned(), out }
    }

    /// Obeys each line. Without lines, or when they end, it waits for ever: who closes the
    /// terminal's input has not asked for the end of the demo.
    async fn follow(&mut self, lines: Option<mpsc::Receiver<String>>) {
        if let Some(mut lines) = lines {
            while let Some(line) = lines.recv().await {
                match parse(&line, self.places.len()) {
                    Command::Toggle(index) => self.toggle(index).await,
                    Command::Quit => return,
                    Command::Help => self.introduce(true),
                    Command::Nothing => {}
                    Command::Unknown => {
                        let last = self.places.len();
                        self.say(&format!("  1 to {last} kills or restores, ? helps, q quits"));
                    }
                }
            }
        }
        std::future::pending().await
    }

    /// Kills the instance, or starts it anew on the port it had.
    async fn toggle(&mut self, index: usize) {
        let place = &mut self.places[index];
        let (name, address) = (place.name.clone(), place.address);
        let said = if let Some(instance) = place.running.take() {
            instance.kill().await;
            format!(
                "  {name} is dead: its connections were reset, its sessions are forgotten\n    \
                 curl http://{address}/whoami   # refused\n    \
                 curl -b jar -c jar {}/whoami   # answered all the same, by another\n  \
                 {} brings it back",
                self.url,
                index + 1
            )
        } else {
            match Instance::start(&name, address).await {
                Ok(instance) => {
                    place.running = Some(instance);
                    format!(
                        "  {name} is back on its old port, and remembers nothing\n    \
                         curl http://{address}/whoami"
                    )
                }
                Err(error) => {
                    format!("  could not bring {name} back on {address}: {error}; try again")
                }
            }
        };
        self.say(&said);
    }

    fn introduce(&mut self, interactive: bool) {
        let mut text = format!("\n  The page          {}/\n\n", self.url);
        for (index, place) in self.places.iter().enumerate() {
            let state = if place.running.is_some() { "running" } else { "dead" };
            let (name, address) = (&place.name, place.address);
            text += &format!("  {}  {name:<12}   http://{address}  {state}\n", index + 1);
        }
        text += &format!(
            "\n  From another terminal: the first sticks to one instance, the second doesn't\n    \
             curl -b jar -c jar {0}/whoami\n    \
             curl {0}/whoami\n",
            self.url
        );
        if interactive {
            text += "\n  A number and Enter kills that instance or restores it; q quits, ? helps\n";
        } else {
            text += "\n  Ctrl-C or SIGTERM ends it; from a terminal it also takes commands\n";
        }
        self.say(&text);
    }

    /// Nobody may be left to read it, which is no reason to stop.
    fn say(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_commands() {
        for (line, command) in [
            ("1", Command::Toggle(0)),
            (" 3 ", Command::Toggle(2)),
            ("4", Command::Unknown),
            ("0", Command::Unknown),
            ("-1", Command::Unknown),
            ("q", Command::Quit),
            ("?", Command::Help),
            ("", Command::Nothing),
            ("99999999999999999999999", Command::Unknown),
        ] {
            assert_eq!(parse(line, 3), command, "{line:?}");
        }
    }

    #[tokio::test]
    async fn number_kills_and_restores_on_the_same_port() {
        let instance = Instance::start("aster", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = instance.address();
        let mut stage = Stage::new(vec![instance], "http://127.0.0.1:1/", Vec::new());
        stage.toggle(0).await;
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
        stage.toggle(0).await;
        assert!(tokio::net::TcpStream::connect(address).await.is_ok());
        let said = String::from_utf8(stage.out).unwrap();
        assert!(said.contains("aster is dead") && said.contains("aster is back"), "{said}");
        assert!(said.contains("http://127.0.0.1:1/whoami"), "{said}");
    }

    #[tokio::test]
    async fn closed_input_ends_nothing_and_q_does() {
        let (typed, lines) = mpsc::channel(1);
        let mut stage = Stage::new(Vec::new(), "http://127.0.0.1:1", Vec::new());
        typed.send("q".to_owned()).await.unwrap();
        stage.follow(Some(lines)).await;
        for lines in [None, Some(mpsc::channel(1).1)] {
            let mut following = std::pin::pin!(stage.follow(lines));
            let poll = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(following.as_mut().poll(cx).is_pending())
            });
            assert!(poll.await, "a console without input must go on");
        }
    }
}
