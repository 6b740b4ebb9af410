//! The Common Log Format of NCSA httpd, and the combined one, as Apache httpd writes them:
//! `%h %l %u %t "%r" %>s %b`, then `"%{Referer}i" "%{User-Agent}i"`.
//!
//! Two things that Apache cannot meet: where no answer could be sent the status is 499, as nginx has
//! it, and the line of a tunnel counts all of its bytes to the client.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Line, decimal};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

pub(super) fn common(out: &mut Vec<u8>, line: &Line<'_>) {
    row(out, line, SystemTime::now());
    out.push(b'\n');
}

pub(super) fn combined(out: &mut Vec<u8>, line: &Line<'_>) {
    row(out, line, SystemTime::now());
    for field in line.agent {
        out.extend_from_slice(b" \"");
        match field {
            [] => out.push(b'-'),
            _ => escaped(out, field),
        }
        out.push(b'"');
    }
    out.push(b'\n');
}

/// All but the end of the line. Its time is when the request came.
fn row(out: &mut Vec<u8>, line: &Line<'_>, now: SystemTime) {
    escaped(out, line.client.as_bytes());
    // Nobody asks identd, and it is for instances to know who their users are.
    out.extend_from_slice(b" - - [");
    time(out, now.checked_sub(line.duration).unwrap_or(now));
    out.extend_from_slice(b"] \"");
    if line.method.is_empty() {
        // No request line was understood.
        out.push(b'-');
    } else {
        escaped(out, line.method.as_bytes());
        out.push(b' ');
        escaped(out, line.path.as_bytes());
        out.push(b' ');
        out.extend_from_slice(line.protocol.as_bytes());
    }
    out.extend_from_slice(b"\" ");
    decimal(out, if line.status == 0 { 499 } else { line.status.into() });
    out.push(b' ');
    match line.response_bytes {
        0 => out.push(b'-'),
        bytes => decimal(out, bytes),
    }
}

/// As Apache escapes what a client sends: nothing of it ends a field or a line, nor drives the
/// terminal that shows it.
fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let special = |byte: u8| !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\';
    if !bytes.iter().fold(false, |found, byte| found | special(*byte)) {
        out.extend_from_slice(bytes);
        return;
    }
    for byte in bytes.iter().copied() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x0b => out.extend_from_slice(b"\\v"),
            byte if special(byte) => {
                let [high, low] = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
                out.extend_from_slice(&[b'\\', b'x', high, low]);
            }
            byte => out.push(byte),
        }
    }
}

/// `10/Oct/2000:13:55:36 +0000`, always in UTC. Made once a second, since most lines of one have it.
fn time(out: &mut Vec<u8>, at: SystemTime) {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != seconds || text.is_empty() {
            let whole = UNIX_EPOCH + Duration::from_secs(seconds);
            let iso = humantime::format_rfc3339_seconds(whole).to_string();
            let month = iso[5..7].parse::<usize>().unwrap_or(1);
            let month = MONTHS[(month - 1) % MONTHS.len()];
            *text = format!("{}/{month}/{}:{} +0000", &iso[8..10], &iso[..4], &iso[11..19]);
            *second = seconds;
        }
        out.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    fn written(write: fn(&mut Vec<u8>, &Line<'_>), line: &Line<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, line);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_example_of_apaches_manual() {
        let apache = Line {
            client: "127.0.0.1",
            path: "/apache_pb.gif",
            protocol: "HTTP/1.0",
            response_bytes: 2326,
            ..line()
        };
        let at = UNIX_EPOCH + Duration::from_secs(971_211_336);
        let mut out = Vec::new();
        row(
            &mut out,
            &Line { duration: Duration::from_secs(3), ..apache },
            at + Duration::from_secs(3),
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "127.0.0.1 - - [10/Oct/2000:20:55:36 +0000] \"GET /apache_pb.gif HTTP/1.0\" 200 2326"
        );
    }

    #[test]
    fn what_is_not_there_is_a_dash_and_no_answer_a_499() {
        let unread = Line { method: "", path: "", status: 408, response_bytes: 0, ..line() };
        assert!(written(common, &unread).ends_with("] \"-\" 408 -\n"));
        let left = Line { status: 0, path: "/", response_bytes: 0, ..line() };
        let text = written(combined, &left);
        assert!(text.ends_with("] \"GET / HTTP/1.1\" 499 - \"-\" \"-\"\n"), "{text}");
    }

    #[test]
    fn no_client_forges_a_line_a_field_or_an_escape_of_the_terminal() {
        let hostile: Vec<u8> = (0..=255).collect();
        let path = "/\" 200 1\r\n127.0.0.1 - - \u{1b}[2J\u{9b}\u{202e}ü\\";
        let text = written(combined, &Line { path, agent: [&hostile, b"x\"y"], ..line() });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let tame = |byte: u8| (0x20..0x7f).contains(&byte);
        assert!(text.trim_end_matches('\n').bytes().all(tame), "{text}");
        // A reader that knows of \" finds as many fields as there are.
        let unescaped = text.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(unescaped.matches('"').count(), 6, "{text}");
        assert!(text.contains("/\\\" 200 1\\r\\n127.0.0.1 - - \\x1b[2J\\xc2\\x9b"), "{text}");
        assert!(text.contains("\\x00") && text.contains("\\b\\t\\n\\v\\x0c\\r\\x0e"), "{text}");
    }
}
