//! HTTP/1.1 read to the letter: one way to read a message, or none. Knows nothing of Burdock, and
//! gives in nowhere; what a lenient reader makes of the same bytes is what smuggling lives on.

/// A message, and what it was read as. Bytes stand as the characters of the same number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// All lines of one name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// The part of the first line with this number.
    pub fn word(&self, at: usize) -> &str {
        self.start.split(' ').nth(at).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }
}

/// All values of one name, in order.
pub fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let named = fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

/// What bytes are so far.
#[derive(Debug)]
pub enum Read {
    /// A message, and how many bytes it took.
    Whole(Message, usize),
    /// The beginning of one; its head, if that is whole.
    Part(Option<Message>),
    /// Nothing that has one meaning.
    Bad(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    ToEnd,
}

type Parsed<T> = Result<T, String>;

/// Bytes as characters.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Reads a request.
pub fn request(bytes: &[u8]) -> Read {
    read(bytes, false, request_line, request_framing)
}

/// Reads an answer to `method`; `ended` says that no more follows.
pub fn response(bytes: &[u8], method: &str, ended: bool) -> Read {
    read(bytes, ended, status_line, |head| response_framing(head, method))
}

fn read(
    bytes: &[u8],
    ended: bool,
    check: impl Fn(&str) -> Parsed<()>,
    framing: impl Fn(&Message) -> Parsed<Framing>,
) -> Read {
    let parsed = || -> Parsed<Option<(Message, usize)>> {
        let mut at = 0;
        let Some(start) = line(bytes, &mut at)? else { return Ok(None) };
        check(&start)?;
        let Some(fields) = fields(bytes, &mut at)? else { return Ok(None) };
        Ok(Some((Message { start, fields, ..Message::default() }, at)))
    };
    let (mut message, mut at) = match parsed() {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Read::Part(None),
        Err(why) => return Read::Bad(why),
    };
    let body = framing(&message).and_then(|framing| match framing {
        Framing::Length(length) => {
            let end = at.checked_add(length);
            let body = end.and_then(|end| bytes.get(std::mem::replace(&mut at, end)..end));
            Ok(body.map(|body| (latin1(body), Vec::new())))
        }
        Framing::Chunked => chunks(bytes, &mut at),
        Framing::ToEnd if ended => {
            let body = latin1(&bytes[at..]);
            at = bytes.len();
            Ok(Some((body, Vec::new())))
        }
        Framing::ToEnd => Ok(None),
    });
    match body {
        Ok(Some((body, trailers))) => {
            (message.body, message.trailers) = (body, trailers);
            Read::Whole(message, at)
        }
        Ok(None) => Read::Part(Some(message)),
        Err(why) => Read::Bad(why),
    }
}

/// RFC 9112 section 2.2: CRLF, and nothing else, ends a line.
fn line(bytes: &[u8], at: &mut usize) -> Parsed<Option<String>> {
    let rest = &bytes[*at..];
    let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return Ok(None);
    };
    match (rest[end], rest.get(end + 1)) {
        (b'\r', Some(b'\n')) => {
            *at += end + 2;
            Ok(Some(latin1(&rest[..end])))
        }
        (b'\r', None) => Ok(None),
        (byte, _) => Err(format!("a bare {byte:#x} behind {:?}", latin1(&rest[..end]))),
    }
}

fn fields(bytes: &[u8], at: &mut usize) -> Parsed<Option<Vec<(String, String)>>> {
    let mut fields = Vec::new();
    loop {
        let Some(line) = line(bytes, at)? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(fields));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("no field: {line:?}"))?;
        if !is_token(name) {
            return Err(format!("no field name: {name:?}"));
        }
        let value = value.trim_matches([' ', '\t']);
        if value.chars().any(|it| (it < ' ' && it != '\t') || it == '\x7f') {
            return Err(format!("no field value: {value:?}"));
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
}

fn is_token(text: &str) -> bool {
    let fits = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(it);
    !text.is_empty() && text.chars().all(fits)
}

fn request_line(line: &str) -> Parsed<()> {
    let parts: Vec<_> = line.split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = parts[..] else {
        return Err(format!("no request line: {line:?}"));
    };
    match is_token(method) && !target.is_empty() && target.chars().all(|it| it.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(format!("no request line: {line:?}")),
    }
}

fn status_line(line: &str) -> Parsed<()> {
    let (version, rest) = line.split_once(' ').unwrap_or_default();
    let (code, reason) = rest.split_once(' ').unwrap_or_default();
    let is_code = code.len() == 3 && code.chars().all(|it| it.is_ascii_digit());
    let is_reason = reason.chars().all(|it| it == '\t' || (it >= ' ' && it != '\x7f'));
    match matches!(version, "HTTP/1.1" | "HTTP/1.0") && is_code && code >= "100" && is_reason {
        true => Ok(()),
        false => Err(format!("no status line: {line:?}")),
    }
}

/// RFC 9112 section 6.3, without any of its second chances.
fn framing(message: &Message) -> Parsed<Option<Framing>> {
    let (codings, lengths) = (message.all("transfer-encoding"), message.all("content-length"));
    match (&codings[..], &lengths[..]) {
        ([], []) => Ok(None),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
        ([], [length]) if !length.is_empty() && length.chars().all(|it| it.is_ascii_digit()) => {
            let length = length.parse().map_err(|_overflow| format!("a length of {length}"))?;
            Ok(Some(Framing::Length(length)))
        }
        _ => Err(format!("framed by {codings:?} and {lengths:?}")),
    }
}

fn request_framing(message: &Message) -> Parsed<Framing> {
    let hosts = message.all("host");
    if hosts.len() != 1 && !(hosts.is_empty() && message.start.ends_with("1.0")) {
        return Err(format!("sent to {hosts:?}"));
    }
    Ok(framing(message)?.unwrap_or(Framing::Length(0)))
}

fn response_framing(message: &Message, method: &str) -> Parsed<Framing> {
    let framed = framing(message)?;
    match message.status() {
        // RFC 9110 section 8.6, RFC 9112 section 6.1.
        100..=199 | 204 if framed.is_some() => Err(format!("a body: {:?}", message.start)),
        100..=199 | 204 | 304 => Ok(Framing::Length(0)),
        _ if method == "HEAD" => Ok(Framing::Length(0)),
        _ => Ok(framed.unwrap_or(Framing::ToEnd)),
    }
}

type Body = (String, Vec<(String, String)>);

/// RFC 9112 section 7.1.
fn chunks(bytes: &[u8], at: &mut usize) -> Parsed<Option<Body>> {
    let mut body = String::new();
    loop {
        let Some(size) = line(bytes, at)? else { return Ok(None) };
        let digits = size.split(';').next().unwrap_or_default();
        if digits.is_empty() || !digits.chars().all(|it| it.is_ascii_hexdigit()) {
            return Err(format!("no chunk size: {size:?}"));
        }
        let size = usize::from_str_radix(digits, 16).map_err(|_| format!("a chunk of {size}"))?;
        if size == 0 {
            return Ok(fields(bytes, at)?.map(|trailers| (body, trailers)));
        }
        let Some(data) = at.checked_add(size).and_then(|end| bytes.get(*at..end)) else {
            return Ok(None);
        };
        body.push_str(&latin1(data));
        *at += size;
        match line(bytes, at)?.as_deref() {
            Some("") => {}
            Some(line) => return Err(format!("behind a chunk: {line:?}")),
            None => return Ok(None),
        }
    }
}
