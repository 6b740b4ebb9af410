//! `access_log`: whether there is one, or where it goes and how it looks.
//!
//! A file is looked for but not opened: whoever checks a configuration need not be who runs it, and
//! would leave a file that the other cannot write.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::keys::absolute;
use crate::config::node::Node;
use crate::config::tree::Data;
use crate::config::types::{AccessLog, Destination, LineFormat};

pub(super) fn access_log(node: &Node<'_>) -> Option<AccessLog> {
    let default = AccessLog::default();
    match node.tree.data {
        Data::Bool(true) => return Some(default),
        _ if node.is_off() => return None,
        Data::Map(_) => {}
        _ => return node.wrong("true, false, { to, format, sample }"),
    }
    let mut fields = node.fields("access_log")?;
    let to = fields.take("to").map_or(Some(default.to), |node| destination(&node));
    let format = fields.take("format");
    let format = format.map_or(Some(default.format), |node| node.word(&LineFormat::WORDS));
    let sample = fields.take("sample").map_or(Some(default.sample), |node| sample(&node));
    fields.finish();
    Some(AccessLog { to: to?, format: format?, sample: sample? })
}

/// A share that is not nothing.
pub(super) fn sample(node: &Node<'_>) -> Option<u32> {
    let points = node.percent(100)?;
    if points == 0 {
        node.problem("nothing is left of it; allowed: a percentage from 0.01% to 100%");
    }
    Some(points)
}

fn destination(node: &Node<'_>) -> Option<Destination> {
    let allowed = "stdout, stderr or the path of a file";
    let path = match node.text(allowed)? {
        "stdout" => return Some(Destination::Stdout),
        "stderr" => return Some(Destination::Stderr),
        "" => return node.wrong(allowed),
        path => absolute(node.sink.resolve(path)),
    };
    let shown = path.display();
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        let folder = folder.display();
        node.problem(format_args!("{folder} is no folder; needed: one in which {shown} may be"));
    } else if let Ok(found) = path.metadata()
        && !found.is_file()
        && !found.file_type().is_char_device()
    {
        node.problem(format_args!("{shown} is there and is no file; allowed: {allowed}"));
    }
    Some(Destination::File(path))
}
