//! `admin`: where it listens, who may use it, what it remembers.
//!
//! The token is a secret: no message repeats it.

use std::net::SocketAddr;

use super::keys::absolute;
use crate::config::node::{Fields, Node};
use crate::config::read;
use crate::config::tree::Data;
use crate::config::types::{Admin, Listener, StateFile, Token};

const ADDRESS: &str = "IP:PORT such as 127.0.0.1:9900";
const TOKEN: &str = "one line of 16 to 1024 visible ASCII characters";

pub(super) fn admin(fields: &mut Fields<'_>, listeners: &[Listener]) -> Option<Admin> {
    let default = Admin::at(Admin::DEFAULT_ADDRESS, false);
    let Some(node) = fields.take("admin") else { return Some(default) };
    if node.is_off() {
        return None;
    }
    if !matches!(node.tree.data, Data::Map(_)) {
        return node.wrong("{ address: 127.0.0.1:9900 } or off");
    }
    let mut fields = node.fields("admin")?;
    let address = fields.take("address");
    if address.is_none() {
        fields.missing("address", ADDRESS);
    }
    let token_file = fields.take("token_file").filter(|node| !node.is_off());
    let token = token_file.as_ref().and_then(token);
    let state_file =
        fields.take("state_file").map_or(Some(StateFile::Beside), |it| state_file(&it));
    fields.finish();
    let node = address?;
    let address: SocketAddr = node.parsed(ADDRESS, |text| text.parse().ok())?;
    if !address.ip().is_loopback() && token_file.is_none() {
        node.problem(format_args!(
            "{address} can be reached from elsewhere and there is no `token_file`; \
             allowed: a loopback address such as 127.0.0.1:9900, or a `token_file` beside it"
        ));
    } else if address.port() != 0 && listeners.iter().any(|listener| listener.address == address) {
        node.problem(format_args!("{address} is also a listener; allowed: an address of its own"));
    }
    Some(Admin { address, explicit: true, token, state_file: state_file.unwrap_or_default() })
}

fn token(node: &Node<'_>) -> Option<Token> {
    let path = node.sink.resolve(node.text("the path of a file, or none")?);
    node.sink.watch(&path);
    let shown = path.display();
    let text = match read::text(&path) {
        Ok(text) => text,
        Err(error) => {
            node.problem(format_args!("cannot read {shown}: {error}; needed: {TOKEN}"));
            return None;
        }
    };
    let token = text.trim();
    let is_token =
        (16..=1024).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token {
        node.problem(format_args!("{shown} holds no token; needed: {TOKEN}"));
        return None;
    }
    Some(Token { text: token.to_owned(), file: absolute(path) })
}

fn state_file(node: &Node<'_>) -> Option<StateFile> {
    if node.is_off() {
        return Some(StateFile::Off);
    }
    let path = node.text("the path of a file, default or off")?;
    Some(match path {
        "default" => StateFile::Beside,
        path => StateFile::At(absolute(node.sink.resolve(path))),
    })
}
