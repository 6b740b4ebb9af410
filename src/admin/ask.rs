//! `GET /api/v1/explain` and `POST /api/v1/check`: where a request would go, what a reload would change.
//! Both only ask.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};
use crate::admin::router::Query;
use crate::config::overrides::Overrides;
use crate::config::{self, ConfigErrors};
use crate::proxy::explain::{self, Explanation};
use crate::snapshot::Live;
use crate::snapshot::plan::{self, Plan};

/// Says where the request would go that the query describes.
pub(super) fn explain(live: &Live, query: &Query) -> Result<Reply, Problem> {
    Ok(reply::json(StatusCode::OK, &explanation(live, query)?))
}

fn explanation(live: &Live, query: &Query) -> Result<Explanation, Problem> {
    let url = query.one("url")?;
    let url = url.ok_or_else(|| Problem::wrong("url: missing; needed: url=http://HOST/PATH"))?;
    let method = query.one("method")?.unwrap_or("GET");
    let client = query.one("client")?.map_or(Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)), |text| {
        text.parse().map_err(|_| Problem::wrong(format!("client: {text:?} is no IP address")))
    })?;
    let fields: Vec<_> = query.all("header").map(str::to_owned).collect();
    let asked = explain::Question::new(url, method, query.one("cookie")?, client, &fields);
    let asked = asked.map_err(|error| Problem::wrong(error.to_string()))?;
    let mut said = explain::explain(&live.snapshot(), asked);
    if let Some(listener) = &mut said.listener {
        let bound = live.bound();
        let is_it = |asked: &str| bound.iter().find(|it| it.asked.to_string() == asked);
        // Port 0 says little of where it is.
        *listener = is_it(listener).map_or_else(|| listener.clone(), |it| it.address.to_string());
    }
    Ok(said)
}

/// A configuration that might be reloaded.
#[derive(Debug, Deserialize)]
struct Proposal {
    /// Where it is, or would be: names it in problems, and relative paths in it begin at its folder.
    file: PathBuf,
    text: String,
}

/// Says what a reload to the configuration in the body would change. It may read files, which must hold
/// up nobody.
pub(super) async fn check(desk: &Arc<Desk>, body: Bytes) -> Result<Reply, Problem> {
    let desk = Arc::clone(desk);
    let planned = move || planned(&desk.live, &desk.overrides, &body);
    let planned = reply::aside("reading the configuration", planned).await??;
    Ok(reply::json(StatusCode::OK, &planned))
}

