//! TLS with clients as OpenSSL sees it, which speaks much that is out of date: what is to be had, what is
//! not, and which of two certificates for one host a client gets.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::burdock::scratch;
use crate::support::tls::Authority;
use crate::support::{self, Backend, Burdock, yaml};

/// A balancer with a certificate for a.test of each kind of key.
struct Site {
    burdock: Burdock,
    _backend: Backend,
}

fn openssl(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.output().expect("openssl is there; tests/clients/install installs it")
}

/// `rsa.pem` and `rsa.key`, which sign themselves.
fn rsa(folder: &Path) {
    let request = "req -x509 -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.pem -days 2 \
                   -subj /CN=rsa -addext subjectAltName=DNS:a.test";
    let made = openssl(folder, &request.split_whitespace().collect::<Vec<_>>());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

impl Site {
    async fn open(rest: &str) -> Self {
        let (backend, folder) = (Backend::start("a").await, scratch());
        rsa(&folder);
        Authority::new("ca").issue(&["a.test"]).save(&folder, "ec");
        let certificates =
            "certificates: [{ cert: rsa.pem, key: rsa.key }, { cert: ec.pem, key: ec.key }]";
        Self::serve(backend, folder, &format!("{certificates}, {rest}")).await
    }

    async fn serve(backend: Backend, folder: PathBuf, tls: &str) -> Self {
        let listener = format!("listeners:\n  - address: 127.0.0.1:0\n    tls: {{ {tls} }}\n");
        let text = yaml(&[&backend], "");
        let text = text.replace("listeners: [{ address: 127.0.0.1:0 }]\n", &listener);
        let config = folder.join("burdock.yaml");
        std::fs::write(&config, text).expect("write the config");
        let path = config.display().to_string();
        let burdock = Burdock::spawn(folder, config, &["run", "-c", &path]).await;
        Self { burdock, _backend: backend }
    }

    /// What `openssl s_client` tells of a handshake after which it says nothing.
    async fn client(&self, arguments: &str) -> String {
        self.asking(arguments, "").await
    }

    /// What it tells that is given `input`.
    async fn asking(&self, arguments: &str, input: &str) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &self.burdock.address().to_string()]);
        command.args(arguments.split_whitespace()).current_dir(&self.burdock.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().expect("openssl; tests/clients/install installs it");
        let mut stdin = client.stdin.take().expect("stdin is piped");
        stdin.write_all(input.as_bytes()).expect("give it the input");
        drop(stdin);
        let ended = tokio::task::spawn_blocking(move || client.wait_with_output());
        let output = support::within("a handshake of openssl", ended).await;
        let output = output.expect("a thread that waits").expect("openssl ends");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn kind(told: &str) -> &'static str {
    match told {
        told if told.contains("Peer signature type: RSA") => "rsa",
        told if told.contains("Peer signature type: ECDSA") => "ecdsa",
        _ => "none",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_certificate_whose_signature_it_can_verify() {
    let site = Site::open("").await;
    for (arguments, expected) in [
        ("-servername a.test", "ecdsa"),
        ("-servername a.test -tls1_2", "ecdsa"),
        ("-servername a.test -sigalgs RSA-PSS+SHA256", "rsa"),
        ("-servername a.test -sigalgs ECDSA+SHA256", "ecdsa"),
        ("-servername a.test -sigalgs RSA-PSS+SHA256:ECDSA+SHA256", "ecdsa"),
        ("-servername a.test -tls1_2 -sigalgs RSA+SHA256", "rsa"),
        ("-servername a.test -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "rsa"),
        ("-servername a.test -tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", "ecdsa"),
        ("-noservername -sigalgs RSA-PSS+SHA256", "rsa"),
        ("-noservername", "ecdsa"),
        ("-servername other.test -sigalgs RSA-PSS+SHA256", "rsa"),
        ("-servername a.test -sigalgs ed25519", "none"),
    ] {
        let told = site.client(arguments).await;
        assert_eq!(kind(&told), expected, "{arguments}\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_date_is_not_to_be_had() {
    let site = Site::open("").await;
    for arguments in [
        "-tls1 -cipher ALL:@SECLEVEL=0",
        "-tls1_1 -cipher ALL:@SECLEVEL=0",
        "-tls1_2 -cipher eNULL:@SECLEVEL=0",
        "-tls1_2 -cipher aNULL:@SECLEVEL=0",
        "-tls1_2 -cipher kRSA:@SECLEVEL=0",
        "-tls1_2 -cipher kDHE:@SECLEVEL=0",
        "-tls1_2 -cipher ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0",
        "-tls1_2 -cipher ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384:@SECLEVEL=0",
        "-tls1_2 -cipher CAMELLIA:ARIA:@SECLEVEL=0",
        "-tls1_2 -sigalgs RSA+SHA1:ECDSA+SHA1 -cipher ALL:@SECLEVEL=0",
        "-tls1_3 -ciphersuites TLS_AES_128_CCM_SHA256",
        "-groups ffdhe2048 -tls1_3",
        "-alpn spdy/3",
    ] {
        let told = site.client(&format!("-servername a.test {arguments}")).await;
        let is_refused = told.contains("no peer certificate available");
        // What this build of OpenSSL doesn't know itself would be refused by it, not by Burdock.
        let is_known = told.contains("CONNECTED(") && told.contains("alert");
        assert!(is_refused && is_known, "{arguments}\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_had_is_secure() {
    let site = Site::open("").await;
    for version in ["-tls1_2", "-tls1_3"] {
        let told = site.client(&format!("-servername a.test {version} -alpn h2,http/1.1")).await;
        let secure = told.contains("Secure Renegotiation IS supported") || version == "-tls1_3";
        assert!(secure && told.contains("Compression: NONE"), "{version}\n{told}");
        assert!(told.contains("ALPN protocol: h2"), "{version}\n{told}");
        assert!(!told.contains("Max Early Data: 1") && !told.contains("Early data was accepted"));
    }
    let suites = ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-AES256-GCM-SHA384"];
    for suite in suites {
        let told = site.client(&format!("-servername a.test -tls1_2 -cipher {suite}")).await;
        assert!(told.contains(&format!("Cipher is {suite}")), "{told}");
        assert!(told.contains("Extended master secret: yes"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed() {
    let site = Site::open("").await;
    for (version, words) in [("-tls1_2", "Reused, TLSv1.2"), ("-tls1_3", "Reused, TLSv1.3")] {
        // An answer comes after the tickets.
        let asking = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let first = format!("-servername a.test -ign_eof {version} -sess_out session");
        let told = site.asking(&first, asking).await;
        assert!(told.contains("New, ") && told.contains("HTTP/1.1 200 "), "{told}");
        let again = format!("-servername a.test {version} -sess_in session");
        let told = site.client(&again).await;
        assert!(told.contains(words), "{version}\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_renegotiates() {
    let site = Site::open("").await;
    let told = site.asking("-servername a.test -tls1_2", "R\n").await;
    assert!(told.contains("RENEGOTIATING") && told.contains("no renegotiation"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_of_a_ca_on_its_certificate_is_stapled() {
    let (backend, folder) = (Backend::start("a").await, scratch());
    rsa(&folder);
    let run = |arguments: &str| {
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        let done = openssl(&folder, &arguments);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let serial = run("x509 -in rsa.pem -noout -serial");
    let serial = serial.trim().trim_start_matches("serial=");
    let index = format!("V\t491231235959Z\t\t{serial}\tunknown\t/CN=rsa\n");
    std::fs::write(folder.join("index"), index).expect("write an index");
    run("ocsp -issuer rsa.pem -cert rsa.pem -no_nonce -reqout asked.der");
    run("ocsp -index index -rsigner rsa.pem -rkey rsa.key -CA rsa.pem -reqin asked.der \
         -respout told.der -ndays 2");
    let certificates = "certificates: [{ cert: rsa.pem, key: rsa.key, ocsp: told.der }]";
    let site = Site::serve(backend, folder, certificates).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let told = site.client(&format!("-servername a.test {version} -status")).await;
        assert!(told.contains("OCSP Response Status: successful"), "{version}\n{told}");
        assert!(told.contains("Cert Status: good"), "{version}\n{told}");
    }
}
