//! One request, from its head to its answer.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use bytes::Bytes;
use hyper::body::Incoming;
use tracing::{info, warn};

use super::access::may;
use super::endpoints::{Endpoint, Matched, Target};
use super::identity::Identity;
use super::management::Caller;
use super::own::Own;
use super::parameters::Query;
use super::problem::Problem;
use super::reading::{Bypass, Course, Wanted};
use super::respond::{Answer, METHODS, document, problem};
use super::service::{Api, Serving};
use super::trace::Trace;
use crate::config::api::AccessLog;
use crate::config::endpoints::Who;
use crate::lsn::Lsn;

const MIN_LSN: HeaderName = HeaderName::from_static("unstale-min-lsn");

/// The label of requests to paths that nothing is served at.
const NO_ENDPOINT: &str = "none";

/// What is known of a request when it has been answered.
#[derive(Default)]
struct Noted {
    user: Option<Arc<str>>,
}

impl Api {
    /// Answers.
    pub(super) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let start = Instant::now();
        let (head, body) = request.into_parts();
        let trace = Trace::of(&head.headers);
        let mut noted = Noted::default();
        let serving = self.serving();
        let own = Own::find(head.uri.path());
        let matched = serving
            .as_ref()
            .and_then(|serving| Some((serving, serving.endpoints.find(head.uri.path())?)));
        let template = match own {
            Some(own) => own.template(),
            None => matched.as_ref().map_or(NO_ENDPOINT, |(_, m)| &m.endpoint.template),
        };
        let query = head.uri.query().unwrap_or_default();
        // On the heap: it is large, and what is larger is moved more often than made.
        let answered = Box::pin(async {
            self.within_limits(&head.headers)?;
            if let Some(own) = own {
                let serving = serving.as_ref().ok_or_else(Problem::unusable)?;
                let own = self.own(serving, own, (&head, body), &trace, &mut noted);
                // What is seldom is not to make the rest large: it is moved with every request.
                return Box::pin(own).await;
            }
            let Some((serving, matched)) = &matched else {
                return Err(match serving {
                    Some(_) => Problem::no_such_path(),
                    None => Problem::unusable(),
                });
            };
            match head.method {
                Method::GET | Method::HEAD => {
                    self.get(serving, matched, query, &head.headers, &mut noted).await
                }
                Method::OPTIONS => Ok(self.options(&head.headers, METHODS)),
                _ => Err(Problem::method_not_allowed(METHODS)),
            }
        });
        let end = start + self.settings.request_timeout.get();
        let answered = match tokio::time::timeout_at(end.into(), answered).await {
            Ok(answered) => answered,
            Err(_) => Err(Problem::unavailable("answering took too long")),
        };
        let mut answer = answered.unwrap_or_else(|refused| problem(&refused, &trace));
        self.finish(&mut answer, &head.headers, &trace);
        let (status, took) = (answer.status(), start.elapsed());
        let metrics = &self.status.metrics;
        let counted = matched.as_ref().and_then(|(serving, m)| serving.counters.endpoint(m.number));
        match counted {
            Some(counted) if status == StatusCode::OK => counted.ok.inc(),
            _ => metrics.requests.with_label_values(&[template, status.as_str()]).inc(),
        }
        match counted {
            Some(counted) => counted.seconds.observe(took.as_secs_f64()),
            None => {
                metrics.request_seconds.with_label_values(&[template]).observe(took.as_secs_f64())
            }
        }
        let is_logged = match self.settings.access_log {
            AccessLog::All => true,
            AccessLog::Errors => status.is_client_error() || status.is_server_error(),
            AccessLog::Off => false,
        };
        if is_logged {
            let cache = answer.headers().get("cache-status").and_then(|value| value.to_str().ok());
            info!(
                target: "unstale::access",
                method = %head.method,
                endpoint = template,
                status = status.as_u16(),
                micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                cache,
                user = noted.user.as_deref(),
                request_id = trace.request_id(),
                trace_id = trace.trace_id(),
                "request"
            );
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            warn!(request_id = trace.request_id(), "this request was answered with 500");
        }
        answer
    }

    /// What the daemon serves of itself.
    async fn own(
        &self,
        serving: &Arc<Serving>,
        own: Own<'_>,
        (head, body): (&Parts, Incoming),
        trace: &Trace,
        noted: &mut Noted,
    ) -> Result<Answer, Problem> {
        if own != Own::OpenApi && serving.endpoints.identity.is_none() {
            return Err(Problem::no_such_path());
        }
        match (own, &head.method) {
            (_, &Method::OPTIONS) => return Ok(self.options(&head.headers, own.methods())),
            (Own::Order(_), &Method::POST) => {}
            (Own::OpenApi | Own::Job(_) | Own::Status, &Method::GET | &Method::HEAD) => {}
            _ => return Err(Problem::method_not_allowed(own.methods())),
        }
        if own == Own::OpenApi {
            return Ok(document(&serving.openapi, &head.headers));
        }
        let user = self.authenticate(&head.headers)?;
        noted.user = Some(user.clone());
        let (identity, _) = self.identity(serving, &user, Course::Cache { floor: None }).await?;
        let caller = Caller { identity, trace };
        match own {
            Own::OpenApi => Err(Problem::no_such_path()),
            Own::Order(action) => self.order(serving, action, &caller, &head.headers, body).await,
            Own::Job(id) => self.job(&caller, id),
            Own::Status => self.cache_status(serving, &caller).await,
        }
    }

    fn within_limits(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let limit = self.settings.max_body_bytes;
        // hyper has refused what is no number.
        let length =
            headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| usize::try_from(length).is_ok_and(|l| l <= limit)) {
            return Ok(());
        }
        if length.is_none() { Ok(()) } else { Err(Problem::too_large(limit)) }
    }

    /// The value that an endpoint serves.
    async fn get(
        &self,
        serving: &Arc<Serving>,
        matched: &Matched<'_, '_>,
        query: &str,
        headers: &HeaderMap,
        noted: &mut Noted,
    ) -> Result<Answer, Problem> {
        let user = match matched.endpoint.who {
            Who::Anyone => None,
            _ => Some(self.authenticate(headers)?),
        };
        noted.user.clone_from(&user);
        let query = Query::parse(query);
        let course = self.course(min_lsn(headers)?).await;
        let asked = Asked { serving, matched, query: &query, headers, user: user.as_deref() };
        let answer = self.answer(&asked, course).await;
        if self.still_holds(course) {
            return answer;
        }
        // What the watermark said is no longer known to be so.
        Box::pin(self.answer(&asked, Course::Bypass(Bypass::MinLsn))).await
    }

    async fn answer(&self, asked: &Asked<'_>, course: Course) -> Result<Answer, Problem> {
        let Asked { serving, matched, query, headers, user } = *asked;
        let endpoint: &Endpoint = matched.endpoint;
        let (identity, course) = match user {
            None => (None, course),
            Some(user) => {
                let (identity, course) = self.identity(serving, user, course).await?;
                if !identity.is_active {
                    return Err(Problem::user_inactive());
                }
                (Some(identity), course)
            }
        };
        let values = matched.values(query, identity.as_deref())?;
        if let Some(identity) = &identity {
            authorize(endpoint, identity, &values)?;
        }
        let pairs = values.pairs();
        let wanted = match endpoint.target {
            Target::Entry(id) => {
                let cache = serving.mapping.cache(id).ok_or_else(Problem::internal)?;
                Wanted::entry(id, cache, &pairs)
            }
            Target::Composed => {
                let composition = serving.mapping.composition(&endpoint.cache);
                Wanted::composed(composition.ok_or_else(Problem::internal)?, &pairs)
            }
        };
        let course = if values.cached { course } else { Course::Bypass(Bypass::Parameters) };
        // Who has written wants no less, and of what is not cached no copies are kept.
        let may_be_older = values.cached && !headers.contains_key(MIN_LSN);
        let within = endpoint.stale_if_error.filter(|_| may_be_older);
        let wanted =
            wanted.counted(serving.counters.endpoint(matched.number)).or_stale(&pairs, within);
        let mut reading = self.read(serving, &wanted, course).await?;
        let mut value = reading.value.take().ok_or_else(Problem::not_found)?;
        if endpoint.live {
            value = beside(&value, &Box::pin(self.figures(serving)).await);
        }
        Ok(self.value(endpoint, &pairs, &value, &reading, headers).await)
    }

    /// The user of the bearer token.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<str>, Problem> {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let header = all.next().ok_or_else(Problem::no_token)?;
        if all.next().is_some() {
            return Err(Problem::token("several tokens were sent"));
        }
        let text = str::from_utf8(header.as_bytes());
        let text = text.map_err(|_| Problem::token("the token is no text"))?;
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::no_token());
        }
        self.keys.user(token.trim(), SystemTime::now()).map_err(Problem::token)
    }
}

