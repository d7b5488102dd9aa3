//! From what was found to what is sent.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use axum::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, AGE, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING,
    CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, ORIGIN, RETRY_AFTER, VARY,
    WARNING, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use httpdate::HttpDate;

use super::body::Pieces;
use super::conditional::{etag, hash, last_modified, none_match, not_modified_since};
use super::encoding::{Coding, WORTH};
use super::endpoints::Endpoint;
use super::problem::Problem;
use super::reading::{Reading, Source};
use super::service::Api;
use super::trace::{REQUEST_ID, TRACEPARENT, Trace};
use crate::config::api::BrowserCache;
use crate::lsn::Lsn;
use crate::moment::Moment;

/// What is sent.
pub(super) type Answer = Response<Pieces>;

/// Room for all headers of an answer, so that it need not grow with them.
const HEADERS: usize = 16;

/// Room for what one of them says.
const TEXT: usize = 64;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const APPLIED_LSN: HeaderName = HeaderName::from_static("unstale-applied-lsn");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_AGE: HeaderValue = HeaderValue::from_static("0");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The methods of every endpoint.
pub(super) const METHODS: &str = "GET, HEAD, OPTIONS";

/// Past this, compressing is left to a thread that may block.
const LARGE: usize = 65_536;

impl Api {
    /// 200 with the value in its envelope, or 304.
    pub(super) async fn value(
        &self,
        endpoint: &Endpoint,
        values: &[(&str, &str)],
        value: &Bytes,
        reading: &Reading,
        request: &HeaderMap,
    ) -> Answer {
        let now = Moment::now();
        let older = match reading.source {
            Source::Stale { age } => Some(age),
            _ => None,
        };
        let cached = reading.source == Source::Hit || older.is_some();
        let hash = hash(value);
        let etag = etag(hash);
        let sight = self.seen.note(self.seen.place(&endpoint.template, values), hash, cached, now);
        let modified = last_modified(sight.first, now.wall()).filter(|_| older.is_none());
        let mut answer = Response::new(Pieces::default());
        let headers = answer.headers_mut();
        headers.reserve(HEADERS);
        let mut writer = Writer(String::with_capacity(TEXT));
        insert(headers, ETAG, etag.as_bytes());
        if let Some(modified) = modified {
            writer.insert(headers, LAST_MODIFIED, HttpDate::from(modified));
        }
        let age = now.since(sight.stored).as_secs();
        let age = age.max(older.unwrap_or_default());
        match if cached { age } else { 0 } {
            0 => _ = headers.insert(AGE, NO_AGE),
            age => writer.insert(headers, AGE, age),
        }
        headers.insert(
            CACHE_CONTROL,
            match self.settings.browser_cache {
                // Nobody is to keep it.
                _ if older.is_some() => NO_STORE,
                BrowserCache::AsConfigured => endpoint.cache_control.clone(),
                BrowserCache::Revalidate => REVALIDATE,
            },
        );
        match reading.source.cache_status() {
            Cow::Borrowed(same) => _ = headers.insert(CACHE_STATUS, HeaderValue::from_static(same)),
            Cow::Owned(text) => insert(headers, CACHE_STATUS, text.as_bytes()),
        }
        if older.is_some() {
            headers.insert(WARNING, HeaderValue::from_static("110 unstale \"Response is Stale\""));
        }
        if let Some(watermark) = reading.watermark {
            writer.insert(headers, APPLIED_LSN, watermark);
        }
        let text = |name| request.get(name).and_then(|value| value.to_str().ok());
        // RFC 9110, section 13.2.2: the date counts only if no tag is sent.
        let unchanged = match (text(IF_NONE_MATCH), text(IF_MODIFIED_SINCE), modified) {
            (Some(tags), ..) => none_match(tags, &etag),
            (None, Some(since), Some(modified)) => not_modified_since(since, modified),
            _ => false,
        };
        if unchanged {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return answer;
        }
        let (opening, closing) = (&endpoint.opening, endpoint.closing(cached));
        let length = opening.len() + value.len() + closing.len();
        let coding = match text(ACCEPT_ENCODING) {
            Some(accept) if self.settings.compress && length >= WORTH => Coding::preferred(accept),
            _ => Coding::Identity,
        };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(name) = coding.as_str() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        *answer.body_mut() = if coding == Coding::Identity {
            Pieces::around(opening, value, closing)
        } else {
            let body = [&**opening, &**value, &**closing].concat();
            Bytes::from(if length > LARGE {
                // It only fails when the program ends.
                tokio::task::spawn_blocking(move || coding.encode(body)).await.unwrap_or_default()
            } else {
                coding.encode(body)
            })
            .into()
        };
        answer
    }

