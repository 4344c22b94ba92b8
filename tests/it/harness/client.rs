//! Requests through the real router, and answers that can be compared.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::ConnectInfo,
    http::{HeaderMap, Method, Request, Response, StatusCode, header},
};
use bytes::Bytes;
use doc_server::runtime::listen::{Early, Front, Head};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::TestApp;

/// The caller of requests that come over no socket.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl TestApp {
    /// `GET` on the public door.
    pub async fn get(&self, path: &str) -> Reply {
        self.request(Method::GET, path, None).await
    }

    /// `POST` with JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.request(Method::POST, path, Some(body)).await
    }

    /// `PATCH` with JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.request(Method::PATCH, path, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Reply {
        self.request(Method::DELETE, path, None).await
    }

    /// A search that must succeed, as JSON.
    #[track_caller]
    pub fn search(&self, parameters: &str) -> impl Future<Output = Value> + use<'_> {
        let (caller, path) = (std::panic::Location::caller(), format!("/api/search?{parameters}"));
        async move {
            let reply = self.get(&path).await;
            assert_eq!(reply.status, StatusCode::OK, "{caller}: {path}: {}", reply.text());
            reply.json()
        }
    }

    /// A request with a key, and JSON where there is a body.
    pub async fn ask(&self, key: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
        send(&self.front, with_key(key, method, path, body)).await
    }

    /// `GET` with a key.
    pub async fn get_as(&self, key: &str, path: &str) -> Reply {
        self.ask(key, Method::GET, path, None).await
    }

    /// The same on the private door.
    pub async fn admin_as(&self, key: &str, path: &str) -> Reply {
        send(&self.admin, with_key(key, Method::GET, path, None)).await
    }

    /// `GET` on the private door.
    pub async fn admin(&self, path: &str) -> Reply {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        send(&self.admin, request).await
    }

    /// `POST` with JSON on the private door.
    pub async fn admin_post(&self, path: &str, body: &Value) -> Reply {
        post_to(&self.admin, path, body).await
    }

    /// Any request on the public door.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        send(&self.front, request).await
    }

    /// What is said before the layers without waiting, if anything.
    pub async fn at_once(&self, request: &Request<Body>) -> Option<Reply> {
        match early(&self.front, request)? {
            Early::Ready(response) => Some(read(response.map(Body::from)).await),
            Early::Coming(_) => None,
        }
    }

    /// What is answered before the layers, if anything.
    pub async fn early(&self, request: &Request<Body>) -> Option<Reply> {
        Some(read(come(early(&self.front, request)?).await).await)
    }

    /// The same request through all layers.
    pub async fn send_through_layers(&self, request: Request<Body>) -> Reply {
        read(self.router().oneshot(request).await.expect("routers do not fail")).await
    }

    /// The public router itself, for requests that are given up half way.
    pub fn router(&self) -> Router {
        self.front.router().clone()
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap_or_else(|error| panic!("{path}: {error}"))).await
    }
}

fn with_key(key: &str, method: Method, path: &str, body: Option<&Value>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    request.body(body).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `POST` with JSON to any door.
pub async fn post_to(front: &Front, path: &str, body: &Value) -> Reply {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    send(front, request.body(Body::from(body.to_string())).expect("a request")).await
}

/// As the listener does: what is answered early, else the router.
async fn send(front: &Front, request: Request<Body>) -> Reply {
    let response = match early(front, &request) {
        Some(early) => come(early).await,
        None => front.router().clone().oneshot(request).await.expect("routers do not fail"),
    };
    read(response).await
}

fn early(front: &Front, request: &Request<Body>) -> Option<Early> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(NOBODY, |ConnectInfo(peer)| *peer);
    let (method, uri, version, headers) = (request.method(), request.uri(), request.version(), request.headers());
    let head = Head { method, uri, version, headers, peer };
    request.body().is_end_stream().then(|| front.early(&head))?
}

async fn come(early: Early) -> Response<Body> {
    match early {
        Early::Ready(response) => response,
        Early::Coming(response) => response.await,
    }
    .map(Body::from)
}

async fn read(response: Response<Body>) -> Reply {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Reply { status: parts.status, headers: parts.headers, body }
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a readable header"))
    }

    /// What a snapshot holds of a failure, after checking what every failure has in common.
    #[track_caller]
    pub fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["request_id"], self.header("x-request-id"));
        let mut shown = json!({ "body": redact(&body) });
        for name in ["retry-after", "allow"] {
            if let Some(value) = self.headers.get(name) {
                shown[name] = json!(value.to_str().expect("a readable header"));
            }
        }
        shown
    }
}

/// Takes out what differs from run to run (ids, times, cursors) and rounds scores.
pub fn redact(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), redact_field(name, value))).collect())
        }
        Value::Array(values) => values.iter().map(redact).collect(),
        Value::Number(number) if number.is_f64() => {
            let rounded = (number.as_f64().unwrap_or_default() * 1_000.0).round() / 1_000.0;
            // No negative zero, which would depend on the last bits.
            json!(if rounded == 0.0 { 0.0 } else { rounded })
        }
        other => other.clone(),
    }
}

fn redact_field(name: &str, value: &Value) -> Value {
    let replaced = match name {
        "request_id" | "chunk_id" | "page_id" | "generation" => "[id]",
        "generations" => return json!(vec!["[id]"; value.as_array().map_or(0, Vec::len)]),
        "next_cursor" => "[cursor]",
        "indexed_at" | "created_at" | "updated_at" | "uptime_s" | "latency_ms" => "[time]",
        _ => return redact(value),
    };
    if value.is_null() { Value::Null } else { json!(replaced) }
}

/// One field of each result.
pub fn each(answer: &Value, field: &str) -> Vec<Value> {
    answer["results"].as_array().expect("results").iter().map(|result| result[field].clone()).collect()
}

/// One text field of each result.
pub fn texts(answer: &Value, field: &str) -> Vec<String> {
    each(answer, field).iter().map(|value| value.as_str().expect("text").to_owned()).collect()
}

/// Failures by what was tried, for one snapshot.
pub type Problems = BTreeMap<String, Value>;
