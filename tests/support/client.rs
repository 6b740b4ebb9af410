//! A small HTTP/1.1 client: one keep-alive connection, a cookie jar where wanted.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use super::wire::{Body, Conn, Head, chunked};
use super::within;

/// What to send.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub fields: Vec<(String, String)>,
    /// Framed by `Content-Length`, unless `chunked`.
    pub body: Vec<u8>,
    pub chunked: bool,
    pub trailers: Vec<(String, String)>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
            chunked: false,
            trailers: Vec::new(),
        }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub fn post(path: &str, body: &[u8]) -> Self {
        Self::new("POST", path).body(body)
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    #[must_use]
    pub fn chunked(mut self, trailers: &[(&str, &str)]) -> Self {
        self.chunked = true;
        self.trailers = trailers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self
    }

    /// The bytes on the wire; `Host` is added where absent.
    pub fn encode(&self, cookie: Option<&str>) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str("Host: app.test\r\n");
        }
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(cookie) = cookie {
            text.push_str(&format!("Cookie: {cookie}\r\n"));
        }
        if self.chunked {
            text.push_str("Transfer-Encoding: chunked\r\n");
        } else if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT") {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if self.chunked {
            let trailers: Vec<_> =
                self.trailers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            bytes.extend(chunked(&self.body.chunks(8192).collect::<Vec<_>>(), &trailers));
        } else {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// A final response; interim ones are kept beside it.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Body,
    pub interim: Vec<Head>,
}

impl Response {
    /// The name of the backend that answered; empty when Burdock itself did.
    pub fn instance(&self) -> &str {
        self.head.field("x-instance").unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.bytes).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The whole `Set-Cookie` line for `name`.
    pub fn set_cookie(&self, name: &str) -> Option<&str> {
        let start = format!("{name}=");
        self.head.all("set-cookie").into_iter().find(|line| line.starts_with(&start))
    }

    /// The value that is set for the cookie `name`.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let line = self.set_cookie(name)?;
        let value = line[name.len() + 1..].split(';').next().unwrap_or_default();
        Some(value.to_owned())
    }
}

/// One client.
#[derive(Debug)]
pub struct Client {
    pub address: SocketAddr,
    pub jar: Option<BTreeMap<String, String>>,
    conn: Option<Conn>,
    /// How often a kept connection was found closed and the request was sent on a new one.
    pub reconnects: usize,
    /// Whether it calls who it asks by an address of this machine.
    is_local: bool,
}

impl Client {
    /// Keeps its connection, forgets cookies.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, jar: None, conn: None, reconnects: 0, is_local: false }
    }

    /// Keeps its connection and its cookies.
    pub fn session(address: SocketAddr) -> Self {
        Self { jar: Some(BTreeMap::new()), ..Self::new(address) }
    }

    /// One of an admin listener, which hears to names of this machine only.
    pub fn admin(address: SocketAddr) -> Self {
        Self { is_local: true, ..Self::new(address) }
    }

    /// Closes the kept connection; cookies stay.
    pub fn disconnect(&mut self) {
        self.conn = None;
    }

    pub async fn get(&mut self, path: &str) -> Response {
        self.send(&Request::get(path)).await
    }

    pub async fn post(&mut self, path: &str, body: &[u8]) -> Response {
        self.send(&Request::post(path, body)).await
    }

    pub async fn send(&mut self, request: &Request) -> Response {
        let what = format!("{} {}", request.method, request.path);
        match self.try_send(request).await {
            Ok(response) => response,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// As browsers do, a kept connection that ends before the first byte of the answer costs one
    /// try on a new one.
    pub async fn try_send(&mut self, request: &Request) -> io::Result<Response> {
        let what = format!("an answer to {} {}", request.method, request.path);
        let names_host = |(name, _): &(String, String)| name.eq_ignore_ascii_case("host");
        let mut request = request.clone();
        if self.is_local && !request.fields.iter().any(names_host) {
            request = request.with("Host", "127.0.0.1");
        }
        let bytes = request.encode(self.cookie_line().as_deref());
        let response = within(&what, self.exchange(&request, &bytes)).await?;
        self.remember(&response.head);
        Ok(response)
    }

    async fn exchange(&mut self, request: &Request, bytes: &[u8]) -> io::Result<Response> {
        if let Some(mut conn) = self.conn.take() {
            // Pending input is a FIN or an unasked answer: either way the connection is spent.
            let open = conn.write(bytes).await.is_ok();
            let head = if open { conn.head().await.unwrap_or(None) } else { None };
            if let Some(head) = head {
                return self.receive(conn, head, &request.method).await;
            }
            self.reconnects += 1;
        }
        let mut conn = Conn::connect(self.address).await?;
        conn.write(bytes).await?;
        let head = conn.head().await?;
        let head = head.ok_or_else(|| io::Error::other("closed without an answer"))?;
        self.receive(conn, head, &request.method).await
    }

    async fn receive(&mut self, mut conn: Conn, head: Head, method: &str) -> io::Result<Response> {
        let (mut head, mut interim) = (head, Vec::new());
        while (100..200).contains(&head.status()) && head.status() != 101 {
            interim.push(head);
            head = conn.head().await?.ok_or_else(|| io::Error::other("only interim answers"))?;
        }
        let body = conn.body(head.response_framing(method)).await?;
        if !head.wants_close() {
            self.conn = Some(conn);
        }
        Ok(Response { status: head.status(), head, body, interim })
    }

    /// The jar as one `Cookie` value.
    pub fn cookie_line(&self) -> Option<String> {
        let jar = self.jar.as_ref().filter(|jar| !jar.is_empty())?;
        let pairs: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Some(pairs.join("; "))
    }

    /// Takes the cookies of a head that came another way, such as a 101.
    pub fn remember(&mut self, head: &Head) {
        let Some(jar) = &mut self.jar else { return };
        for line in head.all("set-cookie") {
            let pair = line.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}
