//! A parser of HTTP/1 messages, written from RFC 9112 alone and unlike hyper's in that it sees all
//! of a stream at once. Strict is what Burdock may send, lenient what it may understand.

/// Why bytes are no message.
pub(super) type Wrong = &'static str;

/// How forgiving to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// Every rule counts.
    Strict,
    /// A line may end without its CR, and empty lines may come before a request (section 2.2).
    Lenient,
}

/// The first line and the fields of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The three parts of the first line.
    pub(super) start: [Vec<u8>; 3],
    /// Names are in lower case.
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes that it took.
    pub(super) length: usize,
}

/// Where a body ends (section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// It has none.
    Nothing,
    /// After so many bytes.
    Length(usize),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    ToEnd,
}

/// What came of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    /// Without what framed it.
    pub(super) data: Vec<u8>,
    /// Bytes that it took; nothing where it isn't all there.
    pub(super) length: Option<usize>,
    /// Why it ends before its end.
    pub(super) wrong: Option<Wrong>,
}

impl Head {
    /// The head that `bytes` begin with; nothing if it isn't all there.
    pub(super) fn read(bytes: &[u8], mood: Mood) -> Result<Option<Self>, Wrong> {
        let mut at = 0;
        let mut lines = Vec::new();
        loop {
            let Some(line) = line(bytes, &mut at, mood)? else { return Ok(None) };
            has_no_control(line)?;
            if !line.is_empty() {
                lines.push(line);
            } else if !lines.is_empty() {
                break;
            } else if mood == Mood::Strict {
                return Err("an empty line before a message");
            }
        }
        let mut start = lines[0].splitn(3, |byte| *byte == b' ').map(<[u8]>::to_vec);
        let start = [(); 3].map(|()| start.next().unwrap_or_default());
        let fields: Result<Vec<_>, Wrong> = lines[1..].iter().map(|line| field(line)).collect();
        Ok(Some(Self { start, fields: fields?, length: at }))
    }

    /// The values of all fields of a name.
    pub(super) fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(known, _)| known == name.as_bytes());
        named.map(|(_, value)| value.as_slice()).collect()
    }

    /// Whether a list in the fields of a name has this member.
    pub(super) fn says(&self, name: &str, member: &str) -> bool {
        let lines = self.all(name).into_iter();
        let mut members = lines.flat_map(|line| line.split(|byte| *byte == b','));
        members.any(|it| it.trim_ascii().eq_ignore_ascii_case(member.as_bytes()))
    }

    /// How its body is framed, or `otherwise`.
    pub(super) fn framing(&self, otherwise: Framing, mood: Mood) -> Result<Framing, Wrong> {
        let (codings, lengths) = (self.all("transfer-encoding"), self.all("content-length"));
        if !codings.is_empty() {
            let is_plain = codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked");
            return match mood {
                Mood::Strict if !is_plain => Err("a coding besides one chunked"),
                Mood::Strict if !lengths.is_empty() => Err("two ways to tell a length"),
                Mood::Strict | Mood::Lenient => Ok(Framing::Chunked),
            };
        }
        let Some(first) = lengths.first() else { return Ok(otherwise) };
        if mood == Mood::Strict && lengths.len() > 1 || lengths.iter().any(|it| it != first) {
            return Err("more than one length");
        }
        let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(first).ok().filter(|_| is_number);
        let length = length.and_then(|text| text.parse::<u64>().ok()).ok_or("no length")?;
        Ok(Framing::Length(usize::try_from(length).unwrap_or(usize::MAX)))
    }
}

impl Body {
    /// The body that `bytes` begin with.
    pub(super) fn read(bytes: &[u8], framing: Framing, mood: Mood) -> Self {
        let mut body = Self { data: Vec::new(), length: None, wrong: None };
        match framing {
            Framing::Nothing => body.length = Some(0),
            Framing::ToEnd => body.data = bytes.to_vec(),
            Framing::Length(length) => {
                let there = length.min(bytes.len());
                body.data = bytes[..there].to_vec();
                body.length = (there == length).then_some(length);
            }
            Framing::Chunked => match body.chunks(bytes, mood) {
                Ok(length) => body.length = length,
                Err(wrong) => body.wrong = Some(wrong),
            },
        }
        body
    }

    /// Takes what is there of chunks and trailers (section 7.1); where they end, if they do.
    fn chunks(&mut self, bytes: &[u8], mood: Mood) -> Result<Option<usize>, Wrong> {
        let mut at = 0;
        loop {
            let Some(head) = line(bytes, &mut at, mood)? else { return Ok(None) };
            let size = chunk_size(head, mood)?;
            if size == 0 {
                break;
            }
            let rest = &bytes[at..];
            self.data.extend_from_slice(&rest[..size.min(rest.len())]);
            if rest.len() < size {
                return Ok(None);
            }
            at += size;
            let Some(end) = line(bytes, &mut at, mood)? else { return Ok(None) };
            if !end.is_empty() {
                return Err("a chunk is longer than it says");
            }
        }
        loop {
            let Some(trailer) = line(bytes, &mut at, mood)? else { return Ok(None) };
            if trailer.is_empty() {
                return Ok(Some(at));
            }
            has_no_control(trailer)?;
            field(trailer)?;
        }
    }
}

