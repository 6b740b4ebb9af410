//! A body that comes for as long as both sides like, in lines: one message each.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Connection, Unanswered};

/// The lines of a body, with the connection over which it comes.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// No line feed stands before this in the buffer.
    looked: usize,
    most: usize,
    _connection: Connection,
}

impl Lines {
    /// Of a body whose lines have no more than `most` bytes.
    pub fn new(body: Incoming, connection: Connection, most: usize) -> Self {
        Self { body, buffer: BytesMut::new(), looked: 0, most, _connection: connection }
    }

    /// The next line, without its end; nothing after the last. Nothing is lost when this is given up
    /// half way.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Unanswered> {
        loop {
            if let Some(at) = self.buffer[self.looked..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.looked + at + 1).freeze();
                self.looked = 0;
                let end = if line.ends_with(b"\r\n") { 2 } else { 1 };
                return Ok(Some(line.slice(..line.len() - end)));
            }
            self.looked = self.buffer.len();
            if self.buffer.len() > self.most {
                return Err(Unanswered::Long(self.most));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(Unanswered::Body(Box::new(error))),
                None if self.buffer.is_empty() => return Ok(None),
                // The last line of some has no end.
                None => {
                    self.looked = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::Target;
    use super::*;

    /// The lines of a body that comes in these pieces.
    async fn lines(pieces: &'static [&'static str], most: usize) -> Vec<Result<String, String>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                socket.read_buf(&mut asked).await.unwrap();
            }
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            socket.write_all(head).await.unwrap();
            for piece in pieces {
                let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
                // A reader that has had enough is gone.
                let _ = socket.write_all(chunk.as_bytes()).await;
            }
            let _ = socket.write_all(b"0\r\n\r\n").await;
        });
        let mut connection = Target::new(&url, None).unwrap().connect().await.unwrap();
        let request = Request::get("/").body(Full::default()).unwrap();
        let answer = connection.send(request).await.unwrap();
        let mut lines = Lines::new(answer.into_body(), connection, most);
        let mut read = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => read.push(Ok(String::from_utf8_lossy(&line).into_owned())),
                Ok(None) => break,
                Err(error) => {
                    read.push(Err(error.to_string()));
                    break;
                }
            }
        }
        server.await.unwrap();
        read
    }

    #[tokio::test]
    async fn lines_are_whole_wherever_the_pieces_of_a_body_end() {
        let ok = |lines: &[&str]| lines.iter().map(|it| Ok((*it).to_owned())).collect::<Vec<_>>();
        assert_eq!(lines(&["a\nb", "c\r", "\n", "\nd"], 10).await, ok(&["a", "bc", "", "d"]));
        assert_eq!(lines(&["a\nb\n"], 10).await, ok(&["a", "b"]));
        assert_eq!(lines(&[], 10).await, ok(&[]));
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_kept_for_ever() {
        let read = lines(&["ok\n", "0123456789", "0123456789"], 15).await;
        let long = "the answer is longer than 15 bytes".to_owned();
        assert_eq!(read, [Ok("ok".to_owned()), Err(long)]);
    }
}
