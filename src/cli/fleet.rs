//! The commands on what the balancers of a fleet share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::config;

/// `burdock fleet`.
#[derive(Debug, Subcommand)]
pub enum Fleet {
    /// Print what is shared of the configuration, where balancers have `fleet.config`.
    Show {
        /// Which fleet.
        #[command(flatten)]
        shared: Shared,
    },
    /// Say what a file would change of it.
    Diff {
        /// The file: services and what else is no balancer's own.
        file: PathBuf,
        /// Which fleet.
        #[command(flatten)]
        shared: Shared,
    },
    /// Put a file in its place, if it makes sense.
    Push {
        /// The file: services and what else is no balancer's own.
        file: PathBuf,
        /// Which fleet.
        #[command(flatten)]
        shared: Shared,
    },
    /// The affinity keys of a fleet whose balancers have `fleet.keyring`.
    #[command(subcommand)]
    Keys(FleetKeys),
}

/// `burdock fleet keys`.
#[derive(Debug, Subcommand)]
pub enum FleetKeys {
    /// Print by what each key is known; the keys themselves are never shown.
    Show {
        /// Which fleet.
        #[command(flatten)]
        shared: Shared,
    },
    /// Put the keys of a file in their place: tokens that none of them opens count no more.
    Push {
        /// A file as `affinity_keys` names it, the key that seals first.
        file: PathBuf,
        /// Which fleet.
        #[command(flatten)]
        shared: Shared,
    },
    /// Let a new key seal, once every balancer opens what it seals.
    Rotate {
        /// So many of the keys before it go on to open, 0 to 31.
        #[arg(long, default_value = "2", value_parser = clap::value_parser!(u8).range(0..=31))]
        keep: u8,
        /// So long it waits for every balancer; then nothing has changed.
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        wait: Duration,
        /// Which fleet.
        #[command(flatten)]
        shared: Shared,
    },
}

/// Which fleet is meant.
#[derive(Debug, Args)]
pub struct Shared {
    /// The configuration of one of its balancers, which names the etcd.
    #[arg(short, long, value_name = "FILE", default_value = "burdock.yaml")]
    pub config: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| "needed: a duration, such as 30s".to_owned())
}
