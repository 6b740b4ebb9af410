//! Certificates and keys are read, looked at, watched, and refused where they stand.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::Folder;
use crate::config::{effective, load, parse};

/// A certificate that may be an authority, and its key.
fn authority() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn files_are_read_watched_and_named_but_not_shown() {
    let folder = Folder::new("instance-tls-files");
    let (certificate, key) = authority();
    let [ca, cert, key_file] = ["ca.pem", "own.pem", "own.key"]
        .map(|name| folder.file(name, if name.ends_with("key") { &key } else { &certificate }));
    let text = "instances: [a:1]\ntls: {ca: ca.pem, cert: own.pem, key: own.key}\n";
    let file = folder.file("c.yaml", text);
    let loaded = load(&file).unwrap();
    assert_eq!(loaded.watched, [file.clone(), ca, cert, key_file]);
    let tls = loaded.config.services[0].versions[0].tls.clone().unwrap();
    assert_eq!((tls.roots.len(), tls.verify), (1, true));
    let shown = effective(&loaded.config);
    assert!(!shown.contains("PRIVATE") && !format!("{tls:?}").contains("PRIVATE"), "{shown}");
    let elsewhere = parse(&shown, std::path::Path::new("/elsewhere/c.yaml")).unwrap();
    assert_eq!(elsewhere.config, loaded.config);

    let (other, _) = authority();
    folder.file("ca.pem", other);
    assert_ne!(load(&file).unwrap().config, loaded.config, "another authority is a change");
}

#[test]
fn what_cannot_be_used_is_a_problem_of_its_key() {
    let folder = Folder::new("instance-tls-problems");
    let ((certificate, key), (_, other)) = (authority(), authority());
    folder.file("good.pem", &certificate);
    folder.file("good.key", &key);
    folder.file("other.key", other);
    folder.file("empty.pem", "");
    let spoilt: String = certificate.replace("MII", "AII");
    folder.file("spoilt.pem", spoilt);
    folder.file("cut.pem", &certificate[..certificate.len() / 2]);
    for (tls, expected) in [
        ("ca: absent.pem", "c.yaml:2: tls.ca: cannot read absent.pem: No such file or directory"),
        ("ca: empty.pem", "c.yaml:2: tls.ca: empty.pem: no certificate in it; needed"),
        ("ca: cut.pem", "c.yaml:2: tls.ca: cut.pem: "),
        ("ca: spoilt.pem", "c.yaml:2: tls.ca: spoilt.pem: certificate 1 cannot be trusted: "),
        ("ca: good.pem, cert: good.pem", "c.yaml:2: tls.cert: `key` is missing beside it"),
        ("ca: good.pem, key: good.key", "c.yaml:2: tls.key: `cert` is missing beside it"),
        (
            "ca: good.pem, cert: good.pem, key: good.pem",
            "c.yaml:2: tls.key: good.pem: no private key in it",
        ),
        (
            "ca: good.pem, cert: good.pem, key: other.key",
            "c.yaml:2: tls.key: other.key: cannot be used with good.pem: ",
        ),
        ("verify: false, CA: x", "c.yaml:2: tls.CA: unknown key, did you mean `ca`?"),
    ] {
        let file = folder.file("c.yaml", format!("instances: [a:1]\ntls: {{{tls}}}\n"));
        let errors = folder.relative(&load(&file).unwrap_err());
        assert!(errors.contains(expected), "{tls}: {errors}");
        assert!(!errors.contains(&key[40..80]), "{errors}");
        let check = format!("instances: [a:1]\nliveness_check: {{tls: {{{tls}}}}}\n");
        let file = folder.file("c.yaml", check);
        let errors = folder.relative(&load(&file).unwrap_err());
        assert!(errors.contains(&expected.replace(" tls.", " liveness_check.tls.")), "{errors}");
    }
}
