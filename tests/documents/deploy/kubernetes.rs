//! The manifests in `deploy/kubernetes` and its overlay `deploy/production`, put together as Kustomize would.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use burdock::admin::metrics;
use burdock::config;
use burdock::config::types::Config;
use serde_json::{Map, Value, json};

use super::{can_run, deployed, documents, fields, read};
use crate::support::burdock::scratch;
use crate::support::{Burdock, Client, run_to_end};

/// What Burdock's own pods are called by.
const OURS: &str = "burdock";

fn string<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {pointer}: {value}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn names(values: &[Value], key: &str) -> BTreeSet<String> {
    values.iter().map(|value| value[key].as_str().expect("a name").to_owned()).collect()
}

/// All objects that a kustomization makes.
fn objects(folder: &Path) -> Vec<Value> {
    let kustomization = documents(&folder.join("kustomization.yaml")).remove(0);
    let mut objects = Vec::new();
    for resource in list(&kustomization, "/resources") {
        let path = folder.join(resource.as_str().expect("a path"));
        match path.is_dir() {
            true => objects.extend(self::objects(&path)),
            false => objects.extend(documents(&path)),
        }
    }
    for patch in list(&kustomization, "/patches") {
        for patch in documents(&folder.join(string(patch, "/path"))) {
            let patched = objects.iter_mut().find(|object| id(object) == id(&patch));
            merge(patched.unwrap_or_else(|| panic!("nothing to patch: {patch}")), &patch);
        }
    }
    for generator in list(&kustomization, "/configMapGenerator") {
        let files = list(generator, "/files").iter().map(|file| file.as_str().expect("a file"));
        let data: Map<_, _> =
            files.map(|file| (file.to_owned(), read(&folder.join(file)).into())).collect();
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": generator["name"] }, "data": data,
        });
        let before = objects.iter().position(|object| id(object) == id(&map));
        let replaces = generator["behavior"] == "replace";
        assert_eq!(before.is_some(), replaces, "{} must say whether it replaces", id(&map));
        before.map(|index| objects.remove(index));
        objects.push(map);
    }
    objects
}

fn id(object: &Value) -> String {
    format!("{} {}", string(object, "/kind"), string(object, "/metadata/name"))
}

/// Maps are merged; the patches here have no lists that Kustomize would merge by a key.
fn merge(value: &mut Value, patch: &Value) {
    match (value, patch) {
        (Value::Object(map), Value::Object(patch)) => {
            for (key, patch) in patch {
                merge(map.entry(key.clone()).or_insert(Value::Null), patch);
            }
        }
        (value, patch) => *value = patch.clone(),
    }
}

/// Base and overlay.
fn both() -> [Vec<Value>; 2] {
    [objects(&deployed("kubernetes")), objects(&deployed("production"))]
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn one<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = of_kind(objects, kind).into_iter();
    let found = found.find(|object| object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Everything that has pods.
fn workloads(objects: &[Value]) -> Vec<&Value> {
    [of_kind(objects, "Deployment"), of_kind(objects, "StatefulSet")].concat()
}

fn chosen<'a>(objects: &'a [Value], labels: &Value) -> Vec<&'a Value> {
    let wanted = labels.as_object().filter(|labels| !labels.is_empty()).expect("labels");
    let has =
        |pod: &Value| wanted.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value);
    workloads(objects).into_iter().filter(|workload| has(&workload["spec"]["template"])).collect()
}

fn ports(workload: &Value) -> BTreeSet<String> {
    let containers = list(workload, "/spec/template/spec/containers");
    containers.iter().flat_map(|container| names(list(container, "/ports"), "name")).collect()
}

