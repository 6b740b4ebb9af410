//! The admin API of a running Burdock, as a script would use it.

use serde_json::{Value, json};

use super::client::{Client, Request, Response};
use super::{DEADLINE, pause};

/// Asks one Burdock; keeps its connection.
#[derive(Debug)]
pub struct Api {
    client: Client,
    token: Option<String>,
}

/// An answer: its status, and its body as JSON.
pub type Told = (u16, Value);

impl Api {
    pub fn of(burdock: &super::Burdock) -> Self {
        Self { client: Client::admin(burdock.admin()), token: None }
    }

    pub fn with_token(burdock: &super::Burdock, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..Self::of(burdock) }
    }

    pub async fn get(&mut self, path: &str) -> Told {
        told(&self.raw(Request::get(&at(path))).await)
    }

    pub async fn patch(&mut self, path: &str, body: Value) -> Told {
        self.change("PATCH", path, Some(body)).await
    }

    pub async fn post(&mut self, path: &str, body: Value) -> Told {
        self.change("POST", path, Some(body)).await
    }

    pub async fn put(&mut self, path: &str, body: Value) -> Told {
        self.change("PUT", path, Some(body)).await
    }

    pub async fn delete(&mut self, path: &str) -> Told {
        self.change("DELETE", path, None).await
    }

    async fn change(&mut self, method: &str, path: &str, body: Option<Value>) -> Told {
        let request = Request::new(method, &at(path)).with("Content-Type", "application/json");
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        told(&self.raw(request.body(&body)).await)
    }

    /// Any request, with the token.
    pub async fn raw(&mut self, request: Request) -> Response {
        let request = match &self.token {
            Some(token) => request.with("Authorization", &format!("Bearer {token}")),
            None => request,
        };
        self.client.send(&request).await
    }

    /// The status, which must be there.
    pub async fn status(&mut self) -> Value {
        let (status, told) = self.get("status").await;
        assert_eq!(status, 200, "{told}");
        told
    }

    /// An instance of the smallest configuration.
    pub async fn instance(&mut self, name: &str) -> Value {
        let (status, told) = self.get(&format!("instances/default/default/{name}")).await;
        assert_eq!(status, 200, "{told}");
        told
    }

    /// Changes an instance of the smallest configuration.
    pub async fn steer(&mut self, name: &str, wish: Value) -> Value {
        let (status, told) = self.patch(&format!("instances/default/default/{name}"), wish).await;
        assert_eq!(status, 200, "{told}");
        told
    }

    /// Adds one to the smallest configuration.
    pub async fn add(&mut self, name: &str, address: &str) -> Told {
        self.post("instances/default/default", json!({ "name": name, "address": address })).await
    }

    /// Polls an instance until it satisfies `wanted`.
    pub async fn wait(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = std::time::Instant::now();
        loop {
            let (_, told) = self.get(&format!("instances/default/default/{name}")).await;
            if wanted(&told) {
                return told;
            }
            assert!(begun.elapsed() < DEADLINE, "never of {name}, at last: {told}");
            pause().await;
        }
    }
}

fn at(path: &str) -> String {
    format!("/api/v1/{path}")
}

fn told(response: &Response) -> Told {
    let text = response.text();
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (response.status, value)
}
