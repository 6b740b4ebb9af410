//! HAProxy and nginx before the same instance, as their documentation says to set them up.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::origin::Origin;
use crate::support;

const HAPROXY: &str = "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 2s\n  \
    timeout client 10s\n  timeout server 10s\n  option forwardfor\nfrontend f\n  bind PROXY\n  \
    default_backend b\nbackend b\n  http-reuse aggressive\n  server s1 ORIGIN\n";

// WebSockets as in https://nginx.org/en/docs/http/websocket.html.
const NGINX: &str = "worker_processes 1; daemon off; master_process off; pid DIR/px.pid; \
    error_log DIR/px.log crit; events { worker_connections 1000; }\n\
    http { access_log off;\n\
    map $http_upgrade $connection_upgrade { default upgrade; '' ''; }\n\
    upstream u { server ORIGIN max_fails=0; keepalive 16; }\n\
    server { listen PROXY; location / { proxy_pass http://u; proxy_http_version 1.1;\n\
    proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; } } }\n";

/// A running peer; killed when dropped.
#[derive(Debug)]
pub struct Peer {
    pub name: String,
    pub address: SocketAddr,
    child: Child,
    directory: PathBuf,
}

impl Peer {
    pub async fn haproxy(origin: &Origin) -> Self {
        let argv =
            |file: &str| vec!["-db".to_owned(), "-q".to_owned(), "-f".to_owned(), file.into()];
        Self::start("haproxy", HAPROXY, origin, &["-v"], argv).await
    }

    pub async fn nginx(origin: &Origin) -> Self {
        let argv = |file: &str| vec!["-c".to_owned(), file.to_owned()];
        Self::start("nginx", NGINX, origin, &["-v"], argv).await
    }

    async fn start(
        program: &str,
        config: &str,
        origin: &Origin,
        version: &[&str],
        argv: impl Fn(&str) -> Vec<String>,
    ) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let name = format!("burdock-{program}-{}", address.port());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a folder");
        let file = write(&directory, config, address, origin);
        let child = Command::new(program)
            .args(argv(&file))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
        let listens = || TcpStream::connect(address).is_ok().then_some(());
        support::eventually("the peer listens", listens).await;
        Self { name: version_of(program, version), address, child, directory }
    }
}

fn write(directory: &Path, config: &str, address: SocketAddr, origin: &Origin) -> String {
    let text = config
        .replace("PROXY", &address.to_string())
        .replace("ORIGIN", &origin.address.to_string())
        .replace("DIR", &directory.to_string_lossy());
    let file = directory.join("config");
    std::fs::write(&file, text).expect("write the configuration");
    file.to_string_lossy().into_owned()
}

/// The program and the first number that it tells of itself.
fn version_of(program: &str, arguments: &[&str]) -> String {
    let told = Command::new(program).args(arguments).output().expect("a version");
    let text = [told.stdout, told.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let is_version =
        |word: &&str| word.contains('.') && word.contains(|it: char| it.is_ascii_digit());
    let word = text.split([' ', '/', '\n']).find(is_version).unwrap_or_default();
    format!("{program} {}", word.split('-').next().unwrap_or_default())
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