#[test]
fn every_manifest_has_fields_that_there_are_and_is_in_its_kustomization() {
    for folder in ["kubernetes", "production"] {
        let folder = deployed(folder);
        let kustomization = read(&folder.join("kustomization.yaml"));
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            // The shape of a secret is never applied; roles only where discovery asks the API server.
            let by_itself = ["kustomization.yaml", "secret.yaml", "rbac.yaml"].contains(&&*name);
            assert!(by_itself || kustomization.contains(&name), "{name} is in no list");
            if ["kustomization.yaml", "burdock.yaml"].contains(&&*name) {
                continue;
            }
            for object in documents(&path) {
                assert_eq!(fields::problems(&object), [""; 0], "{}", path.display());
            }
        }
    }
    for objects in both() {
        let ids: BTreeSet<_> = objects.iter().map(id).collect();
        assert_eq!(ids.len(), objects.len(), "two of one name: {ids:?}");
    }
}

#[test]
fn selectors_and_ports_lead_to_pods() {
    for objects in both() {
        for workload in workloads(&objects) {
            let own = chosen(&objects, &workload["spec"]["selector"]["matchLabels"]);
            assert_eq!(own, [workload], "{} chooses its own pods", id(workload));
        }
        for service in of_kind(&objects, "Service") {
            let pods = chosen(&objects, &service["spec"]["selector"]);
            assert_eq!(pods.len(), 1, "{}", id(service));
            for port in list(service, "/spec/ports") {
                let target = string(port, "/targetPort");
                assert!(ports(pods[0]).contains(target), "{}: {target}", id(service));
            }
        }
        for budget in of_kind(&objects, "PodDisruptionBudget") {
            assert_eq!(chosen(&objects, &budget["spec"]["selector"]["matchLabels"]).len(), 1);
        }
        for scaler in of_kind(&objects, "HorizontalPodAutoscaler") {
            let target = &scaler["spec"]["scaleTargetRef"];
            let scaled = one(&objects, string(target, "/kind"), string(target, "/name"));
            assert_eq!(scaled["apiVersion"], target["apiVersion"]);
            assert_eq!(scaled["spec"]["replicas"], Value::Null, "two would say how many there are");
            assert!(
                scaler["spec"]["minReplicas"].as_u64() < scaler["spec"]["maxReplicas"].as_u64()
            );
        }
        for set in of_kind(&objects, "StatefulSet") {
            let service = one(&objects, "Service", string(set, "/spec/serviceName"));
            assert_eq!(
                service["spec"]["clusterIP"], "None",
                "a StatefulSet's names need a headless Service"
            );
        }
    }
}

#[test]
fn the_network_policy_lets_through_what_is_needed_and_no_more() {
    let [_, objects] = both();
    let policy = one(&objects, "NetworkPolicy", OURS);
    let ours = one(&objects, "Deployment", OURS);
    assert_eq!(chosen(&objects, &policy["spec"]["podSelector"]["matchLabels"]), [ours]);
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let mut open = BTreeSet::new();
    for rule in list(policy, "/spec/ingress") {
        for port in list(rule, "/ports") {
            let port = string(port, "/port");
            assert!(ports(ours).contains(port), "{port}");
            assert_eq!(rule["from"].is_null(), port == "http", "only clients come from anywhere");
            open.insert(port.to_owned());
        }
    }
    assert_eq!(open, ports(ours), "every port of the pod is let through");
    let to_pods = |rule: &&Value| !rule["to"][0]["podSelector"].is_null();
    let to_app: Vec<_> = list(policy, "/spec/egress").iter().filter(to_pods).collect();
    let app = &to_app[0]["to"][0]["podSelector"]["matchLabels"];
    assert_eq!(chosen(&objects, app), [one(&objects, "StatefulSet", "chat")]);
}

#[test]
fn volumes_mounts_and_accounts_exist() {
    let secret = documents(&deployed("kubernetes/secret.yaml")).remove(0);
    for objects in both() {
        for workload in workloads(&objects) {
            let pod = &workload["spec"]["template"]["spec"];
            let volumes = list(pod, "/volumes");
            let container = &pod["containers"][0];
            assert_eq!(names(volumes, "name"), names(list(container, "/volumeMounts"), "name"));
            for volume in volumes {
                if let Some(name) = volume.pointer("/configMap/name").and_then(Value::as_str) {
                    one(&objects, "ConfigMap", name);
                }
                if let Some(name) = volume.pointer("/secret/secretName") {
                    assert_eq!(*name, secret["metadata"]["name"]);
                }
            }
            if let Some(account) = pod["serviceAccountName"].as_str() {
                one(&objects, "ServiceAccount", account);
            }
        }
    }
}

