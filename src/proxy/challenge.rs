//! What a CA is told that asks by HTTP whether a host is ours (RFC 8555 section 8.3).
//!
//! It comes before everything else that a listener or a service says of requests, and only for what
//! is being proved now: any other request goes the ordinary way.

use http::header::HOST;
use http::{Method, Request, Response};

use crate::instance::body::Incoming;
use crate::proxy::answer::{self, AnswerBody};
use crate::proxy::client::{Came, Client};
use crate::proxy::exchange::Exchange;

/// The proof that `request` asks for, if it does and there is one.
pub fn proof(client: &Client, request: &Request<Option<Incoming>>) -> Option<String> {
    let proof = client.live.automatic.challenges.proof(request.uri().path())?;
    let is_plain = request.method() == Method::GET && request.body().is_none();
    is_plain.then_some(proof)
}

/// Answers with it.
pub fn handle(
    came: Came,
    request: &Request<Option<Incoming>>,
    proof: String,
) -> impl Future<Output = Response<AnswerBody>> + Send + use<> {
    let mut exchange = Exchange::begin(came, request);
    let snapshot = exchange.client.live.snapshot();
    exchange.log_as(&snapshot, Some(request.headers()));
    exchange.host = request.headers().get(HOST).cloned();
    std::future::ready(answer::proof(exchange, proof))
}
