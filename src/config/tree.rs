//! YAML text to a [`Tree`] in which every value knows its line.
//!
//! Knows YAML and nothing of Burdock's keys. Duplicate keys stay in the tree, so that they can be
//! reported beside all other problems. The size of a tree is bounded whatever aliases it holds.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// Values in one file, aliases counted each time they are used. Ten thousand instances in their
/// longest form are 70 000; an alias bomb would need all memory.
const MAX_VALUES: usize = 300_000;

/// Brackets that may be open at once. The parser refuses 128 levels of nesting itself, but only
/// after a scan whose time grows with the square of the depth.
const MAX_OPEN: usize = 1000;

/// One YAML value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tree {
    /// Counted from 1. A list or map under a key has the line of the key; one in a list has the
    /// line of its first value.
    pub(crate) line: usize,
    pub(crate) data: Data,
}

/// What a YAML value holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

/// One key of a map and its value, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// False for keys such as `1` or `true`, whose `key` is their printed form.
    pub(crate) key_is_text: bool,
    pub(crate) line: usize,
    pub(crate) value: Tree,
}

/// Text that is not one YAML document.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct SyntaxError {
    /// Counted from 1; 0 where the parser names none.
    pub(crate) line: usize,
    pub(super) message: String,
}

/// Reads the one document in `text`.
pub(super) fn read(text: &str) -> Result<Tree, SyntaxError> {
    refuse_open_brackets(text)?;
    let mut first = None;
    for document in serde_yaml::Deserializer::from_str(text) {
        let state = Progress { line: Cell::new(1), values: Cell::new(0) };
        let tree = ValueSeed(&state).deserialize(document).map_err(|error| SyntaxError {
            line: error.location().map_or(0, |location| location.line()),
            message: format!("not valid YAML: {}{}", on_one_line(&error), hint(text, &error)),
        })?;
        if first.is_some() {
            let message = "a second YAML document begins; one document per file".to_owned();
            return Err(SyntaxError { line: tree.line, message });
        }
        first = Some(tree);
    }
    Ok(first.unwrap_or(Tree { line: 1, data: Data::Null }))
}

/// Counts brackets in quotes and comments too: no text for people leaves a thousand of them open.
fn refuse_open_brackets(text: &str) -> Result<(), SyntaxError> {
    let mut open: usize = 0;
    for (index, line) in text.lines().enumerate() {
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > MAX_OPEN {
                let message =
                    format!("more than {MAX_OPEN} brackets are open; allowed: 128 levels");
                return Err(SyntaxError { line: index + 1, message });
            }
        }
    }
    Ok(())
}

/// What the parser says, which may name keys with any character in them.
fn on_one_line(error: &serde_yaml::Error) -> String {
    let told = error.to_string();
    let tame = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    told.chars().map(tame).collect()
}

/// What the parser cannot know: text that this kind of file is full of, and YAML reads otherwise.
fn hint(text: &str, error: &serde_yaml::Error) -> &'static str {
    let line = error.location().and_then(|at| text.lines().nth(at.line().saturating_sub(1)));
    match line {
        Some(line) if line.contains("*.") => "; needed: quotes around text that begins with *",
        Some(line) if line.contains("]:") => "; needed: quotes around addresses in brackets",
        _ => "",
    }
}

/// How far reading has come.
struct Progress {
    /// The line of the last scalar.
    line: Cell<usize>,
    values: Cell<usize>,
}

/// Reads one value and notes its line.
struct ValueSeed<'a>(&'a Progress);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Tree, D::Error> {
        let Self(progress) = self;
        progress.values.set(progress.values.get() + 1);
        if progress.values.get() > MAX_VALUES {
            return Err(D::Error::custom(format!(
                "more than {MAX_VALUES} values, aliases counted"
            )));
        }
        // The parser tells positions only in errors. So the visitor leaves each scalar here and
        // fails on purpose; the parser has consumed the scalar by then and goes on after it.
        let scalar = Cell::new(None);
        match source.deserialize_any(ValueVisitor { progress, scalar: &scalar }) {
            Ok(tree) => Ok(tree),
            Err(error) => match scalar.take() {
                None => Err(error),
                Some(data) => {
                    let line = line_told_by(&error);
                    progress.line.set(line);
                    Ok(Tree { line, data })
                }
            },
        }
    }
}

