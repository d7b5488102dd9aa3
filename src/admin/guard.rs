//! Who may read the admin listener from within a browser.
//!
//! It has no login: whoever reaches the port may read. A page of somebody else's in the browser
//! of an operator reaches it, too, and there are two ways in which it could read the answer.
//!
//! * *By another name* (DNS rebinding): its own name is made to point to this address, and then
//!   the browser takes both for one origin. So a name must be known here: an IP address (which
//!   nobody can make point elsewhere), `localhost`, or one of `admin.hosts`. Anything else is
//!   misdirected. What scrapers and probes ask for holds no key and no row: it is served under any
//!   name where the listener is not on loopback, because there they come by the names of services.
//! * *As itself* (cross-origin): the browser does not hand it the answer unless we say so, and we
//!   never do: no header of CORS is ever sent. What costs Redis a question is not even computed for
//!   it, told by `Sec-Fetch-Site` and `Origin`, which no page can forge.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::model::Admin;

/// What may be asked for under any name where the listener is not on loopback.
const FOR_MACHINES: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// The names that are known.
#[derive(Debug)]
pub(super) struct Guard {
    listen: SocketAddr,
    names: Vec<String>,
}

/// Why not.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// For a name that is not ours.
    Name(String),
    /// Asked for by a page of another origin.
    Origin,
}

impl Guard {
    pub(super) fn new(settings: &Admin) -> Guard {
        let names = settings.hosts.iter().map(|name| plain(name)).collect();
        Guard { listen: settings.listen, names }
    }

    fn judge(&self, path: &str, authority: Option<&str>, headers: &HeaderMap) -> Option<Refusal> {
        let machines = FOR_MACHINES.contains(&path);
        let named = authority.into_iter().chain(text(headers, &header::HOST));
        for given in named {
            let open = machines && !self.listen.ip().is_loopback();
            if !open && !self.knows(given) {
                return Some(Refusal::Name(given.to_owned()));
            }
        }
        // The page itself may be linked to from anywhere: it holds nothing.
        if machines || path == "/" {
            return None;
        }
        let elsewhere = text(headers, &SEC_FETCH_SITE)
            .is_some_and(|site| !matches!(site, "same-origin" | "none"));
        let host = text(headers, &header::HOST);
        let foreign = text(headers, &header::ORIGIN)
            .is_some_and(|origin| origin.split_once("://").map(|(_, authority)| authority) != host);
        (elsewhere || foreign).then_some(Refusal::Origin)
    }

    fn knows(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        // Nothing but a name and a port: the parser takes more for one, such as `[::1].example`.
        let port = authority.as_str().strip_prefix(authority.host());
        let of_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        if !port.is_some_and(|port| port.is_empty() || port.strip_prefix(':').is_some_and(of_port))
        {
            return false;
        }
        let host = plain(authority.host());
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        literal.unwrap_or(&host).parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.names.contains(&host)
    }
}

const SEC_FETCH_SITE: header::HeaderName = header::HeaderName::from_static("sec-fetch-site");

fn text<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    // What is no text is no name that we know.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Names are the same with a dot behind, and in capitals.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Lets through who may read, and says to all what browsers need to know.
pub(super) async fn stand(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let authority = request.uri().authority().map(Authority::as_str);
    let refusal = guard.judge(request.uri().path(), authority, request.headers());
    let mut response = match refusal {
        None => next.run(request).await,
        Some(Refusal::Name(name)) => (
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "{name:?} is not a name of this listener: ask by IP address or as localhost, or add the name to admin.hosts\n"
            ),
        )
            .into_response(),
        Some(Refusal::Origin) => {
            (StatusCode::FORBIDDEN, "not for pages of another origin\n").into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(listen: &str, path: &str, headers: &[(&str, &str)]) -> Option<Refusal> {
        let settings =
            Admin { listen: listen.parse().unwrap(), hosts: vec!["Ops.Internal".to_owned()] };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().unwrap();
            map.insert(name, value.parse().unwrap());
        }
        Guard::new(&settings).judge(path, None, &map)
    }

    #[test]
    fn only_names_that_nobody_else_can_point_here_are_answered() {
        for host in [
            "127.0.0.1:9187",
            "127.0.0.1",
            "[::1]:9187",
            "10.1.2.3:9187",
            "localhost:9187",
            "LOCALHOST",
            "localhost.:9187",
            "unstale.localhost:80",
            "ops.internal:9187",
            "OPS.internal.",
        ] {
            for path in ["/", "/why", "/metrics"] {
                assert_eq!(judged("127.0.0.1:9187", path, &[("host", host)]), None, "{host}");
            }
        }
        for host in [
            "evil.example:9187",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "evil.example#127.0.0.1",
            "x@evil.example",
            "ops.internal.evil.example",
            "1.2.3",
            "evillocalhost",
            "[::1].evil.example",
        ] {
            for path in ["/", "/why", "/metrics", "/console/events"] {
                let refusal = judged("127.0.0.1:9187", path, &[("host", host)]);
                assert_eq!(refusal, Some(Refusal::Name(host.to_owned())), "{path}");
            }
        }
        assert_eq!(judged("127.0.0.1:9187", "/", &[]), None, "no browser leaves it out");
    }

    #[test]
    fn scrapers_come_by_the_names_of_services_and_pages_do_not() {
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(judged("0.0.0.0:9187", path, &[("host", "unstale:9187")]), None);
        }
        for path in ["/", "/why", "/console/events", "/console/key"] {
            assert!(judged("0.0.0.0:9187", path, &[("host", "unstale:9187")]).is_some(), "{path}");
        }
    }

    #[test]
    fn pages_of_other_origins_cost_nothing() {
        let host = ("host", "127.0.0.1:9187");
        for asks in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "http://127.0.0.1:3000"),
            ("origin", "null"),
            ("origin", "https://evil.example"),
        ] {
            for path in ["/console/events", "/console/key", "/why"] {
                let refusal = judged("127.0.0.1:9187", path, &[host, asks]);
                assert_eq!(refusal, Some(Refusal::Origin), "{path} {asks:?}");
            }
            assert_eq!(judged("127.0.0.1:9187", "/", &[host, asks]), None, "a link to the page");
        }
        for asks in [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
            ("origin", "http://127.0.0.1:9187"),
        ] {
            assert_eq!(judged("127.0.0.1:9187", "/console/events", &[host, asks]), None);
        }
    }
}
