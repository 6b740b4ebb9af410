//! `tls` and `https_redirect`: what its files may hold, what is said of those that may not, and that
//! no secret of theirs is shown.

use std::path::Path;

use super::{Folder, errors, with_instance};
use crate::config::{diff, effective, load, parse};

/// Files of certificates for these names, `NAME.pem` and `NAME.key` each.
pub(super) fn certificates(folder: &Folder, names: &[&str]) {
    for name in names {
        let made = rcgen::generate_simple_self_signed([format!("{name}.test")]).unwrap();
        folder.file(&format!("{name}.pem"), made.cert.pem());
        folder.file(&format!("{name}.key"), made.signing_key.serialize_pem());
    }
}

fn listener(tls: &str) -> String {
    with_instance(&format!("listeners:\n  - address: :443\n    tls: {tls}\n"))
}

fn loaded(folder: &Folder, tls: &str) -> Result<crate::config::Loaded, String> {
    let file = folder.file("c.yaml", listener(tls));
    load(&file).map_err(|errors| folder.relative(&errors))
}

const A: &str = "certificates: [{ cert: a.pem, key: a.key }]";

#[test]
fn texts_of_many_shapes_come_back_equal_and_show_no_key() {
    let folder = Folder::new("tls-shapes");
    certificates(&folder, &["a", "b"]);
    folder.file("t.keys", "q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=");
    folder.file("a.ocsp", [0x30, 3, 10, 1, 6]);
    let key = std::fs::read_to_string(folder.0.join("a.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for tls in [
        format!("{{ {A} }}"),
        format!("{{ {A}, min_version: 1.3, tickets: off, hsts: true, handshake_timeout: 3s }}"),
        format!("{{ {A}, min_version: '1.2', tickets: {{ file: t.keys }} }}"),
        format!("{{ {A}, hsts: {{ max_age: 0s }}, client_certificates: {{ ca: b.pem }} }}"),
        format!(
            "{{ {A}, client_certificates: {{ ca: b.pem, mode: optional, certificate_header: off, \
             fingerprint_header: X-Print }} }}"
        ),
        format!(
            "{{ {A}, acme: {{ domains: [A.test, b.test], email: x@a.test, ca: b.pem, state: here, \
             renew_before: 10d, challenge: tls-alpn-01, directory: 'https://ca.test:1/d?x', \
             external_account: {{ key_id: '1', key_file: t.keys }}, agree_to_terms: true }} }}"
        ),
        "{ acme: { domains: [a.test], ca: b.pem, agree_to_terms: true } }".to_owned(),
        "{ certificates: [{ cert: a.pem, key: a.key, ocsp: a.ocsp }, { cert: b.pem, key: b.key }] }"
            .to_owned(),
    ] {
        let loaded = loaded(&folder, &tls).unwrap();
        let text = effective(&loaded.config);
        for shown in [&text, &format!("{:?}", loaded.config)] {
            assert!(!shown.contains(secret) && !shown.contains("q83v"), "{shown}");
        }
        let elsewhere = parse(&text, Path::new("/elsewhere/c.yaml")).unwrap();
        assert!(elsewhere.config == loaded.config, "{text}");
        assert_eq!(loaded.warnings, [""; 0]);
    }
}

#[test]
fn every_file_is_watched_and_a_new_certificate_is_a_change() {
    let folder = Folder::new("tls-watched");
    certificates(&folder, &["a", "b"]);
    folder.file("t.keys", "q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=");
    let text =
        format!("{{ {A}, tickets: {{ file: t.keys }}, client_certificates: {{ ca: b.pem }} }}");
    let before = loaded(&folder, &text).unwrap();
    let mut names: Vec<_> =
        before.watched.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a.key", "a.pem", "b.pem", "c.yaml", "t.keys"]);
    certificates(&folder, &["a"]);
    let after = loaded(&folder, &text).unwrap();
    let changes = diff(&before.config, &after.config);
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["listener 0.0.0.0:443 changed"]);
}

/// The first problem of each `tls`: its path below the listener, a part of its message. Without a path it
/// is one of `a.pem`.
fn assert_problems(folder: &Folder, of: &[(String, &str, &str)]) {
    for (tls, path, message) in of {
        let told = loaded(folder, tls).unwrap_err();
        let first = told.lines().next().unwrap();
        let place =
            if path.is_empty() { "a.pem: ".to_owned() } else { format!(" listeners[0].{path}: ") };
        assert!(first.contains(&place) && first.contains(message), "{tls}\n{told}");
    }
}

