//! What several operations have in common.

use serde_json::{Map, Value, json};

use crate::api::schemas::Schemas;

/// `components`.
pub(super) fn components(of_values: &Schemas) -> Value {
    let mut components = json!({
        "securitySchemes": {
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "An access token as djangorestframework-simplejwt signs it. Who its user is, is read from the cache: who was deactivated is out at once.",
            },
        },
        "parameters": {
            "MinLsn": {
                "name": "Unstale-Min-LSN",
                "in": "header",
                "required": false,
                "description": "What `pg_current_wal_flush_lsn()` gave after a commit: the answer is not older than that.",
                // The least position is among those of the pattern. Named apart, it is the value that
                // schemathesis begins with; of a pattern alone it makes a number here.
                "schema": { "anyOf": [
                    { "type": "string", "enum": ["0/0"] },
                    { "type": "string", "pattern": "^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$" },
                ] },
                "example": "0/16B3748",
            },
            "IfNoneMatch": {
                "name": "If-None-Match",
                "in": "header",
                "required": false,
                "description": "The ETag that the client knows (RFC 9110, section 13.1.2).",
                "schema": { "type": "string" },
                "example": "W/\"4f3c2a1b\"",
            },
            "IfModifiedSince": {
                "name": "If-Modified-Since",
                "in": "header",
                "required": false,
                "description": "Counts only without If-None-Match (RFC 9110, section 13.1.3).",
                "schema": { "type": "string" },
                "example": "Sun, 22 Nov 2026 21:00:00 GMT",
            },
            "RequestId": {
                "name": "X-Request-Id",
                "in": "header",
                "required": false,
                "description": "By what the request is found in the log; one is made where this is none.",
                "schema": { "type": "string" },
                "example": "7f1d3c52",
            },
        },
        "headers": headers(),
        "schemas": {
            "CacheInfo": {
                "type": "object",
                "description": "Where the value comes from.",
                "required": ["cached", "cache_type", "ttl"],
                "properties": {
                    "cached": { "type": "boolean", "description": "It was in the cache." },
                    "cache_type": { "type": "string", "description": "The cache." },
                    "ttl": { "type": "integer", "minimum": 0, "description": "How long its entries live at most, in seconds." },
                },
            },
            "Problem": {
                "type": "object",
                "description": "What went wrong (RFC 9457).",
                "required": ["type", "title", "status", "detail", "request_id"],
                "properties": {
                    "type": { "type": "string", "format": "uri", "description": "For programs: compare this." },
                    "title": { "type": "string" },
                    "status": { "type": "integer", "minimum": 400, "maximum": 599 },
                    "detail": { "type": "string", "description": "What it is, this time." },
                    "parameter": { "type": "string", "description": "The parameter that is wrong." },
                    "request_id": { "type": "string" },
                },
            },
        },
        "responses": PROBLEMS.iter().map(|problem| (problem.name.to_owned(), problem.answer())).collect::<Map<_, _>>(),
    });
    if let Some(schemas) = components.pointer_mut("/schemas").and_then(Value::as_object_mut) {
        let own = super::own::schemas();
        schemas.extend(own.into_iter().map(|(name, schema)| (name.to_owned(), schema)));
        let of_values = of_values.components();
        schemas.extend(of_values.map(|(name, schema)| (name.clone(), schema.clone())));
    }
    components
}

