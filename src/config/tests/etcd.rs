//! How an etcd is reached: files are read, watched and named, and secrets are not shown.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::Folder;
use crate::config::types::{Config, Etcd, Source};
use crate::config::{effective, load, parse};

fn etcd(config: &Config) -> Etcd {
    match &config.services[0].versions[0].discovery.as_ref().unwrap().source {
        Source::Etcd(keys) => keys.etcd.clone(),
        other => panic!("{other:?}"),
    }
}

/// Some files, and a configuration that names them all.
fn folder(name: &str) -> (Folder, String) {
    let folder = Folder::new(name);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    folder.file("ca.pem", params.self_signed(&key).unwrap().pem());
    folder.file("ca.key", key.serialize_pem());
    folder.file("password", " a secret \n");
    let text = "discovery:\n  etcd:\n    endpoints: [https://a:1, http://b:2]\n    prefix: /x/\n    \
                ca: ca.pem\n    cert: ca.pem\n    key: ca.key\n    user: me\n    \
                password_file: password\n";
    (folder, text.to_owned())
}

#[test]
fn all_that_is_given_is_read_and_no_secret_is_shown() {
    let (folder, text) = folder("etcd-files");
    let file = folder.file("c.yaml", text);
    let loaded = load(&file).unwrap();
    let names: Vec<_> =
        loaded.watched.iter().map(|it| it.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["c.yaml", "ca.pem", "ca.key", "password"]);
    let read = etcd(&loaded.config);
    assert_eq!(read.user.as_ref().unwrap().password, " a secret ");
    assert!(read.tls.as_ref().unwrap().certificate.is_some());
    let shown = effective(&loaded.config);
    let debug = format!("{:?}", loaded.config);
    assert!(!shown.contains("a secret") && !debug.contains("a secret"), "{shown}");
    let elsewhere = parse(&shown, std::path::Path::new("/elsewhere/c.yaml")).unwrap();
    assert_eq!(elsewhere.config, loaded.config);
    folder.file("password", "another");
    assert_ne!(load(&file).unwrap().config, loaded.config, "another password is a change");
}

#[test]
fn what_cannot_be_used_is_a_problem_of_its_key() {
    let (folder, text) = folder("etcd-problems");
    folder.file("two", "a\nb\n");
    folder.file("empty", "\n");
    for (old, new, told) in [
        (
            "    endpoints: [https://a:1, http://b:2]\n",
            "",
            ": discovery.etcd: `endpoints` is missing",
        ),
        ("    prefix: /x/\n", "", ": discovery.etcd: `prefix` is missing"),
        ("https://a:1", "http://a:1", ".ca: no endpoint is https; allowed: beside one that is"),
        ("    key: ca.key\n", "", ".cert: `key` is missing beside it; allowed: both or neither"),
        ("    cert: ca.pem\n", "", ".key: `cert` is missing beside it; allowed: both or neither"),
        ("    user: me\n", "", ".password_file: `user` is missing beside it"),
        ("    password_file: password\n", "", ".user: `password_file` is missing beside it"),
        ("password_file: password", "password_file: absent", ".password_file: cannot read absent"),
        ("password_file: password", "password_file: two", ".password_file: two holds no password"),
        ("password_file: password", "password_file: empty", "empty holds no password; needed: one"),
        (
            "endpoints:",
            "endpoint:",
            "did you mean `endpoints`?; allowed in etcd: endpoints, ca, cert,",
        ),
    ] {
        let file = folder.file("c.yaml", text.replace(old, new));
        let problem = folder.relative(&load(&file).unwrap_err());
        assert!(problem.contains(told), "{problem}");
    }
}
