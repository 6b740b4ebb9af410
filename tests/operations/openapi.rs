//! The admin API against its own document, by schemathesis: what it answers, to requests that the
//! document allows and to those that it does not, in sequences too, is what the document says.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::{self, Api, Backend, Burdock, yaml};
use crate::support_clients::environment;

const TOKEN: &str = "correct-horse-battery-staple";

/// The document with what only this Burdock knows: whom there is to ask for, and that nobody
/// outside this machine is to be named.
fn narrowed(mut document: Value) -> Value {
    let components = &mut document["components"];
    for (name, example) in [("service", "default"), ("version", "default"), ("name", "a")] {
        components["parameters"][name]["example"] = json!(example);
    }
    let address = json!({ "type": "string", "pattern": "^127\\.0\\.0\\.1:[1-9][0-9]{0,3}$" });
    components["schemas"]["Address"] = address;
    document["security"] = json!([{ "token": [] }]);
    // Nobody waits for the end of a stream: tests/observing/telemetry.rs reads them. And no schema tells a URL or a
    // configuration that makes sense from one that does not: tests/configuration/explain.rs asks those.
    // Nor one of a drill's promises: tests/operations/live_drill.rs makes those.
    let drills = ["/api/v1/drill", "/api/v1/drill/{id}/faults"];
    let others = ["/api/v1/events", "/api/v1/live", "/api/v1/explain", "/api/v1/check"];
    for path in drills.into_iter().chain(others) {
        document["paths"].as_object_mut().expect("paths").remove(path).expect("documented");
    }
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_the_document_says() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let directory = support::burdock::scratch();
    std::fs::write(directory.join("admin.token"), TOKEN).unwrap();
    let config = directory.join("burdock.yaml");
    let admin = "admin: { address: 127.0.0.1:0, token_file: admin.token }";
    let text = yaml(&[&a, &b], "session_affinity: true\n");
    std::fs::write(&config, text.replace("admin: { address: 127.0.0.1:0 }", admin)).unwrap();
    let burdock = Burdock::spawn(directory, config, &["run", "-c", "burdock.yaml"]).await;
    let mut api = Api::with_token(&burdock, TOKEN);
    let served = api.raw(Request::get("/api/v1/openapi.json")).await.text();
    let document = narrowed(serde_json::from_str(&served).unwrap());
    let file = burdock.directory.join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let output = tokio::task::spawn_blocking({
        let (file, folder) = (file.clone(), burdock.directory.clone());
        let url = format!("http://{}", burdock.admin());
        move || run(&file, &folder, &url)
    });
    let (passed, output) = output.await.unwrap();
    assert!(passed, "{output}");
    assert!(output.contains("Stateful") && output.contains("Coverage"), "{output}");
    assert!(!burdock.output().contains("panicked"), "{}", burdock.output());
    assert_eq!(api.get("status").await.0, 200);
}

/// One bounded run, the same each time.
fn run(document: &PathBuf, folder: &PathBuf, url: &str) -> (bool, String) {
    let token = format!("Authorization: Bearer {TOKEN}");
    let output = Command::new(environment("schemathesis"))
        .arg("run")
        .arg(document)
        .args(["--url", url, "--header", &token, "--seed", "7", "--max-examples", "25"])
        .args(["--phases", "examples,coverage,fuzzing,stateful", "--mode", "all"])
        // What is removed can be looked at until it has drained, as its 202 says.
        .args(["--checks", "all", "--exclude-checks", "use_after_free"])
        .args(["--generation-database", "none", "--no-color"])
        .args(["--request-timeout", "10"])
        .current_dir(folder)
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .output()
        .expect("start schemathesis");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