#[test]
fn what_does_not_go_together_is_said_at_its_line() {
    let folder = Folder::new("tls-problems");
    certificates(&folder, &["a", "b"]);
    folder.file("empty", "");
    folder.file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.file("bare.pem", rcgen::generate_simple_self_signed([]).unwrap().cert.pem());
    let pair = |pair: &str| format!("{{ certificates: [{{ {pair} }}] }}");
    let more = |more: &str| format!("{{ {A}, {more} }}");
    let problems = [
        ("{}".to_owned(), "tls", "`certificates` is missing"),
        ("{ certificates: [] }".to_owned(), "tls.certificates", "no certificate; needed"),
        (pair("cert: a.pem"), "tls.certificates[0]", "`key` is missing"),
        (pair("cert: none.pem, key: a.key"), "tls.certificates[0].cert", "cannot read none.pem"),
        (pair("cert: empty, key: a.key"), "tls.certificates[0].cert", "no certificate in it"),
        (
            pair("cert: broken.pem, key: a.key"),
            "tls.certificates[0].cert",
            "no certificate for TLS",
        ),
        (
            pair("cert: a.pem, key: a.key, ocsp: a.pem"),
            "tls.certificates[0].ocsp",
            "holds no OCSP response",
        ),
        (pair("cert: a.pem, key: a.pem"), "tls.certificates[0].key", "no private key in it"),
        (pair("cert: a.pem, key: b.key"), "tls.certificates[0].key", "not the key of a.pem"),
        (
            "{ certificates: [{ cert: a.pem, key: a.key }, { cert: a.pem, key: a.key }] }"
                .to_owned(),
            "tls.certificates[1]",
            "a.test is also named by a.pem, which has an ECDSA key too",
        ),
        (more("min_version: 1.1"), "tls.min_version", "allowed: 1.2, 1.3"),
        (more("tickets: secret"), "tls.tickets", "allowed: auto, off, { file: PATH }"),
        (more("tickets: { file: a.pem }"), "", "no key; needed: at least one"),
        (more("client_certificates: {}"), "tls.client_certificates", "`ca` is missing"),
        (
            more("client_certificates: { ca: a.pem, certificate_header: Host }"),
            "tls.client_certificates.certificate_header",
            "a field of its own",
        ),
        (more("hsts: { max_age: 1500ms }"), "tls.hsts.max_age", "whole seconds"),
        (more("hsts: { preload: true }"), "tls.hsts", "needed: include_subdomains"),
        (more("handshake_timeout: 0s"), "tls.handshake_timeout", "a duration from 1ms"),
    ];
    assert_problems(&folder, &problems);
}

#[test]
fn what_does_not_go_together_with_acme_is_said_at_its_line() {
    let folder = Folder::new("tls-acme-problems");
    certificates(&folder, &["a"]);
    folder.file("empty", "");
    let acme = |rest: &str| format!("{{ acme: {{ ca: a.pem, domains: [a.test], {rest} }} }}");
    let agreed = |rest: &str| format!("{{ acme: {{ agree_to_terms: true, {rest} }} }}");
    let problems = [
        (acme(""), "tls.acme", "`agree_to_terms` is missing; needed: true"),
        (acme("agree_to_terms: false"), "tls.acme.agree_to_terms", "no CA signs anything without"),
        (agreed("domains: []"), "tls.acme.domains", "0 hosts; allowed: 1 to 100"),
        (agreed("domains: ['*.test']"), "tls.acme.domains[0]", "proofs in the DNS only"),
        (agreed("domains: [a.test, A.test]"), "tls.acme.domains[1]", "listed twice"),
        (agreed("domains: [192.0.2.1]"), "tls.acme.domains[0]", "hosts such as www.example.com"),
        (agreed("domains: [a_b.test]"), "tls.acme.domains[0]", "hosts such as www.example.com"),
        (agreed("domains: [a.test], email: you"), "tls.acme.email", "such as you@example.com"),
        (
            agreed("domains: [a.test], directory: 'http://ca.test/'"),
            "tls.acme.directory",
            "the https:// URL of an ACME directory",
        ),
        (
            agreed("domains: [a.test], challenge: dns-01"),
            "tls.acme.challenge",
            "tls-alpn-01, http-01",
        ),
        (agreed("domains: [a.test], ca: empty"), "tls.acme.ca", "no certificate in it"),
        (agreed("domains: [a.test], renew_before: 0s"), "tls.acme.renew_before", "from 1s"),
        (
            agreed("domains: [a.test], external_account: { key_id: x }"),
            "tls.acme.external_account",
            "`key_file` is missing",
        ),
        (
            agreed("domains: [a.test], external_account: { key_id: x, key_file: a.pem }"),
            "tls.acme.external_account.key_file",
            "no key in it; needed: base64url",
        ),
    ];
    assert_problems(&folder, &problems);
}

#[test]
fn a_certificate_out_of_its_time_is_taken_with_a_warning() {
    let folder = Folder::new("tls-expired");
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    folder.file("a.pem", params.self_signed(&key).unwrap().pem());
    folder.file("a.key", key.serialize_pem());
    let loaded = loaded(&folder, &format!("{{ {A} }}")).unwrap();
    let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    assert!(warning.starts_with("listeners[0].tls.certificates[0]: the certificate "), "{warning}");
    assert!(warning.ends_with("a.pem has expired"), "{warning}");
}

#[test]
fn a_proof_by_http_needs_a_plain_listener() {
    let folder = Folder::new("tls-acme-plain");
    certificates(&folder, &["a"]);
    let acme = "acme: { domains: [a.test], ca: a.pem, agree_to_terms: true, challenge: http-01 }";
    let alone = loaded(&folder, &format!("{{ {acme} }}")).unwrap();
    assert!(alone.warnings[0].contains("no listener is a plain one"), "{:?}", alone.warnings);
    let beside = loaded(&folder, &format!("{{ {acme} }}\n  - ':80'")).unwrap();
    assert_eq!(beside.warnings, [""; 0]);
}

#[test]
fn a_redirect_is_for_plain_listeners() {
    let folder = Folder::new("tls-redirect");
    certificates(&folder, &["a"]);
    let both = format!("{{ {A} }}\n    https_redirect: true");
    let told = loaded(&folder, &both).unwrap_err();
    assert!(told.contains("https_redirect: clients of this listener speak TLS already"), "{told}");
    for (redirect, message) in [
        ("yes", "allowed: true, false"),
        ("{ status: 200 }", "allowed: 301, 302, 307, 308"),
        ("{ port: 0 }", "a whole number from 1 to 65535"),
    ] {
        let text = format!("listeners:\n  - address: :80\n    https_redirect: {redirect}\n");
        let told = errors(&with_instance(&text));
        assert!(told.contains(message), "{told}");
    }
}
