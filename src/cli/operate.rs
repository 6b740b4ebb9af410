//! The commands that ask and steer a running balancer.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where a balancer serves its admin API unless it is told otherwise.
const ADDRESS: &str = "http://127.0.0.1:9900";

/// What to ask, or to steer.
#[derive(Debug, Subcommand)]
pub enum Operate {
    /// One look at a running balancer: services, instances, what is wrong.
    Status {
        /// All balancers of the fleet instead, as the one that is asked knows them.
        #[arg(long)]
        fleet: bool,
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// A live view of a running balancer.
    Top {
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// Keep new sessions from an instance; its own stay until the deadline.
    Drain {
        /// Its id, SERVICE/VERSION/NAME, or as much of the end as makes it one.
        instance: String,
        /// How long its sessions may stay, such as 90s; else the version's `drain.timeout`.
        #[arg(long, value_name = "DURATION")]
        deadline: Option<String>,
        /// Show how it goes until it is over; exit with 5 if the deadline cut something.
        #[arg(long)]
        wait: bool,
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// Let an instance serve again.
    Enable {
        /// Its id, or as much of the end as makes it one.
        instance: String,
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// Cut an instance off: its sessions move at once, its tunnels are closed.
    Disable {
        /// Its id, or as much of the end as makes it one.
        instance: String,
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// Give an instance another share of new sessions.
    Weight {
        /// Its id, or as much of the end as makes it one.
        instance: String,
        /// The weight, or `file` for what the configuration says.
        #[arg(value_parser = weight)]
        weight: Weight,
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// Share a service's requests otherwise among its versions.
    Split {
        /// The service.
        service: String,
        /// VERSION=WEIGHT for each version that is to get any, or `file` for what the configuration says;
        /// nothing shows how it is.
        #[arg(value_name = "VERSION=WEIGHT")]
        weights: Vec<String>,
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// Let the share of a version grow while it does well, and go back when it does not.
    Ramp(RampArguments),
    /// Move tunnels of a version from instances that have too many.
    Rebalance {
        /// SERVICE/VERSION, or as much of the end as makes it one.
        version: String,
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// Have a running balancer read its configuration again, and say what that changed.
    Reload {
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// Say where a request would go, and why.
    Explain(Explain),
    /// What has happened: health, breakers, drains, reloads.
    Events {
        /// Go on with what happens.
        #[arg(short, long)]
        follow: bool,
        /// Only what came after the event of this number.
        #[arg(long, value_name = "ID")]
        since: Option<u64>,
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
    /// Print the configuration that a running balancer has, with every default filled in.
    Config {
        /// Whom to ask.
        #[command(flatten)]
        access: Access,
    },
}

/// `burdock ramp`.
#[derive(Debug, Args)]
pub struct RampArguments {
    /// The service.
    pub service: String,
    /// The version that is to grow; nothing shows how it goes.
    #[arg(requires = "to", requires = "over", conflicts_with = "change")]
    pub version: Option<String>,
    /// How it is to grow, and what ends that.
    #[command(flatten)]
    pub limits: RampLimits,
    /// What becomes of one that is under way.
    #[command(flatten)]
    pub change: RampChange,
    /// Show how it goes until it is over; exit with 1 if it was rolled back or cancelled.
    #[arg(long)]
    pub wait: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub access: Access,
}

/// How a version is to grow, and what ends that.
#[derive(Debug, Args)]
pub struct RampLimits {
    /// The share that it begins with; else what it has, or 1%.
    #[arg(long, value_name = "SHARE", requires = "version")]
    pub from: Option<String>,
    /// The share that it ends with, such as 50%.
    #[arg(long, value_name = "SHARE", requires = "version")]
    pub to: Option<String>,
    /// How long that takes at the least, such as 30m.
    #[arg(long, value_name = "DURATION", requires = "version")]
    pub over: Option<String>,
    /// Stay where it is while so many more of its answers are errors than of the others'; `off` never. 2% by default.
    #[arg(long, value_name = "SHARE", requires = "version")]
    pub hold_on_errors: Option<String>,
    /// Go back to the shares before when so many are; `off` never. 5% by default.
    #[arg(long, value_name = "SHARE", requires = "version")]
    pub roll_back_on_errors: Option<String>,
    /// Stay where it is while its answers take so long: 1.5x the others', or 800ms. Off by default.
    #[arg(long, value_name = "LATENCY", requires = "version")]
    pub hold_on_latency: Option<String>,
    /// Go back to the shares before when they take so long. Off by default.
    #[arg(long, value_name = "LATENCY", requires = "version")]
    pub roll_back_on_latency: Option<String>,
    /// Which latency: so many of all are not longer. 95% by default.
    #[arg(long, value_name = "SHARE", requires = "version")]
    pub latency_quantile: Option<String>,
    /// Judge by no fewer requests. 100 by default.
    #[arg(long, value_name = "NUMBER", requires = "version")]
    pub min_requests: Option<u64>,
}

/// What becomes of a ramp that is under way.
#[derive(Debug, Args)]
#[group(id = "change", multiple = false)]
pub struct RampChange {
    /// Keep it where it is.
    #[arg(long)]
    pub pause: bool,
    /// Let it go on.
    #[arg(long)]
    pub resume: bool,
    /// End it, and keep the share that it has come to.
    #[arg(long)]
    pub cancel: bool,
    /// End it, and go back to the shares before; also of one that is over.
    #[arg(long)]
    pub roll_back: bool,
}

impl RampChange {
    /// As the API has it.
    pub const fn word(&self) -> Option<&'static str> {
        match self {
            Self { pause: true, .. } => Some("paused"),
            Self { resume: true, .. } => Some("running"),
            Self { cancel: true, .. } => Some("cancelled"),
            Self { roll_back: true, .. } => Some("rolled_back"),
            Self { .. } => None,
        }
    }
}

/// Where a running balancer is asked.
#[derive(Debug, Clone, Args)]
pub struct Access {
    /// Its admin address.
    #[arg(long, value_name = "URL", env = "BURDOCK_ADMIN", default_value = ADDRESS)]
    pub admin: String,
    /// The file that holds the admin token; else BURDOCK_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// What it answers as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `burdock explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The URL of the request; else the root of the first listener.
    #[arg(long)]
    pub url: Option<String>,
    /// Its method.
    #[arg(long, default_value = "GET")]
    pub method: String,
    /// The value of its Cookie field, or an affinity token alone.
    #[arg(long, value_name = "VALUE")]
    pub cookie: Option<String>,
    /// The address that it comes from.
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// Another field, NAME:VALUE; may be given several times.
    #[arg(long, value_name = "FIELD")]
    pub header: Vec<String>,
    /// Whom to ask.
    #[command(flatten)]
    pub access: Access,
}

/// A share of new sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// What the configuration says.
    File,
    /// This.
    Number(u32),
}

fn weight(text: &str) -> Result<Weight, String> {
    match (text, text.parse()) {
        ("file", _) => Ok(Weight::File),
        (_, Ok(number)) => Ok(Weight::Number(number)),
        (_, Err(_)) => Err("needed: a whole number, or `file`".to_owned()),
    }
}
