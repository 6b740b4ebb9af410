//! Server-sent events, as they come in pieces.

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its data.
    pub data: String,
}

/// The pieces of a stream, put together.
#[derive(Debug, Default)]
pub struct Assembly {
    rest: Vec<u8>,
    next: Message,
    has_data: bool,
}

impl Assembly {
    /// The events that these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.rest.extend_from_slice(bytes);
        let mut complete = Vec::new();
        let mut begin = 0;
        while let Some(length) = memchr::memchr(b'\n', &self.rest[begin..]) {
            let line = String::from_utf8_lossy(&self.rest[begin..begin + length]).into_owned();
            begin += length + 1;
            complete.extend(self.line(line.trim_end_matches('\r')));
        }
        self.rest.drain(..begin);
        complete
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.next);
            return std::mem::take(&mut self.has_data).then_some(message);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.next.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.next.data.push('\n');
                }
                self.next.data.push_str(value);
            }
            // A comment, which keeps the connection alive, or what nothing here asks for.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_no_difference() {
        let stream =
            ": hello\n\nid: 7\nevent: health\ndata: {\"a\":1}\n\ndata: x\r\ndata: y\r\n\r\nda";
        for size in 1..stream.len() {
            let mut assembly = Assembly::default();
            let pieces = stream.as_bytes().chunks(size);
            let found: Vec<_> = pieces.flat_map(|piece| assembly.feed(piece)).collect();
            let first = Message { id: Some("7".to_owned()), data: "{\"a\":1}".to_owned() };
            assert_eq!(found, [first, Message { id: None, data: "x\ny".to_owned() }], "{size}");
        }
    }
}