fn planned(live: &Live, overrides: &Overrides, body: &[u8]) -> Result<Plan, Problem> {
    let proposal: Proposal = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("needed: {{\"file\": .., \"text\": ..}}; {error}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    let mut loaded = config::parse(&proposal.text, &proposal.file)
        .map_err(|errors| rejected(&errors, &proposal.file))?;
    let applied = overrides.apply(&mut loaded, &proposal.file);
    applied.map_err(|errors| rejected(&errors, &proposal.file))?;
    let snapshot = live.snapshot();
    if loaded.config.is_shared() {
        // As it is now: whoever changes that asks the fleet.
        loaded.config = loaded.config.with_shared(&snapshot.filed);
    }
    Ok(plan::plan(&snapshot, &loaded.config, &loaded.warnings))
}

/// Every problem. What is wrong within other files is not told: whoever may ask this need not be one who
/// may read them.
fn rejected(errors: &ConfigErrors, file: &Path) -> Problem {
    let told = |problem: &config::Problem| match problem.file == file {
        true => problem.to_string(),
        false => {
            let file = problem.file.display();
            format!("{file}: has problems; `burdock check` beside it says which")
        }
    };
    let mut problems: Vec<_> = errors.problems().iter().map(told).collect();
    problems.dedup();
    let detail = "the configuration would be rejected";
    Problem { problems, ..Problem::wrong(detail) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::affinity::token::Keyring;

    fn live() -> Live {
        let text = "session_affinity: true\ninstances: [{ name: a, address: 127.0.0.1:1 }]\n";
        let config = config::parse(text, Path::new("c.yaml")).unwrap().config;
        let keyring = Keyring::new(&[[1; 32]]).unwrap();
        Live::new(Arc::new(config), Arc::new(keyring), 1).0
    }

    fn asked(query: &str) -> Result<Explanation, Problem> {
        explanation(&live(), &Query::parse(query)?)
    }

    #[test]
    fn a_query_is_a_request() {
        let query = "url=http%3A%2F%2Fa.test%2Fx%3Fy&method=POST&client=192.0.2.7\
                     &header=x%3A+y&header=host:b.test&cookie=a%3Db";
        let said = asked(query).unwrap();
        assert_eq!((said.choice.as_deref(), said.service.as_deref()), (Some("a"), Some("default")));
        let candidates = serde_json::to_value(said.candidates).unwrap();
        assert_eq!(candidates, json!([{ "instance": "a", "in": true, "reason": "ready" }]));
    }

    #[test]
    fn a_question_that_has_no_meaning_is_told_why() {
        for (query, detail) in [
            ("", "url: missing; needed: url=http://HOST/PATH"),
            ("url=x", "url: must be http://HOST/PATH or https://HOST/PATH, not \"x\""),
            ("url=http://a/&client=b", "client: \"b\" is no IP address"),
            ("url=http://a/&url=http://b/", "url: given more than once"),
        ] {
            let problem = asked(query).unwrap_err();
            assert_eq!((problem.status.as_u16(), &*problem.detail), (422, detail));
        }
    }

    fn proposed(text: &str) -> Result<Plan, Problem> {
        let body = json!({ "file": "new.yaml", "text": text }).to_string();
        planned(&live(), &Overrides::default(), body.as_bytes())
    }

    #[test]
    fn a_proposal_is_compared_with_what_runs() {
        let plan = proposed("instances: [{ name: b, address: 127.0.0.1:1 }]\n").unwrap();
        assert_eq!(plan.instances.added, ["default/default/b"]);
        assert_eq!(plan.instances.removed, ["default/default/a"]);
        assert_eq!(
            planned(&live(), &Overrides::default(), b"{}").unwrap_err().status,
            StatusCode::BAD_REQUEST
        );
    }

    #[test]
    fn what_the_command_line_replaces_is_no_change() {
        let listen = vec![([127, 0, 0, 1], 8081).into()];
        let overrides = Overrides { listen, admin: Some(([127, 0, 0, 1], 9901).into()) };
        let text = "instances: [{ name: a, address: 127.0.0.1:1 }]\n";
        let mut loaded = config::parse(text, Path::new("c.yaml")).unwrap();
        overrides.apply(&mut loaded, Path::new("c.yaml")).unwrap();
        let keyring = Arc::new(Keyring::new(&[[1; 32]]).unwrap());
        let live = Live::new(Arc::new(loaded.config), keyring, 1).0;
        let told = |text: &str| {
            let body = json!({ "file": "c.yaml", "text": text }).to_string();
            planned(&live, &overrides, body.as_bytes()).unwrap().changes
        };
        assert_eq!(told(text), [""; 0]);
        assert_eq!(
            told(&format!("{text}listeners: [127.0.0.1:9]\nadmin: {{ address: 127.0.0.1:7 }}\n")),
            [""; 0]
        );
        assert_eq!(told(&format!("{text}access_log: false\n")).len(), 1);
    }

    #[test]
    fn problems_are_told_but_not_what_other_files_hold() {
        let problems = proposed("nonsense: 1\n").unwrap_err().problems;
        let is_told = |problem: &String| problem.starts_with("new.yaml:1: nonsense: ");
        assert!(problems.iter().any(is_told), "{problems:?}");
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/rustfmt.toml");
        let told = proposed(&format!("instances: [a:1]\napp_yaml: {manifest}\n")).unwrap_err();
        let told = told.problems.join("\n");
        assert!(told.contains("has problems") && !told.contains("max_width"), "{told}");
    }
}