/// A request to an endpoint.
#[derive(Clone, Copy)]
struct Asked<'a> {
    serving: &'a Arc<Serving>,
    matched: &'a Matched<'a, 'a>,
    query: &'a Query<'a>,
    headers: &'a HeaderMap,
    user: Option<&'a str>,
}

/// The value as one member of the figures' object.
fn beside(value: &[u8], figures: &serde_json::Value) -> Bytes {
    let figures = figures.to_string();
    let rest = figures.strip_prefix('{').unwrap_or("}");
    let mut both = b"{\"statistics\":".to_vec();
    both.extend_from_slice(value);
    both.push(b',');
    both.extend_from_slice(rest.as_bytes());
    both.into()
}

fn authorize(
    endpoint: &Endpoint,
    identity: &Identity,
    values: &super::parameters::Values<'_>,
) -> Result<(), Problem> {
    may(endpoint.who, identity, values.get(&endpoint.organization), values.get(&endpoint.user))
}

fn min_lsn(headers: &HeaderMap) -> Result<Option<Lsn>, Problem> {
    let mut all = headers.get_all(MIN_LSN).iter();
    let wrong = || Problem::parameter("Unstale-Min-LSN", "one LSN is allowed, such as 0/16B3748");
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(header), None) => {
            header.to_str().ok().and_then(|t| t.trim().parse().ok()).map(Some).ok_or_else(wrong)
        }
        (Some(_), Some(_)) => Err(wrong()),
    }
}