/// The line in an error's text; the very first position of a file is not told, hence 1.
fn line_told_by(error: &impl fmt::Display) -> usize {
    let text = error.to_string();
    let told = text.rsplit_once(" at line ").and_then(|(_, rest)| rest.split(' ').next());
    told.and_then(|digits| digits.parse().ok()).unwrap_or(1)
}

/// Builds lists and maps; leaves scalars in `scalar` and fails.
struct ValueVisitor<'a> {
    progress: &'a Progress,
    scalar: &'a Cell<Option<Data>>,
}

impl ValueVisitor<'_> {
    fn leave<E: Error>(self, data: Data) -> Result<Tree, E> {
        self.scalar.set(Some(data));
        Err(E::custom(""))
    }
}

impl<'de> Visitor<'de> for ValueVisitor<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        self.leave(Data::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        self.leave(Data::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        self.leave(Data::Integer(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Tree, E> {
        self.leave(Data::Integer(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Tree, E> {
        self.leave(Data::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        self.leave(Data::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        self.leave(Data::Text(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        self.leave(Data::Null)
    }

    /// An empty document.
    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree { line: self.progress.line.get(), data: Data::Null })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Tree, A::Error> {
        let before = self.progress.line.get();
        let mut items: Vec<Tree> = Vec::new();
        while let Some(item) = source.next_element_seed(ValueSeed(self.progress))? {
            items.push(item);
        }
        let line = items.first().map_or(before, |item| item.line);
        Ok(Tree { line, data: Data::List(items) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Tree, A::Error> {
        let before = self.progress.line.get();
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(key) = source.next_key_seed(ValueSeed(self.progress))? {
            let mut value = source.next_value_seed(ValueSeed(self.progress))?;
            if matches!(value.data, Data::List(_) | Data::Map(_)) {
                value.line = key.line;
            }
            let (text, key_is_text) = printed_key(key.data);
            entries.push(Entry { key: text, key_is_text, line: key.line, value });
        }
        let line = entries.first().map_or(before, |entry| entry.line);
        Ok(Tree { line, data: Data::Map(merged(entries)) })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, source: A) -> Result<Tree, A::Error> {
        let (tag, content) = source.variant::<String>()?;
        content.newtype_variant::<serde::de::IgnoredAny>()?;
        Err(A::Error::custom(format!("the tag !{tag} has no meaning here")))
    }
}

/// A key as text, and whether it was text in the file.
fn printed_key(data: Data) -> (String, bool) {
    match data {
        Data::Text(text) => (text, true),
        Data::Null => ("null".to_owned(), false),
        Data::Bool(value) => (value.to_string(), false),
        Data::Integer(value) => (value.to_string(), false),
        Data::Float(value) => (value.to_string(), false),
        Data::List(_) => ("[...]".to_owned(), false),
        Data::Map(_) => ("{...}".to_owned(), false),
    }
}

/// Puts the entries of `<<` maps in the place of `<<`: own keys win over merged ones, earlier
/// maps over later ones. A `<<` that holds anything else is left for the reader to report.
fn merged(entries: Vec<Entry>) -> Vec<Entry> {
    if entries.iter().all(|entry| entry.key != "<<") {
        return entries;
    }
    let (merges, mut own): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.key == "<<" && is_mergeable(&entry.value));
    let mut known: HashSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
    for merge in merges {
        let maps = match merge.value.data {
            Data::List(items) => items,
            data => vec![Tree { line: merge.line, data }],
        };
        for map in maps {
            let Data::Map(added) = map.data else { continue };
            for entry in added {
                if known.insert(entry.key.clone()) {
                    own.push(entry);
                }
            }
        }
    }
    own
}

fn is_mergeable(value: &Tree) -> bool {
    match &value.data {
        Data::Map(_) => true,
        Data::List(items) => items.iter().all(|item| matches!(item.data, Data::Map(_))),
        _ => false,
    }
}
