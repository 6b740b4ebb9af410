//! The floor: bytes from one socket to another, on one thread, with no look at them. What a proxy
//! costs above this, it pays for HTTP.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::wire::listen;

thread_local! {
    /// Shared by all connections, so that an idle one holds nothing.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 << 10]);
}

/// Each connection goes to the next address as a whole.
pub(crate) async fn forward(port: u16, to: &[SocketAddr]) -> anyhow::Result<()> {
    let listener = listen(port)?;
    for to in to.iter().cycle().copied() {
        let (client, _) = listener.accept().await?;
        tokio::spawn(async move { drop(join(client, to).await) });
    }
    Ok(())
}

async fn join(mut client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut instance = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    instance.set_nodelay(true)?;
    let (client_reads, client_writes) = client.split();
    let (instance_reads, instance_writes) = instance.split();
    let there = pass(client_reads, instance_writes);
    let back = pass(instance_reads, client_writes);
    tokio::try_join!(there, back).map(drop)
}

async fn pass(from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> std::io::Result<()> {
    loop {
        from.readable().await?;
        let step: std::io::Result<_> = SCRATCH.with_borrow_mut(|scratch| {
            let read = from.try_read(scratch)?;
            let written = match to.try_write(&scratch[..read]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                other => other?,
            };
            Ok((read, scratch[written..read].to_vec()))
        });
        match step {
            Ok((0, _)) => return to.shutdown().await,
            Ok((_, left)) => to.write_all(&left).await?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
