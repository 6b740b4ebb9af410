//! Instances that are found: in files, by the DNS, in an etcd, a Kubernetes, a Docker engine.

#[path = "../support/mod.rs"]
mod support;

mod common;
mod docker;
mod etcd;
mod etcd_client;
mod file_and_dns;
mod kubernetes;
