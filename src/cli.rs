//! The command line's shape; what the words do is in `main.rs`.

mod fleet;
mod operate;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::observe::log::Format;

pub use fleet::{Fleet, FleetKeys, Shared};
pub use operate::{Access, Explain, Operate, RampArguments, RampChange, RampLimits, Weight};

/// A sticky load balancer in front of any HTTP backend.
#[derive(Debug, Parser)]
#[command(name = "burdock", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 fine, 1 failed at run time, 2 usage, 3 configuration \
                        rejected, 4 a drill missed its limits, 5 the drain deadline cut something.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Three embedded chat instances with the balancer in front; no file needed.
    Demo(Demo),
    /// Serve.
    Run(Run),
    /// Validate a configuration and print it with every default filled in.
    Check {
        /// The configuration file.
        file: PathBuf,
        /// Say instead what a reload to it would change of the balancer whose admin address this is.
        #[arg(long, value_name = "URL")]
        against: Option<String>,
        /// The file that holds the admin token; else BURDOCK_ADMIN_TOKEN.
        #[arg(long, value_name = "FILE", requires = "against")]
        token_file: Option<PathBuf>,
        /// What a reload would change as JSON.
        #[arg(long, requires = "against")]
        json: bool,
    },
    /// Ask or steer a running balancer.
    #[command(flatten)]
    Operate(Operate),
    /// Print what makes a shell complete this command line.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, or write that of every command into a folder.
    Man {
        /// The folder.
        #[arg(long, value_name = "FOLDER")]
        into: Option<PathBuf>,
    },
    /// Keys of affinity tokens.
    #[command(subcommand)]
    Keys(Keys),
    /// What the balancers of a fleet share, by the etcd that a configuration names.
    #[command(subcommand)]
    Fleet(Fleet),
    /// Rehearse a failure: inject faults, measure what clients notice, hold it against limits.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Drill(Drill),
    /// Let a new process of the program as it is now on disk take over from the one that runs.
    Upgrade {
        /// The file that `run --pid-file` wrote.
        #[arg(long)]
        pid_file: PathBuf,
    },
}

/// `burdock keys`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Keys {
    /// Print a new key, as a line for the file that `affinity_keys` names.
    New,
}

/// How to log.
#[derive(Debug, Clone, Args)]
pub struct Logging {
    /// How log lines look.
    #[arg(long, value_enum, default_value = "pretty")]
    pub log_format: Format,
    /// What is logged: error, warn, info, debug, trace, or RUST_LOG directives.
    #[arg(long, default_value = "info")]
    pub log_level: String,
}

/// `burdock demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Where the balancer listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// What is logged between the console's own lines; there is no access log.
    #[arg(long, default_value = "warn")]
    pub log_level: String,
}

/// `burdock drill`.
#[derive(Debug, Args)]
pub struct Drill {
    /// What to do with reports, instead of making one.
    #[command(subcommand)]
    pub reports: Option<Reports>,
    /// The scenario file; those in config/drills are ready to be run.
    #[arg(required = true)]
    pub scenario: Option<PathBuf>,
    /// Run it with embedded instances and a balancer of its own: the default without --admin.
    #[arg(long, conflicts_with_all = ["admin", "token_file", "load"])]
    pub embedded: bool,
    /// Run it on the running balancer whose admin address this is, and on its real traffic.
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// The file that holds its admin token; else BURDOCK_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE", requires = "admin")]
    pub token_file: Option<PathBuf>,
    /// Let clients ask for this as well, instead of what the scenario says.
    #[arg(long, value_name = "URL", requires = "admin")]
    pub load: Option<String>,
    /// Instead of the scenario's own seed.
    #[arg(long)]
    pub seed: Option<u32>,
    /// Write the report to this file as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write it to this file as a page.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// Let `exec` steps of the scenario run their commands.
    #[arg(long)]
    pub allow_exec: bool,
}

/// `burdock drill compare`.
#[derive(Debug, Subcommand)]
pub enum Reports {
    /// Print what differs between two reports that --json wrote.
    Compare {
        /// The one before.
        a: PathBuf,
        /// The one after.
        b: PathBuf,
    },
}

/// `burdock run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file.
    #[arg(short, long, default_value = "burdock.yaml", conflicts_with = "app_yaml")]
    pub config: PathBuf,
    /// An App Engine app.yaml instead, served by the instances given with --instance.
    #[arg(long, requires = "instance")]
    pub app_yaml: Option<PathBuf>,
    /// An instance, HOST:PORT; may be given several times.
    #[arg(long, requires = "app_yaml")]
    pub instance: Vec<String>,
    /// Listen here instead of at the configured addresses; may be given several times.
    #[arg(long)]
    pub listen: Vec<SocketAddr>,
    /// Serve the admin API here instead of at the configured address; one that is not
    /// loopback needs the file's `admin.token_file`.
    #[arg(long)]
    pub admin: Option<SocketAddr>,
    /// Write the process id to this file as soon as it serves; `upgrade` reads it.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Logging.
    #[command(flatten)]
    pub logging: Logging,
}
