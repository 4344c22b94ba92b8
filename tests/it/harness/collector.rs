//! An OpenTelemetry collector in a test: takes OTLP over HTTP and keeps the spans.
//!
//! Reads of protobuf just the fields that tests look at.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use doc_server::runtime::lifecycle::Lifecycle;

use super::served::serve;

/// One span as it arrived.
#[derive(Clone, Debug)]
pub struct Span {
    /// In hexadecimal digits.
    pub trace: String,
    /// Likewise.
    pub id: String,
    /// Likewise; empty for a root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: u64,
    /// Its attributes that are texts.
    pub attributes: BTreeMap<String, String>,
}

/// The running collector.
pub struct Collector {
    /// For `otlp_endpoint`.
    pub url: String,
    received: Arc<Mutex<Vec<Bytes>>>,
    _lifecycle: Lifecycle,
}

impl Collector {
    /// Starts it.
    pub async fn start() -> Self {
        let received = Arc::<Mutex<Vec<Bytes>>>::default();
        let router = Router::new().route("/v1/traces", post(keep)).with_state(Arc::clone(&received));
        let (url, lifecycle) = serve(router).await;
        Self { url, received, _lifecycle: lifecycle }
    }

    /// All that came, unread.
    pub fn bytes(&self) -> Vec<u8> {
        self.received.lock().expect("what came").concat()
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.received.lock().expect("what came").iter().flat_map(|request| spans_of(request)).collect()
    }
}

async fn keep(State(received): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes) {
    received.lock().expect("what came").push(body);
}

/// A field's value.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers.
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = number(&mut message);
        let value = match tag & 7 {
            0 => Value::Number(number(&mut message)),
            1 => Value::Bytes(take(&mut message, 8)),
            2 => {
                let length = usize::try_from(number(&mut message)).expect("a length");
                Value::Bytes(take(&mut message, length))
            }
            5 => Value::Bytes(take(&mut message, 4)),
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, value));
    }
    found
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = message.split_at(length);
    *message = rest;
    taken
}

fn number(message: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = take(message, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

/// The messages of one field.
fn messages(message: &[u8], field: u64) -> Vec<&[u8]> {
    fields(message)
        .into_iter()
        .filter_map(|(at, value)| match value {
            Value::Bytes(bytes) if at == field => Some(bytes),
            _ => None,
        })
        .collect()
}

fn text(message: &[u8], field: u64) -> String {
    messages(message, field).first().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

fn hex(message: &[u8], field: u64) -> String {
    let bytes = messages(message, field).first().copied().unwrap_or_default();
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// `ExportTraceServiceRequest`: resource spans (1), scope spans (2), spans (2).
fn spans_of(request: &[u8]) -> Vec<Span> {
    let scopes = messages(request, 1).into_iter().flat_map(|resource| messages(resource, 2));
    scopes.flat_map(|scope| messages(scope, 2)).map(span_of).collect()
}

fn span_of(span: &[u8]) -> Span {
    let kind = fields(span).into_iter().find_map(|(at, value)| match value {
        Value::Number(kind) if at == 6 => Some(kind),
        _ => None,
    });
    let attributes = messages(span, 9).into_iter().map(|attribute| {
        let value = messages(attribute, 2).first().map(|value| text(value, 1)).unwrap_or_default();
        (text(attribute, 1), value)
    });
    Span {
        trace: hex(span, 1),
        id: hex(span, 2),
        parent: hex(span, 4),
        name: text(span, 5),
        kind: kind.unwrap_or_default(),
        attributes: attributes.collect(),
    }
}
