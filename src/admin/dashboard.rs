//! The dashboard: one page, whose files are part of this binary, so that it works offline and is as old as
//! what it shows. It holds no data and is served to everybody who may connect; what it shows comes from
//! the admin API. Knows nothing of that, nor of instances. The page begins in `dashboard/main.js`.

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Response, StatusCode};

use crate::admin::reply::{Reply, whole};

/// Scripts and styles are files of this origin, and no script may make markup of a string: names of
/// instances come from anywhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// What a browser must not do with any of it.
const FIELDS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    // It may be kept, and is asked about each time: another binary has another page.
    (CACHE_CONTROL, "no-cache"),
];

/// Where the page is; its other files are below `ASSETS`.
const PAGE: &str = "/";
const ASSETS: &str = "/assets/";
const INDEX: &str = "index.html";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("dashboard/", $name)))),*]
    };
}

/// Every file by its name.
const FILES: &[(&str, &[u8])] = files![
    "index.html",
    "burr.svg",
    "style.css",
    "parts.css",
    "theme.js",
    "main.js",
    "api.js",
    "changes.js",
    "charts.js",
    "detail.js",
    "dialogs.js",
    "dom.js",
    "explain.js",
    "fleet.js",
    "format.js",
    "overview.js",
    "row.js",
    "series.js",
    "standing.js",
    "store.js",
    "table.js",
    "timeline.js",
    "topology.js",
];

/// The answer, if `path` is one of the page's.
pub(super) fn answer(method: &Method, path: &str, fields: &HeaderMap) -> Option<Reply> {
    let (name, text) = file(path)?;
    let mut response = Response::new(whole(""));
    let tag = entity_tag(text);
    if !matches!(*method, Method::GET | Method::HEAD) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    } else if knows(fields, &tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = whole(text);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind(name)));
    }
    for (field, value) in FIELDS {
        response.headers_mut().insert(field, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    Some(response)
}

fn file(path: &str) -> Option<(&'static str, &'static [u8])> {
    let wanted = match path.strip_prefix(ASSETS) {
        Some(name) if name != INDEX => name,
        None if path == PAGE => INDEX,
        _ => return None,
    };
    FILES.iter().copied().find(|(name, _)| *name == wanted)
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    }
}

/// Differs where the text does, and nobody gains from a collision: FNV-1a.
fn entity_tag(text: &[u8]) -> String {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("\"{hash:016x}\"")
}

/// Whether the browser has it already (RFC 9110 section 13.1.2, compared weakly).
fn knows(fields: &HeaderMap, tag: &str) -> bool {
    let lines = fields.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn get(path: &str) -> Option<Reply> {
        answer(&Method::GET, path, &HeaderMap::new())
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/dashboard");
        let there: BTreeSet<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let served: BTreeSet<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there, served);
    }

    #[test]
    fn whatever_a_file_names_is_served() {
        for (name, text) in FILES {
            let text = std::str::from_utf8(text).unwrap();
            let named = text.split(['"', '\'']).filter_map(|word| {
                word.strip_prefix("./").or_else(|| word.strip_prefix(ASSETS)).map(str::to_owned)
            });
            for file in named {
                let path = format!("{ASSETS}{file}");
                assert_eq!(
                    get(&path).map(|it| it.status()),
                    Some(StatusCode::OK),
                    "{name}: {file}"
                );
            }
        }
    }

    #[test]
    fn nothing_else_is() {
        for path in
            ["", "/index.html", "/assets", "/assets/", "/assets/index.html", "/assets/../", "/x"]
        {
            assert!(get(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_browser_that_has_it_is_told_so() {
        let first = get("/assets/main.js").unwrap();
        assert_eq!(first.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert_eq!(first.headers()[CACHE_CONTROL], "no-cache");
        let tag = first.headers()[ETAG].to_str().unwrap();
        for (sent, status) in [
            (tag.to_owned(), StatusCode::NOT_MODIFIED),
            (format!("\"other\", W/{tag}"), StatusCode::NOT_MODIFIED),
            ("*".to_owned(), StatusCode::NOT_MODIFIED),
            ("\"other\"".to_owned(), StatusCode::OK),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(IF_NONE_MATCH, HeaderValue::try_from(&sent).unwrap());
            let again = answer(&Method::GET, "/assets/main.js", &fields).unwrap();
            assert_eq!(again.status(), status, "{sent}");
            assert_eq!(again.headers()[ETAG], tag);
        }
    }

    #[test]
    fn it_cannot_be_written_to() {
        let refused = answer(&Method::POST, "/", &HeaderMap::new()).unwrap();
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
        assert!(refused.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().contains("'none'"));
    }
}
