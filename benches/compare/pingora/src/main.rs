//! A proxy on pingora-proxy that does as little as one can: each request goes to the next instance.
//!
//! One worker that steals no work, which is what suits a benchmark of one core best; the pool of
//! connections to instances is as large as pingora's documentation has it by default.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Spread {
    instances: Vec<String>,
    turn: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Spread {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _: &mut Session,
        (): &mut (),
    ) -> pingora_core::Result<Box<HttpPeer>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let instance = self.instances[turn % self.instances.len()].as_str();
        Ok(Box::new(HttpPeer::new(instance, false, String::new())))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), instances) = (arguments.next(), arguments.collect::<Vec<_>>()) else {
        panic!("pingora-baseline LISTEN INSTANCE...");
    };
    assert!(!instances.is_empty(), "pingora-baseline LISTEN INSTANCE...");
    let conf = ServerConf { threads: 1, work_stealing: false, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let spread = Spread { instances, turn: AtomicUsize::new(0) };
    let mut service = http_proxy_service(&server.configuration, spread);
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
