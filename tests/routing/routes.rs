//! Parts of a service: redirects, other paths for instances, fields that are changed, and no way round any of
//! it by writing a path differently.

use crate::support::client::Response;
use crate::support::{Backend, Burdock, Fault, HEADER, Request, run_to_end};

fn config(app: &Backend, admin: &Backend) -> String {
    format!(
        "{HEADER}services:
  app:
    instances: [{{ name: app, address: {} }}]
    session_affinity: true
    routes:
      - {{ paths: [/old], redirect: {{ status: 301, to: 'https://new.test{{rest}}{{query}}' }} }}
      - {{ paths: [/moved], redirect: {{ to: '{{rest}}' }} }}
      - {{ hosts: ['*.old.test'], paths: [/], redirect: {{ status: 302, to: '{{scheme}}://app.test{{path}}{{query}}' }} }}
      - paths: [/api/v1, /api/v2]
        rewrite_prefix: /internal
        request_headers: {{ remove: [X-Debug], set: {{ X-Tenant: acme }}, add: {{ X-Tag: b }} }}
        response_headers: {{ remove: [X-Secret], set: {{ Server: none }}, add: {{ X-Served: app }} }}
  admin:
    paths: [/internal/admin]
    access: {{ deny: [127.0.0.0/8] }}
    instances: [{{ name: admin, address: {} }}]
",
        app.address, admin.address
    )
}

fn location(answer: &Response) -> (u16, &str) {
    (answer.status, answer.field("location").unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_sent_where_the_route_says() {
    let (app, admin) = (Backend::start("app").await, Backend::start("admin").await);
    let burdock = Burdock::start(&config(&app, &admin)).await;
    let mut client = burdock.client();
    assert_eq!(location(&client.get("/old/a/b?c=d").await), (301, "https://new.test/a/b?c=d"));
    assert_eq!(location(&client.get("/old").await), (301, "https://new.test"));
    assert_eq!(location(&client.get("/x/%2e%2e/old/y%20z").await), (301, "https://new.test/y%20z"));
    assert_eq!(location(&client.get("/moved//evil.test/x").await), (308, "/evil.test/x"));
    assert_eq!(location(&client.get("/moved/%2fevil.test").await), (308, "/%2fevil.test"));
    let request = Request::get("/p?q").with("Host", "www.old.test:8080");
    assert_eq!(location(&client.send(&request).await), (302, "http://app.test/p?q"));
    // A body that nobody asks for does not become the next request.
    let answer = client.post("/old/x", b"GET /old/evil HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status, answer.field("connection")), (301, None));
    assert_eq!(client.get("/").await.instance(), "app");
    assert_eq!(app.request_count() + admin.request_count(), 1, "redirects reach nobody");
    let line = burdock.access("/old", 1).await.swap_remove(0);
    assert_eq!((&line["status"], &line["service"]), (&301.into(), &"app".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_get_another_path_and_other_fields() {
    let (app, admin) = (Backend::start("app").await, Backend::start("admin").await);
    let burdock = Burdock::start(&config(&app, &admin)).await;
    let mut client = burdock.session();
    let request = Request::get("/api/v2/users?x=%2f")
        .with("X-Debug", "1")
        .with("X-Tenant", "other")
        .with("X-Tag", "a")
        // No client can have taken out what the route puts in.
        .with("Connection", "X-Tenant, X-Tag, close");
    let answer = client.send(&request).await;
    assert_eq!(answer.status, 200);
    assert_eq!((answer.field("server"), answer.field("x-served")), (Some("none"), Some("app")));
    assert!(answer.cookie("BURDOCK").is_some(), "what is Burdock's own stays");
    let recorded = app.requests().pop().expect("a request");
    assert_eq!(recorded.head.target(), "/internal/users?x=%2f");
    let fields = ["x-debug", "x-tenant", "x-tag"].map(|name| recorded.head.all(name).join(","));
    assert_eq!(fields, ["", "acme", "b"]);
    let line = burdock.access("/api/v2/users?x=%2f", 1).await.swap_remove(0);
    assert_eq!(line["path"], "/api/v2/users?x=%2f", "the log tells what the client asked for");
    // Nor can an instance.
    let named = "Connection: close, X-Served\r\nX-Served: it";
    let raw = format!("HTTP/1.1 200 OK\r\n{named}\r\nContent-Length: 0\r\n\r\n");
    app.misbehaves_times(Fault::Raw(raw.into_bytes()), 1);
    assert_eq!(client.get("/api/v2/y").await.field("x-served"), Some("app"));
    // Elsewhere nothing is touched.
    let answer = client.send(&Request::get("/other").with("X-Debug", "1")).await;
    assert_eq!(answer.field("x-served"), None);
    assert_eq!(app.requests().pop().expect("a request").head.field("x-debug"), Some("1"));
}

/// Whatever a client writes, what instances read of it is where the route leads.
#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_writing_a_path_leads_past_a_route() {
    let (app, admin) = (Backend::start("app").await, Backend::start("admin").await);
    let burdock = Burdock::start(&config(&app, &admin)).await;
    let mut client = burdock.client();
    for path in [
        "/internal/admin",
        "/internal//admin/x",
        "/internal/%61dmin/x",
        "/x/../internal/admin",
        "/api/v1/%2e%2e/%2e%2e/internal/admin",
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 403, "{path}");
    }
    // What only some instances read like that is nobody's.
    for path in [
        "/internal%2fadmin",
        "/api/v1/..%2f..%2finternal/admin",
        "/internal/admin;x=1",
        "/internal/;/admin",
        "/x/..;/internal/admin",
        "/x%5c..%5cinternal%5cadmin",
        "/internal/admin/..%2f..%2fx",
        "/api/v1/..;/..;/manager",
    ] {
        let answer = client.get(path).await;
        assert_eq!((answer.status, answer.text()), (400, "400 ambiguous_path\n".into()), "{path}");
    }
    for (path, target) in [
        ("/api/v1/x/../y", "/internal/y"),
        ("/api/v1/x%2f..%2f..%2fv1%2fz", "/internal/z"),
        ("/%61pi/v1/y", "/internal/y"),
        ("//api//v1//y", "/internal/y"),
        ("/api/v1/a%2fb", "/internal/a%2fb"),
        ("/api/v1/a%2fb/v1...v2;x=1", "/internal/a%2fb/v1...v2;x=1"),
        ("/api/v1/x/..;/y", "/internal/y"),
        ("/api/v1/%252e%252e/y", "/internal/%252e%252e/y"),
    ] {
        assert_eq!(client.get(path).await.instance(), "app", "{path}");
        assert_eq!(app.requests().pop().expect("a request").head.target(), target, "{path}");
    }
    assert_eq!(admin.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_of_routes() {
    let (app, admin) = (Backend::start("app").await, Backend::start("admin").await);
    let burdock = Burdock::start(&config(&app, &admin)).await;
    let at = format!("http://{}", burdock.admin());
    let explain = |url: &str| {
        let output = run_to_end(&burdock.directory, &["explain", "--url", url, "--admin", &at]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = explain("http://a.test/old/x");
    assert!(text.contains("routes[0] redirects to https://new.test{rest}{query}"), "{text}");
    assert!(
        text.contains("answered with 301: it sends its clients to https://new.test/x"),
        "{text}"
    );
    let text = explain("http://a.test/internal/admin;x");
    assert!(text.contains("answered with 400: ambiguous_path"), "{text}");
    let text = explain("http://a.test/api/v1/x");
    assert!(
        text.contains("path /api/v1 covers it; routes[3] has /internal in its place"),
        "{text}"
    );
    assert!(text.contains("app (new)"), "{text}");
}
