//! What stands at both ends of the proxies that `benches/compare` measures: instances, clients, and
//! a forwarder of bytes that no proxy can be cheaper than. Owns the arguments and how results are
//! told: JSON, one object per line. Requests and frames are laid out by hand and looked at no closer
//! than needed, so that this program costs less than any proxy between its ends.

mod forward;
mod instance;
mod pace;
mod tunnels;
mod wire;

use std::io::Write;
use std::time::Duration;

use anyhow::bail;

const USAGE: &str = "ends instance PORT... | ends forward PORT ADDRESS... \
                     | ends hold tunnels|connections ADDRESS \
                     | ends talk ADDRESS COUNT SIZE SECONDS | ends open ADDRESS COUNT AT_ONCE \
                     | ends pace ADDRESS PATH RATE SECONDS CONNECTIONS";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["pace", to, path, rate, seconds, connections] = arguments[..] {
        let time = Duration::from_secs_f64(seconds.parse()?);
        return pace::pace(to.parse()?, path, rate.parse()?, time, connections.parse()?);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &[&str]) -> anyhow::Result<()> {
    match *arguments {
        ["instance", ref ports @ ..] if !ports.is_empty() => instance::serve_all(ports).await,
        ["forward", port, ref to @ ..] if !to.is_empty() => {
            let to = to.iter().map(|each| each.parse()).collect::<Result<Vec<_>, _>>()?;
            forward::forward(port.parse()?, &to).await
        }
        ["hold", what @ ("tunnels" | "connections"), to] => {
            tunnels::hold(to.parse()?, what == "tunnels").await
        }
        ["talk", to, count, size, seconds] => {
            let time = Duration::from_secs_f64(seconds.parse()?);
            tunnels::talk(to.parse()?, count.parse()?, size.parse()?, time).await
        }
        ["open", to, count, at_once] => {
            tunnels::open(to.parse()?, count.parse()?, at_once.parse()?).await
        }
        _ => bail!(USAGE),
    }
}

fn say(line: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
