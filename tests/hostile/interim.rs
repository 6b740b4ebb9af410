//! When interim answers arrive, which the corpus cannot say: at once, and never within another answer.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::strict::{self, Read};
use crate::support::{self, Burdock, pause, within};

const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn listen() -> (TcpListener, Burdock) {
    listen_with("").await
}

async fn listen_with(settings: &str) -> (TcpListener, Burdock) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let config = format!("{}instances: [{address}]\nbreaker: off\n{settings}", support::HEADER);
    (listener, Burdock::start(&config).await)
}

async fn take_request(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    while !matches!(strict::request(&bytes), Read::Whole(..)) {
        assert!(stream.read_buf(&mut bytes).await.expect("a request") > 0);
    }
}

struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    async fn ask(burdock: &Burdock, requests: usize) -> Self {
        let mut stream = TcpStream::connect(burdock.address()).await.expect("connect");
        let text = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(requests);
        stream.write_all(text.as_bytes()).await.expect("write");
        Self { stream, bytes: Vec::new() }
    }

    /// The status of the next message and the size of its body.
    async fn answer(&mut self, most: usize) -> (u16, usize) {
        loop {
            // To read a part of a large body again with each piece of it would take for ever.
            if self.bytes.len() >= most || self.bytes.len() < 4096 {
                match strict::response(&self.bytes, "GET", false) {
                    Read::Whole(message, size) => {
                        self.bytes.drain(..size);
                        return (message.status(), message.body.len());
                    }
                    Read::Part(_) => {}
                    Read::Bad(why) => panic!("{why}"),
                }
            }
            let read = within("more", self.stream.read_buf(&mut self.bytes)).await;
            assert!(read.expect("more") > 0, "it ended");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interim_answer_arrives_before_the_answer_is_there() {
    let (listener, burdock) = listen().await;
    let mut client = Client::ask(&burdock, 1).await;
    let (mut instance, _) = within("a connection", listener.accept()).await.expect("one");
    take_request(&mut instance).await;
    for _ in 0..3 {
        instance.write_all(HINTS).await.expect("write");
        assert_eq!(client.answer(0).await, (103, 0));
    }
    instance.write_all(OK).await.expect("write");
    assert_eq!(client.answer(0).await, (200, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_behind_gets_each_answer_whole() {
    const SIZE: usize = 8 << 20;
    let (listener, burdock) = listen().await;
    let mut client = Client::ask(&burdock, 2).await;
    let serve = tokio::spawn(async move {
        let (mut instance, _) = listener.accept().await.expect("a connection");
        take_request(&mut instance).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        instance.write_all(head.as_bytes()).await.expect("write");
        instance.write_all(&vec![b'x'; SIZE]).await.expect("write");
        take_request(&mut instance).await;
        instance.write_all(&HINTS.repeat(20)).await.expect("write");
        instance.write_all(OK).await.expect("write");
        instance
    });
    for _ in 0..20 {
        pause().await;
    }
    assert_eq!(client.answer(SIZE).await, (200, SIZE));
    // Hints may be left out for a client that is behind; nothing may be cut.
    let mut hints = 0;
    while client.answer(0).await == (103, 0) {
        hints += 1;
    }
    assert!(hints <= 20, "{hints}");
    drop(within("the instance", serve).await);
}

/// There is always more to read of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_never_stops_hinting_is_not_waited_for() {
    let (listener, burdock) = listen_with("timeouts: { first_byte: 500ms }\n").await;
    let mut client = Client::ask(&burdock, 1).await;
    let serve = tokio::spawn(async move {
        let (mut instance, _) = listener.accept().await.expect("a connection");
        take_request(&mut instance).await;
        let hints = HINTS.repeat(1000);
        while instance.write_all(&hints).await.is_ok() {}
    });
    let status = loop {
        match client.answer(0).await {
            (103, _) => {}
            (status, _) => break status,
        }
    };
    assert_eq!(status, 504);
    within("the end of its connection", serve).await.expect("it ends");
}
