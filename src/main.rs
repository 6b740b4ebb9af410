//! Arguments lead to a command, a command to an exit code.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use burdock::cli::{
    Access, Cli, Command, Demo, Drill, Fleet, FleetKeys, Keys, Operate, Reports, Run,
};
use burdock::config::Loaded;
use burdock::config::overrides::Overrides;
use burdock::drill::{self, DrillError, Verdict};
use burdock::observe::{access, log, sink};
use burdock::run::{Ended, FleetConfigError, FleetKeysError, Server, Settings, Source, StartError};
use burdock::{config, demo, operate, run, top};
use clap::Parser;

/// Failed at run time.
const FAILED: u8 = 1;
/// The configuration was rejected; nothing was bound.
const REJECTED: u8 = 3;
/// A drill missed its limits.
const MISSED: u8 = 4;
/// The drain deadline passed, or a second signal came, and something was cut.
const CUT: u8 = 5;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(demo) => block_on(show(demo)),
        Command::Run(run) => block_on(serve(run)),
        Command::Check { file, against: None, .. } => Ok(check(&file)),
        Command::Check { file, against: Some(admin), token_file, json } => {
            let access = Access { admin, token_file, json };
            block_on(async { Ok(operate::check(&file, &access).await) })
        }
        Command::Keys(Keys::New) => new_key(),
        Command::Fleet(command) => block_on(fleet_config(command)),
        Command::Drill(drill) => rehearse(drill),
        Command::Upgrade { pid_file } => upgrade(&pid_file),
        Command::Completions { shell } => Ok(operate::manual::completions(shell)),
        Command::Man { into } => operate::manual::man(into.as_deref()),
        Command::Operate(Operate::Top { access }) => block_on(top::run(&access)),
        Command::Operate(command) => block_on(async { Ok(operate::run(command).await) }),
    };
    access::flush();
    sink::sink().flush();
    result.unwrap_or_else(|error| {
        eprintln!("burdock: {error:#}");
        ExitCode::from(FAILED)
    })
}

/// The control side (signals, checks, admin) runs here; traffic has threads of its own.
fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the runtime")?.block_on(work)
}

async fn serve(run: Run) -> anyhow::Result<ExitCode> {
    log::start(run.logging.log_format, &run.logging.log_level);
    let source = match run.app_yaml {
        Some(path) => Source::AppYaml { path, instances: run.instance },
        None => Source::File(run.config),
    };
    let Run { listen, admin, pid_file, .. } = run;
    let overrides = Overrides { listen, admin };
    let settings = Settings { source, overrides, pid_file };
    match run::run(settings).await {
        Ok(Ended::Clean) => Ok(ExitCode::SUCCESS),
        Ok(Ended::Cut) => Ok(ExitCode::from(CUT)),
        Err(StartError::Config(errors)) => {
            eprintln!("{errors}");
            Ok(ExitCode::from(REJECTED))
        }
        Err(error) => Err(error.into()),
    }
}

fn check(file: &Path) -> ExitCode {
    let known = |loaded: Loaded| run::look_up(&loaded).map(|()| loaded);
    match config::load(file).and_then(known) {
        Ok(loaded) => {
            for note in loaded.notes.iter().chain(&loaded.warnings) {
                eprintln!("{note}");
            }
            print!("{}", config::effective(&loaded.config));
            ExitCode::SUCCESS
        }
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::from(REJECTED)
        }
    }
}

fn new_key() -> anyhow::Result<ExitCode> {
    println!("{}", run::new_key()?);
    Ok(ExitCode::SUCCESS)
}

async fn fleet_keys(command: FleetKeys) -> anyhow::Result<ExitCode> {
    let ids = match &command {
        FleetKeys::Show { shared } => run::fleet_keys(&shared.config).await,
        FleetKeys::Push { file, shared } => run::push_fleet_keys(&shared.config, file).await,
        FleetKeys::Rotate { keep, wait, shared } => {
            run::rotate_fleet_keys(&shared.config, *keep, *wait).await
        }
    };
    match ids {
        Ok(ids) => {
            for (place, id) in ids.iter().enumerate() {
                println!("{id} {}", if place == 0 { "seals and opens" } else { "opens" });
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(FleetKeysError::Config(errors)) => {
            eprintln!("{errors}");
            Ok(ExitCode::from(REJECTED))
        }
        Err(error) => Err(error.into()),
    }
}

async fn fleet_config(command: Fleet) -> anyhow::Result<ExitCode> {
    let done = match command {
        Fleet::Show { shared } => run::show_fleet_config(&shared.config).await.map(|text| {
            print!("{text}");
        }),
        Fleet::Diff { file, shared } => {
            run::diff_fleet_config(&shared.config, &file).await.map(|changes| {
                changes.iter().for_each(|change| println!("{change}"));
            })
        }
        Fleet::Push { file, shared } => {
            run::push_fleet_config(&shared.config, &file).await.map(|warnings| {
                warnings.iter().for_each(|warning| eprintln!("{warning}"));
            })
        }
        Fleet::Keys(command) => return fleet_keys(command).await,
    };
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(FleetConfigError::Config(errors)) => {
            eprintln!("{errors}");
            Ok(ExitCode::from(REJECTED))
        }
        Err(error) => Err(error.into()),
    }
}

fn upgrade(pid_file: &Path) -> anyhow::Result<ExitCode> {
    let (before, now) = run::upgrade(pid_file)?;
    println!("process {now} has taken over from {before}");
    Ok(ExitCode::SUCCESS)
}

fn rehearse(drill: Drill) -> anyhow::Result<ExitCode> {
    let Drill { reports, scenario, seed, json, html, allow_exec, .. } = drill;
    let (admin, token_file, load) = (drill.admin, drill.token_file, drill.load);
    let running = admin.map(|admin| drill::On { admin, token_file, load });
    let verdict = match (reports, scenario) {
        (Some(Reports::Compare { a, b }), _) => drill::compare(&a, &b),
        (None, scenario) => {
            let scenario = scenario.context("a scenario file is needed")?;
            let options = drill::Options { scenario, seed, json, html, allow_exec, running };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("starting the runtime")?;
            runtime.block_on(drill::run(&options, run::asked_to_stop()))
        }
    };
    match verdict {
        Ok(Verdict::Passed) => Ok(ExitCode::SUCCESS),
        Ok(Verdict::Missed) => Ok(ExitCode::from(MISSED)),
        Err(DrillError::Scenario(errors)) => {
            eprintln!("{errors}");
            Ok(ExitCode::from(REJECTED))
        }
        Err(error) => Err(error.into()),
    }
}

async fn show(options: Demo) -> anyhow::Result<ExitCode> {
    log::start(log::Format::Pretty, &options.log_level);
    let mut instances = Vec::new();
    for name in demo::NAMES {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let instance = demo::Instance::start(name, address).await;
        instances.push(instance.with_context(|| format!("starting the instance {name}"))?);
    }
    let loaded = demo::config(&instances, options.listen)?;
    let server = Server::start(loaded, None).await;
    let mut server = server.context("starting the balancer; --listen takes another address")?;
    let address = server.addresses().first().copied().unwrap_or(options.listen);
    let url = format!("http://{address}/");
    let console = demo::console(instances, &url, run::asked_to_stop());
    let running = server.obey_until(console).await;
    server.drain(run::asked_to_stop()).await;
    drop(running);
    Ok(ExitCode::SUCCESS)
}
