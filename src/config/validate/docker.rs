//! `discovery.docker`: containers by their labels, and the engine that runs them.

use super::keys::absolute;
use super::names::{NAME, is_name};
use crate::config::node::Node;
use crate::config::types::Docker;

const NETWORK: &str = "the name of a network, none";

pub(super) fn docker(node: &Node<'_>) -> Option<Docker> {
    let mut fields = node.fields("docker")?;
    let name =
        |node: &Node<'_>| node.parsed(NAME, |text: &str| is_name(text).then(|| text.to_owned()));
    let service = fields.take("service");
    if service.is_none() {
        fields.missing("service", "the value of the containers' label burdock.service");
    }
    let service = service.and_then(|node| name(&node));
    let version = fields.optional("version", None, name);
    let network = fields.optional("network", None, |node| node.text(NETWORK).map(str::to_owned));
    let socket = match fields.take("socket") {
        Some(node) => node.text("the path of a Unix socket").map(|path| node.sink.resolve(path)),
        None => Some(Docker::SOCKET.into()),
    };
    fields.finish();
    Some(Docker { service: service?, version, network, socket: absolute(socket?) })
}
