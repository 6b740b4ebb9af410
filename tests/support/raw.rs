//! Exact bytes in, exact bytes out.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;

use super::wire::Conn;
use super::within;

/// Sends `bytes`, keeps the connection open for writing, and returns what comes until the peer
/// closes. Ask for `Connection: close`, or send what ends the connection.
pub async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut conn = open(address, bytes).await;
    within("the peer closes after its answer", conn.read_to_end()).await
}

/// [`exchange`] as text.
pub async fn exchange_text(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(&exchange(address, bytes).await).into_owned()
}

/// A connection on which `bytes` have been sent.
pub async fn open(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Conn {
    let mut conn = Conn::connect(address).await.expect("connect");
    conn.write(bytes.as_ref()).await.expect("write");
    conn
}

/// Like [`exchange`], and closes the sending half after `bytes`.
pub async fn exchange_and_finish(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut conn = open(address, bytes).await;
    conn.stream.shutdown().await.expect("half-close");
    within("the peer closes after its answer", conn.read_to_end()).await
}
