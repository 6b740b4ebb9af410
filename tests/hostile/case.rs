//! The corpus: what is sent, and what may become of it. See README.md for the format.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// Cases that are about one thing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub category: String,
    /// The sections that decide.
    pub rfc: String,
    pub cases: Vec<Case>,
}

/// One exchange.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// What the client sends.
    #[serde(default = "an_ordinary_request")]
    pub send: String,
    /// What it sends when the instance has got the head of that.
    pub then: Option<String>,
    /// The client ends its direction behind that.
    #[serde(default)]
    pub finish: bool,
    /// What the instance answers to a target that begins with `/case`.
    pub answer: Option<String>,
    /// The instance closes behind its answer.
    #[serde(default)]
    pub ends: bool,
    /// What the instance sends when the client has its answer.
    pub later: Option<String>,
    pub expect: Outcome,
    /// What the RFC allows as well. Burdock does the first.
    #[serde(default)]
    pub or: Vec<Outcome>,
}

/// What may become of a case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// What the instance gets, in order.
    #[serde(default)]
    pub passed: Vec<Got>,
    /// The statuses of interim answers to the last request.
    #[serde(default)]
    pub interim: Vec<u16>,
    /// There are too many of them to say how many arrive.
    #[serde(default)]
    pub crowd: bool,
    /// The last answer is this one, made by the instance of the case or by the proxy itself.
    pub answer: Option<Answer>,
    /// The last answer is a refusal with this status.
    pub refused: Option<u16>,
    /// The last answer begins and does not end.
    #[serde(default)]
    pub broken: bool,
    /// The instance may get a beginning of what is refused.
    #[serde(default)]
    pub cut: bool,
    /// Whether the client's connection ends; a refusal ends it unless this says otherwise.
    pub closed: Option<bool>,
}

/// A message that arrived.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Got {
    /// Method and target.
    pub line: String,
    /// Fields, and all their lines, with ` | ` between.
    #[serde(default)]
    pub has: BTreeMap<String, String>,
    /// Fields that it has not.
    #[serde(default)]
    pub lacks: Vec<String>,
    pub body: Option<String>,
    pub trailers: Option<BTreeMap<String, String>>,
}

/// An answer that arrived.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub status: u16,
    #[serde(default)]
    pub has: BTreeMap<String, String>,
    #[serde(default)]
    pub lacks: Vec<String>,
    pub body: Option<String>,
}

impl Outcome {
    /// Whether the client's connection ends.
    pub fn closes(&self) -> bool {
        self.closed.unwrap_or(self.refused.is_some() || self.broken)
    }

    /// How many answers the client gets.
    pub fn answers(&self) -> usize {
        self.passed.len() + usize::from(self.answer.is_some() || self.refused.is_some())
    }
}

fn an_ordinary_request() -> String {
    "GET /case HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned()
}

/// The groups of one file.
pub fn load(file: &str) -> Vec<Group> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile").join(file);
    let text = std::fs::read_to_string(&path).expect("the corpus");
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The bytes that a text of the corpus stands for: each character is a byte, and `<<a*3>>` is `aaa`.
pub fn bytes(text: &str) -> Vec<u8> {
    let plain = |text: &str| -> Vec<u8> {
        text.chars().map(|it| u8::try_from(u32::from(it)).expect("a byte")).collect()
    };
    let mut parts = text.split("<<");
    let mut out = plain(parts.next().unwrap_or_default());
    for part in parts {
        let repeat = part.split_once(">>").and_then(|(repeat, rest)| {
            let (what, times) = repeat.rsplit_once('*')?;
            Some((what, times.parse::<usize>().ok()?, rest))
        });
        let (what, times, rest) = repeat.unwrap_or_else(|| panic!("no repetition: {part:?}"));
        out.extend(plain(what).repeat(times));
        out.extend(plain(rest));
    }
    out
}