    /// What goes with every answer.
    pub(super) fn finish(&self, answer: &mut Answer, request: &HeaderMap, trace: &Trace) {
        let headers = answer.headers_mut();
        // What users typed into rows is JSON here, whatever it looks like to a browser.
        headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        let with_cors = !self.settings.cors_origins.is_empty();
        headers.insert(
            VARY,
            match (self.settings.compress, with_cors) {
                (true, true) => {
                    const { HeaderValue::from_static("Authorization, Accept-Encoding, Origin") }
                }
                (true, false) => {
                    const { HeaderValue::from_static("Authorization, Accept-Encoding") }
                }
                (false, true) => const { HeaderValue::from_static("Authorization, Origin") },
                (false, false) => const { HeaderValue::from_static("Authorization") },
            },
        );
        if !headers.contains_key(APPLIED_LSN) {
            let watermark = self.status.watermark();
            // Of a daemon that stands by, the certificate says it, if anything does.
            if watermark > Lsn::ZERO {
                insert(headers, APPLIED_LSN, watermark.to_string().as_bytes());
            }
        }
        headers.insert(REQUEST_ID, trace.id_to_send());
        if let Some(parent) = &trace.parent {
            headers.insert(TRACEPARENT, parent.clone());
        }
        if let Some(origin) = with_cors.then(|| self.allowed_origin(request)).flatten() {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(
                    "ETag, Age, Cache-Status, Retry-After, Unstale-Applied-LSN, X-Request-Id",
                ),
            );
        }
    }

    fn allowed_origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(ORIGIN)?;
        let is = |allowed: &&String| *allowed == "*" || allowed.as_bytes() == origin.as_bytes();
        let allowed = self.settings.cors_origins.iter().find(is)?;
        Some(if allowed == "*" { HeaderValue::from_static("*") } else { origin.clone() })
    }

    /// What an endpoint allows (RFC 9110, section 9.3.7), and before a request across origins.
    pub(super) fn options(&self, request: &HeaderMap, methods: &'static str) -> Answer {
        let mut answer = Response::new(Pieces::default());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static(methods));
        headers.insert(CACHE_CONTROL, NO_STORE);
        let asks = request.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if asks && !self.settings.cors_origins.is_empty() && self.allowed_origin(request).is_some()
        {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
            headers.insert(
                ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static(
                    "Authorization, Content-Type, If-None-Match, Unstale-Min-LSN, X-Request-Id, traceparent",
                ),
            );
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
        answer
    }
}

/// What is answered of the moment.
pub(super) fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Bytes::from(body.to_string()).into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    answer
}

/// A text that is the same for all, and asked for again.
pub(super) fn document(body: &Bytes, request: &HeaderMap) -> Answer {
    let etag = etag(hash(body));
    let known = request.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|tags| none_match(tags, &etag));
    let mut answer = Response::new(if is_known { Pieces::default() } else { body.clone().into() });
    if is_known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = answer.headers_mut();
    if !is_known {
        headers.insert(CONTENT_TYPE, JSON);
    }
    insert(headers, ETAG, etag.as_bytes());
    headers.insert(CACHE_CONTROL, NO_CACHE);
    answer
}

/// A problem, as it is sent.
pub(super) fn problem(problem: &Problem, trace: &Trace) -> Answer {
    let mut answer = Response::new(Bytes::from(problem.body(trace.request_id())).into());
    *answer.status_mut() = problem.status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, PROBLEM);
    headers.insert(CACHE_CONTROL, NO_STORE);
    match problem.challenge {
        None => {}
        Some("") => insert(headers, WWW_AUTHENTICATE, b"Bearer realm=\"api\""),
        Some(error) => {
            let challenge = format!("Bearer realm=\"api\", error=\"{error}\"");
            insert(headers, WWW_AUTHENTICATE, challenge.as_bytes());
        }
    }
    if let Some(seconds) = problem.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = problem.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if problem.status == StatusCode::PAYLOAD_TOO_LARGE {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// What is no text yet becomes one here, one header after the other.
struct Writer(String);

impl Writer {
    fn insert(&mut self, headers: &mut HeaderMap, name: HeaderName, value: impl Display) {
        self.0.clear();
        // It grows if it must.
        _ = write!(self.0, "{value}");
        insert(headers, name, self.0.as_bytes());
    }
}

/// What is no header cannot come from here: our own texts, ids that were looked at, times.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(name, value);
    }
}