#[test]
fn pods_have_no_right_that_they_do_not_need() {
    for objects in both() {
        for workload in workloads(&objects) {
            let pod = &workload["spec"]["template"]["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false);
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert!(pod["securityContext"]["runAsUser"].as_u64().is_some_and(|user| user > 0));
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for container in list(pod, "/containers") {
                let rights = &container["securityContext"];
                assert_eq!(rights["allowPrivilegeEscalation"], false);
                assert_eq!(rights["readOnlyRootFilesystem"], true);
                assert_eq!(rights["capabilities"], json!({ "drop": ["ALL"] }));
            }
        }
    }
}

/// What a pod has at the places that its configuration names, below `folder`; and the text with these.
fn mounted(objects: &[Value], folder: &Path) -> (PathBuf, String) {
    let text = string(one(objects, "ConfigMap", OURS), "/data/burdock.yaml");
    let secrets = folder.join("secrets");
    std::fs::create_dir_all(&secrets).expect("a folder");
    let key = run_to_end(folder, &["keys", "new"]).stdout;
    std::fs::write(secrets.join("affinity.keys"), key).expect("write a key");
    std::fs::write(secrets.join("admin.token"), "a-token-of-thirty-two-characters\n")
        .expect("a token");
    let text = text.replace("/etc/burdock-secrets", &secrets.display().to_string());
    let text = text.replace("/var/lib/burdock", &folder.display().to_string());
    (folder.join("burdock.yaml"), text)
}

fn loaded(objects: &[Value]) -> Config {
    let (path, text) = mounted(objects, &scratch());
    config::parse(&text, &path).unwrap_or_else(|errors| panic!("{errors}")).config
}

#[test]
fn the_configuration_loads_and_fits_the_pod() {
    for objects in both() {
        let config = loaded(&objects);
        let pod = &one(&objects, "Deployment", OURS)["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let ports: BTreeSet<_> =
            list(container, "/ports").iter().map(|port| port["containerPort"].as_u64()).collect();
        let admin = config.admin.as_ref().expect("an admin address").address;
        let listening = config.listeners.iter().map(|listener| listener.address).chain([admin]);
        assert_eq!(ports, listening.map(|address| Some(address.port().into())).collect());
        let seconds = |value: &Value| value.as_u64().expect("seconds");
        let stop = seconds(&container["lifecycle"]["preStop"]["sleep"]["seconds"]);
        let grace = seconds(&pod["terminationGracePeriodSeconds"]);
        let shutdown = config.shutdown.timeout.as_secs();
        assert!(grace >= stop + shutdown + 5, "{stop} s and {shutdown} s within {grace} s");
        let mounts = list(container, "/volumeMounts");
        let is_mounted =
            |path: &str| mounts.iter().any(|mount| path.starts_with(string(mount, "/mountPath")));
        let text = string(one(&objects, "ConfigMap", OURS), "/data/burdock.yaml");
        let paths = text.split_whitespace().filter(|word| word.starts_with('/') && word.len() > 20);
        paths.for_each(|path| assert!(is_mounted(path), "{path} is not mounted"));
        let file = list(container, "/args")[2].as_str().expect("the configuration");
        assert!(is_mounted(file) && file.ends_with("/burdock.yaml"), "{file}");
        let arguments: Vec<_> =
            list(container, "/args").iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(&arguments[..2], ["run", "-c"]);
    }
}

#[test]
fn the_app_outlives_the_drain_of_its_sessions() {
    let [_, objects] = both();
    let drain = loaded(&objects).services[0].versions[0].drain.timeout.as_secs();
    let pod = &one(&objects, "StatefulSet", "chat")["spec"]["template"]["spec"];
    let serves =
        pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().expect("seconds");
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    assert!(grace > serves && serves > drain, "{drain} s of drain, {serves} s, {grace} s");
}

#[test]
fn nothing_runs_with_the_secret_as_it_is_shipped() {
    let [objects, _] = both();
    let folder = scratch();
    let (path, text) = mounted(&objects, &folder);
    let secret = documents(&deployed("kubernetes/secret.yaml")).remove(0);
    for (name, value) in secret["stringData"].as_object().expect("values") {
        std::fs::write(folder.join("secrets").join(name), value.as_str().expect("text"))
            .expect("write");
    }
    let refused = config::parse(&text, &path).expect_err("values that are none").to_string();
    for key in ["affinity.keys: no key", "admin.token_file"] {
        assert!(refused.contains(key), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_probe_is_answered_without_a_token() {
    let [objects, _] = both();
    let folder = scratch();
    let (path, text) = mounted(&objects, &folder);
    let text = text.replace("0.0.0.0:8080", "127.0.0.1:0").replace("0.0.0.0:9900", "127.0.0.1:0");
    // Nobody is asked for the app's records here.
    let text = text.replace("_http._tcp.chat, ", "_http._tcp.chat, resolvers: [\"127.0.0.1:1\"], ");
    std::fs::write(&path, text).expect("write the configuration");
    let arguments = ["run", "-c", &path.display().to_string()];
    let burdock = Burdock::spawn(folder, path.clone(), &arguments).await;
    let container = &one(&objects, "Deployment", OURS)["spec"]["template"]["spec"]["containers"][0];
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], "admin");
        assert_eq!(Client::admin(burdock.admin()).get(string(get, "/path")).await.status, 200);
    }
    assert_eq!(Client::admin(burdock.admin()).get("/metrics").await.status, 401);
    assert_eq!(burdock.client().get("/").await.status, 503, "it serves before instances are found");
}

#[test]
fn what_is_scaled_by_exists() {
    let adapter = documents(&deployed("prometheus/adapter.yaml")).remove(0);
    let rule = &adapter["rules"][0];
    let series = string(rule, "/seriesQuery").split('{').next().unwrap_or_default();
    assert!(metrics::NAMES.iter().any(|(name, ..)| *name == series), "{series}");
    for objects in both() {
        let scaler = one(&objects, "HorizontalPodAutoscaler", OURS);
        let pods = &scaler["spec"]["metrics"][0]["pods"]["metric"]["name"];
        assert_eq!(*pods, rule["name"]["as"]);
    }
    let scrape = documents(&deployed("prometheus/prometheus.yaml")).remove(0);
    let added =
        names(list(&scrape, "/scrape_configs/1/relabel_configs").get(1..).unwrap(), "target_label");
    for label in rule["resources"]["overrides"].as_object().expect("labels").keys() {
        assert!(added.contains(label), "{label} of {added:?}");
    }
}

#[test]
fn kubectl_puts_together_the_same() {
    if !can_run("kubectl", "help") {
        return;
    }
    for folder in ["kubernetes", "production"] {
        let made = Command::new("kubectl")
            .arg("kustomize")
            .arg(deployed(folder))
            .output()
            .expect("kubectl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let path = scratch().join("made.yaml");
        std::fs::write(&path, made.stdout).expect("write");
        let theirs = documents(&path);
        for object in &theirs {
            assert_eq!(fields::problems(object), [""; 0], "{}", id(object));
        }
        let mut ours = objects(&deployed(folder));
        assert_eq!(theirs.iter().map(id).collect::<BTreeSet<_>>(), ours.iter().map(id).collect());
        for object in &mut ours {
            let same = theirs.iter().find(|other| id(other) == id(object)).expect("found above");
            // Images and labels are Kustomize's work; of the rest only numbers in octal read differently.
            let rest = |object: &Value| match object["kind"].as_str() {
                Some("Deployment" | "StatefulSet") => object["spec"]["selector"].clone(),
                Some("ConfigMap") => object["data"].clone(),
                _ => object["spec"].clone(),
            };
            assert_eq!(rest(same), rest(object), "{}", id(object));
        }
    }
}
