//! TLS: what is needed to speak it, made from what the configuration holds.
//!
//! Towards clients: [`server`] builds what a listener's handshakes go by, [`names`] knows which
//! certificate is for which host, [`automatic`] those that Burdock gets for itself, [`challenges`] what
//! their CA is shown, [`tickets`] seals sessions for later, [`stream`] is a connection
//! after its handshake, [`session`] what is known of it. Towards instances: [`client`]. Reads no file.

pub mod automatic;
pub mod challenges;
pub mod client;
pub mod names;
pub mod server;
pub mod session;
pub mod stream;
pub mod tickets;
