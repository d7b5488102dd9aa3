//! What went wrong, as the client is told: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::http::StatusCode;
use serde::Serialize;

/// One problem. What it says is for the client; what the operator must know is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The last part of its `type`: other people's programs compare it.
    pub name: &'static str,
    /// What it is, in general.
    pub title: &'static str,
    /// What it is, this time.
    pub detail: Cow<'static, str>,
    /// The parameter that is wrong.
    pub parameter: Option<Box<str>>,
    /// The `error` of `WWW-Authenticate` (RFC 6750, section 3.1); empty: no token was sent.
    pub challenge: Option<&'static str>,
    /// When to try again, in seconds.
    pub retry_after: Option<u32>,
    /// The methods that are allowed.
    pub allow: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
    request_id: &'a str,
}

impl Problem {
    fn new(
        status: StatusCode,
        name: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem {
            status,
            name,
            title,
            detail: detail.into(),
            parameter: None,
            challenge: None,
            retry_after: None,
            allow: None,
        }
    }

    /// As it is sent.
    #[must_use]
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        let body = Body {
            r#type: format!("urn:problem-type:unstale:{}", self.name),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            parameter: self.parameter.as_deref(),
            request_id,
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// 404: no such path.
    #[must_use]
    pub fn no_such_path() -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "Nothing is served here",
            "no endpoint has this path",
        )
    }

    /// 404: nothing to serve.
    #[must_use]
    pub fn not_found() -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "Not found",
            "there is nothing by these parameters",
        )
    }

    /// 404: the user belongs to no organization, and named none.
    #[must_use]
    pub fn no_organization() -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no-organization",
            "No organization",
            "the user belongs to no organization",
        )
    }

    /// 405
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Problem {
        let detail = format!("allowed here: {allow}");
        let problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            detail,
        );
        Problem { allow: Some(allow), ..problem }
    }

    /// 400: a parameter, or a header, that is not as it must be.
    #[must_use]
    pub fn parameter(name: &str, detail: impl Into<Cow<'static, str>>) -> Problem {
        let problem =
            Problem::new(StatusCode::BAD_REQUEST, "invalid-parameter", "Invalid parameter", detail);
        Problem { parameter: Some(name.into()), ..problem }
    }

    /// 400: a body that is not as it must be.
    #[must_use]
    pub fn invalid_body(detail: String) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid-body", "Invalid body", detail)
    }

    /// 415
    #[must_use]
    pub fn not_json() -> Problem {
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            "Unsupported media type",
            "send the header Content-Type: application/json",
        )
    }

    /// 429
    #[must_use]
    pub fn too_many(seconds: u32) -> Problem {
        let problem = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "Too many requests",
            "one caller may send so many a minute (api.management_per_minute)",
        );
        Problem { retry_after: Some(seconds), ..problem }
    }

    /// 429: of all callers together.
    #[must_use]
    pub fn too_many_jobs() -> Problem {
        Problem { detail: "too many jobs wait".into(), ..Problem::too_many(5) }
    }

    /// 413
    #[must_use]
    pub fn too_large(limit: usize) -> Problem {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "The request is too large",
            format!("a body may have {limit} bytes"),
        )
    }

    /// 401: no token.
    #[must_use]
    pub fn no_token() -> Problem {
        let problem = Problem::new(
            StatusCode::UNAUTHORIZED,
            "not-authenticated",
            "Not authenticated",
            "send the header Authorization: Bearer, with a token",
        );
        Problem { challenge: Some(""), ..problem }
    }

    /// 401: a token that is not taken.
    #[must_use]
    pub fn token(detail: &'static str) -> Problem {
        let problem =
            Problem::new(StatusCode::UNAUTHORIZED, "invalid-token", "Invalid token", detail);
        Problem { challenge: Some("invalid_token"), ..problem }
    }

    /// 401: the token is good, and its user is not active.
    #[must_use]
    pub fn user_inactive() -> Problem {
        let problem = Problem::new(
            StatusCode::UNAUTHORIZED,
            "user-inactive",
            "The user is not active",
            "the user of this token was deactivated",
        );
        Problem { challenge: Some("invalid_token"), ..problem }
    }

    /// 403
    #[must_use]
    pub fn forbidden(detail: &'static str) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    /// 403: the user's organization is not active.
    #[must_use]
    pub fn organization_inactive() -> Problem {
        Problem::new(
            StatusCode::FORBIDDEN,
            "organization-inactive",
            "The organization is not active",
            "the user's organization was deactivated",
        )
    }

    /// 503
    #[must_use]
    pub fn unavailable(detail: &'static str) -> Problem {
        let problem = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Not available now",
            detail,
        );
        Problem { retry_after: Some(1), ..problem }
    }

    /// 503: after a reload that went wrong.
    #[must_use]
    pub fn unusable() -> Problem {
        Problem::unavailable("the configuration cannot be used")
    }

    /// 500: what only the operator can mend.
    #[must_use]
    pub fn internal() -> Problem {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal-error",
            "Internal error",
            "the operator finds the reason in the log, by the request's id",
        )
    }
}