fn headers() -> Value {
    let all = [
        ("ETag", true, "Weak; of the value's bytes.", json!("W/\"0af7651916cd43dd\"")),
        (
            "Last-Modified",
            false,
            "Since when the value is as it is, as far as the daemon knows.",
            json!("Sun, 22 Nov 2026 21:00:00 GMT"),
        ),
        ("Age", true, "For how many seconds the value has been cached.", json!(12)),
        (
            "Warning",
            false,
            "The value is an older one: the database does not answer (`stale_if_error`).",
            json!("110 unstale \"Response is Stale\""),
        ),
        ("Cache-Status", true, "Where it comes from (RFC 9211).", json!("unstale; hit")),
        (
            "Unstale-Applied-LSN",
            false,
            "The watermark: all that was committed below it is in the answer.",
            json!("0/16B3748"),
        ),
        ("Vary", true, "What the answer depends on.", json!("Authorization, Accept-Encoding")),
        ("X-Request-Id", true, "By what the request is found in the log.", json!("7f1d3c52")),
        (
            "WWW-Authenticate",
            true,
            "How to authenticate (RFC 6750).",
            json!("Bearer realm=\"api\""),
        ),
        ("Retry-After", true, "When to try again, in seconds.", json!(1)),
    ];
    let header = |(name, required, text, example): (&str, bool, &str, Value)| {
        let kind = if example.is_number() {
            json!({ "type": "integer", "minimum": 0 })
        } else {
            json!({ "type": "string" })
        };
        let header = json!({ "description": text, "required": required, "schema": kind, "example": example });
        (name.to_owned(), header)
    };
    all.into_iter().map(header).collect::<Map<_, _>>().into()
}

pub(super) fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

struct Kind {
    status: u16,
    name: &'static str,
    text: &'static str,
    r#type: &'static str,
    headers: &'static [&'static str],
}

const PROBLEMS: [Kind; 9] = [
    Kind {
        status: 400,
        name: "BadRequest",
        text: "A parameter or a header is not as it must be: `detail` says what is allowed.",
        r#type: "invalid-parameter",
        headers: &[],
    },
    Kind {
        status: 401,
        name: "Unauthorized",
        text: "No token, one that is not taken, or its user is not active.",
        r#type: "not-authenticated",
        headers: &["WWW-Authenticate"],
    },
    Kind {
        status: 403,
        name: "Forbidden",
        text: "Not for this user.",
        r#type: "forbidden",
        headers: &[],
    },
    Kind {
        status: 404,
        name: "NotFound",
        text: "There is nothing by these parameters, or the user belongs to no organization (`no-organization`).",
        r#type: "not-found",
        headers: &[],
    },
    Kind {
        status: 413,
        name: "TooLarge",
        text: "The body is larger than `api.max_body_bytes`.",
        r#type: "body-too-large",
        headers: &[],
    },
    Kind {
        status: 415,
        name: "UnsupportedMediaType",
        text: "The body is not application/json.",
        r#type: "not-json",
        headers: &[],
    },
    Kind {
        status: 429,
        name: "TooManyRequests",
        text: "More than `api.management_per_minute`, or too many jobs wait.",
        r#type: "too-many-requests",
        headers: &["Retry-After"],
    },
    Kind {
        status: 500,
        name: "InternalError",
        text: "What only the operator can mend.",
        r#type: "internal-error",
        headers: &[],
    },
    Kind {
        status: 503,
        name: "Unavailable",
        text: "Neither the cache nor the database can answer now, or too much is asked at once.",
        r#type: "unavailable",
        headers: &["Retry-After"],
    },
];

impl Kind {
    fn answer(&self) -> Value {
        let headers: Map<String, Value> = std::iter::once(&"X-Request-Id")
            .chain(self.headers)
            .map(|name| ((*name).to_owned(), header(name)))
            .collect();
        json!({
            "description": self.text,
            "headers": headers,
            "content": { "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" },
                "example": {
                    "type": format!("urn:problem-type:unstale:{}", self.r#type),
                    "title": self.name,
                    "status": self.status,
                    "detail": self.text,
                    "request_id": "7f1d3c52",
                },
            } },
        })
    }
}

/// Answers with these statuses.
pub(super) fn problems(statuses: &[u16]) -> Map<String, Value> {
    let known = PROBLEMS.iter().filter(|problem| statuses.contains(&problem.status));
    known
        .map(|problem| {
            let reference = json!({ "$ref": format!("#/components/responses/{}", problem.name) });
            (problem.status.to_string(), reference)
        })
        .collect()
}
