//! HTTP/1.1 as clients' server (RFC 9112): one conversation on a connection, moved along by the task of
//! that connection. Nothing here knows what becomes of a request. Read [`conversation`] first.

mod answer;
pub(super) mod conversation;
mod date;
mod head;
#[cfg(test)]
mod tests;
mod wire;

pub(super) use date::now;