fn chunk_size(line: &[u8], mood: Mood) -> Result<usize, Wrong> {
    if mood == Mood::Strict {
        has_no_control(line)?;
    }
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = if mood == Mood::Lenient { digits.trim_ascii() } else { digits };
    let is_number = digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_number);
    let size = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    Ok(usize::try_from(size.ok_or("no size of a chunk")?).unwrap_or(usize::MAX))
}

/// The line at `at`, which moves behind it; nothing if it isn't all there.
fn line<'a>(bytes: &'a [u8], at: &mut usize, mood: Mood) -> Result<Option<&'a [u8]>, Wrong> {
    let rest = &bytes[*at..];
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = match rest[..end].strip_suffix(b"\r") {
        Some(line) => line,
        None if mood == Mood::Lenient => &rest[..end],
        None => return Err("a line without its CR"),
    };
    *at += end + 1;
    Ok(Some(line))
}

/// RFC 9110 section 5.5. What extends a chunk goes nowhere, so Burdock need not look at it.
fn has_no_control(line: &[u8]) -> Result<(), Wrong> {
    let is_control = |byte: &u8| *byte != b'\t' && (*byte < b' ' || *byte == 0x7f);
    if line.iter().any(is_control) { Err("a control character in a line") } else { Ok(()) }
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn field(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Wrong> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a field without a colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(is_token_byte) {
        return Err("a field's name is no token");
    }
    Ok((name.to_ascii_lowercase(), value.trim_ascii().to_vec()))
}

/// A request, as much of it as there is.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) head: Head,
    pub(super) body: Body,
}

impl Request {
    /// Every request that a client sent, up to where its bytes make no sense.
    pub(super) fn understood(mut bytes: &[u8]) -> Vec<Self> {
        let mut requests = Vec::new();
        while let Ok(Some(head)) = Head::read(bytes, Mood::Lenient) {
            let Ok(framing) = head.framing(Framing::Nothing, Mood::Lenient) else { break };
            let body = Body::read(&bytes[head.length..], framing, Mood::Lenient);
            let end = body.length.map(|length| head.length + length);
            requests.push(Self { head, body });
            match end {
                Some(end) => bytes = &bytes[end..],
                None => break,
            }
        }
        requests
    }

    /// Every request on a connection to an instance, each of which must be beyond doubt.
    pub(super) fn flawless(mut bytes: &[u8]) -> Result<Vec<Self>, Wrong> {
        let mut requests = Vec::new();
        while let Some(head) = Head::read(bytes, Mood::Strict)? {
            let [method, target, version] = &head.start;
            if method.is_empty() || !method.iter().all(is_token_byte) || version != b"HTTP/1.1" {
                return Err("no request line");
            }
            let is_form = target.starts_with(b"/") || target == b"*";
            if !is_form || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'#')
            {
                return Err("no target in origin form");
            }
            if head.all("host").len() != 1 {
                return Err("not one Host");
            }
            let framing = head.framing(Framing::Nothing, Mood::Strict)?;
            let body = Body::read(&bytes[head.length..], framing, Mood::Strict);
            if let Some(wrong) = body.wrong {
                return Err(wrong);
            }
            let end = body.length.map(|length| head.length + length);
            requests.push(Self { head, body });
            match end {
                Some(end) => bytes = &bytes[end..],
                None => break,
            }
        }
        Ok(requests)
    }

    /// The target as an instance must get it: without scheme and authority (RFC 9112 section
    /// 3.2.2), and without a fragment, which no client may send.
    pub(super) fn target(&self) -> Vec<u8> {
        let told = &self.head.start[1];
        let told = told.split(|byte| *byte == b'#').next().unwrap_or_default();
        let path = match told.windows(3).position(|it| it == b"://") {
            Some(at) if !told.starts_with(b"/") => {
                let rest = &told[at + 3..];
                let path = rest.iter().position(|byte| b"/?".contains(byte));
                path.map_or(&[][..], |path| &rest[path..])
            }
            Some(_) | None => told,
        };
        match path.first() {
            None | Some(b'?') => [b"/", path].concat(),
            Some(b'/') => path.to_vec(),
            Some(_) if path == b"*" => path.to_vec(),
            // Nothing but an authority: whoever lets it pass may at most ask for its root.
            Some(_) => b"/".to_vec(),
        }
    }
}
