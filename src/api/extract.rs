//! Parameters and bodies, read strictly: an unknown name, a wrong type or a value out of range is refused with the name of
//! the field and what is allowed.
//!
//! A query string and a JSON object are read by the same code, so `GET` and `POST` take the same names and say the same errors.

use std::{fmt::Display, ops::RangeInclusive};

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequestParts, Path, Request},
    http::{StatusCode, header, request::Parts},
};
use clap::ValueEnum;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use super::respond::{FieldError, Problem};
use crate::runtime::listen::BodyTimeout;

/// The named values of a request, taken one by one; what is left at the end is unknown.
#[derive(Debug)]
pub struct Fields {
    values: Map<String, Value>,
    /// Values come from a query string: all are text.
    from_query: bool,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Fields {
    fn new(values: Map<String, Value>, from_query: bool) -> Self {
        // As many as a search takes.
        Self { values, from_query, known: Vec::with_capacity(20), errors: Vec::new() }
    }

    /// Reads a query string. A name that comes twice holds a list.
    ///
    /// # Errors
    /// 400 for bytes that are not UTF-8.
    pub fn from_query(query: Option<&str>) -> Result<Self, Problem> {
        let mut values = Map::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, Value::String(decode(value)?));
            match values.get_mut(&name) {
                None => drop(values.insert(name, value)),
                Some(Value::Array(list)) => list.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        Ok(Self::new(values, true))
    }

    /// Reads a JSON object from a body of at most `max_bytes`.
    ///
    /// # Errors
    /// 415 for another content type or a content coding, 413 for a longer body, 400 for anything but an object.
    pub async fn from_body(request: Request, max_bytes: usize) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim);
        if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
            let detail = "send the body as JSON with content-type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        let coding = request.headers().get(header::CONTENT_ENCODING);
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let detail = "send the body as it is, without content-encoding";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        let bytes = read_body(request.into_body(), max_bytes).await?;
        let malformed = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "malformed_json", detail);
        match serde_json::from_slice(&bytes) {
            Ok(Object(values)) => Ok(Self::new(values, false)),
            Err(error) if error.is_data() => Err(malformed(format!("the body must be a JSON object: {error}"))),
            Err(error) => Err(malformed(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// Text of a length in characters, without control characters but line ends and tabs.
    pub fn text(&mut self, name: &'static str, length: RangeInclusive<usize>) -> Option<String> {
        let text = match self.take(name)? {
            Value::String(text) => text,
            Value::Array(_) if self.from_query => return self.refuse(name, "must be given once"),
            _ => return self.refuse(name, "must be text"),
        };
        let allowed = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
        if !text.chars().all(allowed) {
            return self.refuse(name, "must not hold control characters");
        }
        let characters = text.trim().chars().count();
        if !length.contains(&characters) {
            let message = format!("must have {} to {} characters, it has {characters}", length.start(), length.end());
            return self.refuse(name, message);
        }
        Some(text.trim().to_owned())
    }

    /// Texts: one, or a list of at most `most`.
    pub fn texts(&mut self, name: &'static str, most: usize) -> Option<Vec<String>> {
        /// Longer than any name there is.
        const MAX_LENGTH: usize = 256;
        let list = match self.take(name)? {
            Value::Array(list) => list,
            one => vec![one],
        };
        let texts: Option<Vec<String>> = list.into_iter().map(|value| value.as_str().map(str::to_owned)).collect();
        match texts {
            Some(texts) if texts.len() > most => self.refuse(name, format!("at most {most} are allowed")),
            Some(texts) if texts.iter().all(|text| is_name(text, MAX_LENGTH)) => Some(texts),
            _ => self.refuse(name, format!("must be texts of 1 to {MAX_LENGTH} characters")),
        }
    }

    /// A whole number.
    pub fn integer<N: TryFrom<i64> + Display>(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<N> {
        let value = self.take(name)?;
        let number = if self.from_query { value.as_str().and_then(|text| text.parse().ok()) } else { value.as_i64() };
        match number.filter(|number| range.contains(number)).and_then(|number| N::try_from(number).ok()) {
            Some(number) => Some(number),
            None => self.refuse(name, format!("must be a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// A number.
    pub fn number(&mut self, name: &'static str, range: RangeInclusive<f32>) -> Option<f32> {
        let value = self.take(name)?;
        #[expect(clippy::cast_possible_truncation, reason = "a weight or threshold needs no more than f32")]
        let number: Option<f32> = if self.from_query {
            value.as_str().and_then(|text| text.parse().ok())
        } else {
            value.as_f64().map(|n| n as f32)
        };
        match number.filter(|number| number.is_finite() && range.contains(number)) {
            Some(number) => Some(number),
            None => self.refuse(name, format!("must be a number from {} to {}", range.start(), range.end())),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        let boolean = if self.from_query { value.as_str().and_then(|text| text.parse().ok()) } else { value.as_bool() };
        if boolean.is_none() { self.refuse(name, "must be true or false") } else { boolean }
    }

    /// One of the names of `T`.
    pub fn choice<T: ValueEnum>(&mut self, name: &'static str) -> Option<T> {
        let value = self.take(name)?;
        let choice = value.as_str().and_then(|text| T::from_str(text, false).ok());
        if choice.is_none() {
            let names: Vec<String> = T::value_variants()
                .iter()
                .filter_map(|variant| Some(variant.to_possible_value()?.get_name().to_owned()))
                .collect();
            return self.refuse(name, format!("must be one of {}", names.join(", ")));
        }
        choice
    }

    /// Records that `name` is wrong.
    pub fn refuse<T>(&mut self, name: &'static str, message: impl Into<String>) -> Option<T> {
        self.errors.push(FieldError { field: name.to_owned(), message: message.into() });
        None
    }

    /// Whether a value was given.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 400 for a name that was never asked for, else 422 with every field that is wrong.
    pub fn finish(self) -> Result<(), Problem> {
        if let Some(name) = self.values.keys().next() {
            let allowed = match self.known.as_slice() {
                [] => "none is".to_owned(),
                known => format!("allowed are {}", known.join(", ")),
            };
            let detail = format!("{name:?} is not a parameter here; {allowed}");
            let errors = self
                .values
                .keys()
                .map(|field| FieldError { field: field.clone(), message: "unknown parameter".to_owned() })
                .collect();
            let mut problem = Problem::new(StatusCode::BAD_REQUEST, "unknown_parameter", detail);
            problem.errors = errors;
            return Err(problem);
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid_fields(self.errors)) }
    }

    /// JSON null is the same as not given.
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.values.remove(name).filter(|value| !value.is_null())
    }
}

/// A JSON object in which each name comes once: with two, the caller and the server could mean different ones.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Object;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
                let mut values = Map::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    if values.contains_key(&name) {
                        return Err(de::Error::custom(format!("{name:?} comes twice")));
                    }
                    values.insert(name, value);
                }
                Ok(Object(values))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// The part of the path that a route leaves open.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let detail = "the path is not valid UTF-8 when decoded";
        let malformed = |_| Problem::new(StatusCode::BAD_REQUEST, "malformed_path", detail);
        Path::<String>::from_request_parts(parts, state).await.map(|Path(segment)| Self(segment)).map_err(malformed)
    }
}

/// Refuses every parameter, on routes that take none: a misspelt or misplaced one must not be taken for obeyed.
///
/// # Errors
/// 400 that names it.
pub fn refuse_parameters(query: Option<&str>) -> Result<(), Problem> {
    Fields::from_query(query)?.finish()
}

fn is_name(text: &str, max_length: usize) -> bool {
    (1..=max_length).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn decode(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "malformed_query", "the query string is not valid UTF-8 when decoded")
    })
}

async fn read_body(body: Body, max_bytes: usize) -> Result<bytes::Bytes, Problem> {
    // A body that says it is too long is refused before it is sent.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large(max_bytes));
    }
    match Limited::new(body, max_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(max_bytes)),
        Err(error) => match timed_out(&*error) {
            Some(error) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", error.to_string())),
            None => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "body_unreadable", "the body ended before it was complete"))
            }
        },
    }
}

/// The listener's word that the body took too long, below whatever wraps it.
fn timed_out<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> Option<&'a BodyTimeout> {
    loop {
        match error.downcast_ref() {
            Some(timeout) => return Some(timeout),
            None => error = error.source()?,
        }
    }
}

fn too_large(max_bytes: usize) -> Problem {
    let detail = format!("the body may have at most {max_bytes} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}
