//! What the daemon serves of itself.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::operation_id;
use super::parts::{header, problems};
use crate::api::own::{INVALIDATE, JOB, OPENAPI, STATUS, WARM};
use crate::mapping::Mapping;

/// Its paths; without a cache that says who a user is, the document alone.
pub(super) fn paths(mapping: &Mapping, knows_users: bool) -> Vec<(&'static str, Value)> {
    let mut paths = vec![(OPENAPI, json!({ "get": itself() }))];
    if knows_users {
        let warm = "Fill the entries that are not there";
        let invalidate = "Remove entries, although nothing has changed";
        paths.extend([
            (WARM, json!({ "post": order(WARM, warm, mapping) })),
            (INVALIDATE, json!({ "post": order(INVALIDATE, invalidate, mapping) })),
            (JOB, json!({ "get": job() })),
            (STATUS, json!({ "get": status() })),
        ]);
    }
    paths
}

/// This document.
fn itself() -> Value {
    let mut answers = Map::new();
    answers.insert(
        "200".to_owned(),
        json!({
            "description": "This document.",
            "headers": { "ETag": header("ETag"), "X-Request-Id": header("X-Request-Id") },
            "content": { "application/json": { "schema": {
                "type": "object", "required": ["openapi", "info", "paths"],
            } } },
        }),
    );
    answers.insert("304".to_owned(), json!({ "description": "It is as the client knows it." }));
    answers.extend(problems(&[500, 503]));
    json!({
        "operationId": "get_openapi",
        "tags": ["daemon"],
        "summary": "What is served, in OpenAPI",
        "security": [],
        "parameters": [{ "$ref": "#/components/parameters/IfNoneMatch" }],
        "responses": answers,
    })
}

const WHO: &str = "For organization administrators, about their own organization, and for superusers, about any. Limited in rate for each caller (`api.management_per_minute`).";

fn order(path: &str, summary: &str, mapping: &Mapping) -> Value {
    let id = json!({
        "type": ["integer", "string", "null"],
        "minimum": 0,
        "maximum": i64::MAX,
        "pattern": "^([0-9]{1,18}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$",
    });
    let of = |description: &str| {
        let mut id = id.clone();
        if let Some(id) = id.as_object_mut() {
            id.insert("description".to_owned(), description.into());
        }
        id
    };
    let mut answers = Map::new();
    answers.insert(
        "202".to_owned(),
        json!({
            "description": "It will be done: the job says when it has been.",
            "headers": {
                "X-Request-Id": header("X-Request-Id"),
                "Location": {
                    "description": "The job.",
                    "required": true,
                    "schema": { "type": "string" },
                    "example": "/api/cache-management/jobs/0af7651916cd43dd8448eb211c80319c/",
                },
            },
            "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/Ordered" },
                "example": {
                    "success": true,
                    "message": "the entries of all of organization 7 will be filled",
                    "job_id": "0af7651916cd43dd8448eb211c80319c",
                    "job_url": "/api/cache-management/jobs/0af7651916cd43dd8448eb211c80319c/",
                    "cache_type": "all",
                    "organization_id": "7",
                    "user_id": null,
                },
            } },
        }),
    );
    answers.extend(problems(&[400, 401, 403, 404, 413, 415, 429, 500, 503]));
    json!({
        "operationId": operation_id("post", path),
        "tags": ["management"],
        "summary": summary,
        "description": WHO,
        "parameters": [{ "$ref": "#/components/parameters/RequestId" }],
        "requestBody": {
            "required": true,
            "content": { "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["cache_type"],
                    "additionalProperties": false,
                    "properties": {
                        "cache_type": {
                            "type": "string",
                            "enum": cache_types(mapping),
                            "description": "All, a group, `user` (whose keys name a user), or a cache.",
                        },
                        "organization_id": of("Only of this organization. An administrator's own, unless it is given; for superusers: of all."),
                        "user_id": of("Only of this user."),
                    },
                },
                "example": { "cache_type": "all", "organization_id": 1 },
            } },
        },
        "responses": answers,
    })
}

fn cache_types(mapping: &Mapping) -> Vec<&str> {
    let mut types = vec!["all"];
    let groups: BTreeSet<&str> =
        mapping.caches().filter_map(|(_, cache)| cache.group.as_deref()).collect();
    let names = mapping.caches().map(|(_, cache)| &*cache.name);
    let composed = mapping.compositions().iter().map(|composition| &*composition.name);
    let names: BTreeSet<&str> = names.chain(composed).collect();
    for name in groups.into_iter().chain(["user"]).chain(names) {
        if !types.contains(&name) && mapping.select(name).is_ok() {
            types.push(name);
        }
    }
    types
}

fn job() -> Value {
    let mut answers = Map::new();
    answers.insert(
        "200".to_owned(),
        json!({
            "description": "What became of an order. Jobs are remembered for an hour, and by this daemon alone.",
            "headers": { "X-Request-Id": header("X-Request-Id") },
            "content": { "application/json": { "schema": {
                "type": "object",
                "required": ["success", "job"],
                "properties": {
                    "success": { "const": true },
                    "job": { "$ref": "#/components/schemas/Job" },
                },
            }, "example": { "success": true, "job": {
                "id": "0af7651916cd43dd8448eb211c80319c",
                "action": "warm",
                "state": "running",
                "cache_type": "all",
                "organization_id": "7",
                "user_id": null,
                "ordered_by": "42",
                "ordered_at": "2026-11-22T21:00:00.000000Z",
                "begun_at": "2026-11-22T21:00:00.000100Z",
                "ended_at": null,
                "counts": null,
                "error": null,
            } } } },
        }),
    );
    answers.extend(problems(&[401, 403, 404, 500, 503]));
    json!({
        "operationId": operation_id("get", JOB),
        "tags": ["management"],
        "summary": "What became of an order",
        "description": "For whoever could have given it.",
        "parameters": [{
            "name": "id",
            "in": "path",
            "required": true,
            "description": "The `job_id` of the order.",
            "schema": { "type": "string", "pattern": "^[0-9a-f]{32}$" },
            "example": "0af7651916cd43dd8448eb211c80319c",
        }],
        "responses": answers,
    })
}

fn status() -> Value {
    let mut answers = Map::new();
    answers.insert(
        "200".to_owned(),
        json!({
            "description": "Live figures, since the start of the daemon; what is in Redis is counted every 15 seconds at most.",
            "headers": { "X-Request-Id": header("X-Request-Id") },
            "content": { "application/json": { "schema": {
                "type": "object",
                "required": ["cache_status", "cache_info"],
                "properties": {
                    "cache_status": { "$ref": "#/components/schemas/Figures" },
                    "cache_info": { "$ref": "#/components/schemas/CacheInfo" },
                },
            }, "example": {
                "cache_status": figures("org_data"),
                "cache_info": { "cached": false, "cache_type": "cache_status", "ttl": 0 },
            } } },
        }),
    );
    answers.extend(problems(&[401, 403, 404, 500, 503]));
    json!({
        "operationId": operation_id("get", STATUS),
        "tags": ["management"],
        "summary": "How the cache stands",
        "description": "For organization administrators and superusers.",
        "parameters": [{ "$ref": "#/components/parameters/RequestId" }],
        "responses": answers,
    })
}

/// Live figures, such as they may be.
pub(super) fn figures(cache: &str) -> Value {
    let times = |count: u32, ms: f64| json!({ "count": count, "mean_ms": ms, "p50_ms": ms, "p99_ms": ms * 3.0 });
    let reads = json!({
        "held": 0, "hits": 980, "misses": 20, "bypasses": 0, "stale": 0, "errors": 0,
        "hit_rate": 0.98, "miss_rate": 0.02, "hit_latency": times(980, 0.25),
        "miss_latency": times(20, 4.0), "speedup": 16.0,
    });
    json!({
        "reads": { "total": reads, "caches": { cache: reads } },
        "redis": {
            "counted_at": "2026-11-22T21:00:00Z",
            "memory_bytes": 1_800_000,
            "caches": { cache: {
                "ttl_seconds": 3600, "group": "strategic", "keys": 120, "scopes": null,
                "bytes": 60_000, "sampled": 64, "mean_remaining_seconds": 1700.5,
                "without_expiry": 0, "leases": 0,
            } },
        },
        "replication": {
            "ready": true, "phase": "streaming", "applied_lsn": "0/16B3748",
            "server_lsn": "0/16B3748", "lag_bytes": 0, "lag_seconds": 0.0,
            "parked_transactions": 0, "suspects": 0, "heartbeat_seconds": 0.004,
            "slot": {
                "wal_status": "reserved", "safe_wal_size": null, "invalidation_reason": null,
                "retained_bytes": 0,
            },
        },
        "schedule": [{
            "task": "warm", "every_seconds": 14_400.0, "running": false,
            "next_in_seconds": 7_000.0, "last": null,
        }],
        "last_gap": { "at": 1_795_381_200, "reason": "no_state" },
        "last_report": null,
        "jobs_unfinished": 0,
    })
}

/// `components/schemas`, of these.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let optional = |kind: &str| json!({ "type": [kind, "null"] });
    let figures = json!({
        "type": "object",
        "description": "Live figures.",
        "required": ["reads", "redis", "replication", "schedule", "last_gap", "last_report", "jobs_unfinished"],
        "properties": {
            "reads": {
                "type": "object",
                "description": "Of all caches, and of each: how many, the rates of hits and misses, their latencies, and how much faster a hit is.",
                "required": ["total", "caches"],
                "properties": {
                    "total": { "$ref": "#/components/schemas/Reads" },
                    "caches": { "type": "object", "additionalProperties": { "$ref": "#/components/schemas/Reads" } },
                },
            },
            "redis": { "type": ["object", "null"], "description": "Memory and keys by cache; null: not counted yet." },
            "replication": {
                "type": "object",
                "required": ["ready", "phase", "applied_lsn", "server_lsn", "lag_bytes", "lag_seconds", "parked_transactions", "suspects", "heartbeat_seconds", "slot"],
                "properties": {
                    "ready": { "type": "boolean", "description": "The cache can be trusted." },
                    "phase": { "type": "string" },
                    "applied_lsn": { "type": "string" },
                    "server_lsn": { "type": "string" },
                    "lag_bytes": { "type": "integer", "minimum": 0 },
                    "lag_seconds": { "type": "number", "minimum": 0 },
                    "parked_transactions": { "type": "integer", "minimum": 0, "description": "Committed, and not visible yet." },
                    "suspects": { "type": "integer", "minimum": 0, "description": "Transactions that may never come through the stream." },
                    "heartbeat_seconds": { "type": ["number", "null"], "minimum": 0, "description": "How long the last heartbeat took to be applied; null: none yet." },
                    "slot": {
                        "type": ["object", "null"],
                        "description": "The slot, as it was last seen.",
                        "required": ["wal_status", "safe_wal_size", "invalidation_reason", "retained_bytes"],
                        "properties": {
                            "wal_status": optional("string"),
                            "safe_wal_size": optional("integer"),
                            "invalidation_reason": optional("string"),
                            "retained_bytes": { "type": "integer", "minimum": 0 },
                        },
                    },
                },
            },
            "last_gap": { "type": ["object", "null"], "description": "When everything was dropped last (Unix time), and why." },
            "schedule": {
                "type": ["array", "null"],
                "description": "What the daemon does now and then; null: not looked at yet.",
                "items": {
                    "type": "object",
                    "required": ["task", "every_seconds", "running", "next_in_seconds", "last"],
                    "properties": {
                        "task": { "type": "string" },
                        "every_seconds": { "type": "number", "minimum": 0 },
                        "running": { "type": "boolean" },
                        "next_in_seconds": { "type": ["number", "null"], "minimum": 0 },
                        "last": { "type": ["object", "null"] },
                    },
                },
            },
            "last_report": {
                "type": ["object", "null"],
                "description": "The last report that was kept (`unstale report` shows all of it); null: there is none.",
                "properties": {
                    "id": { "type": "string" },
                    "made_at": { "type": "string", "format": "date-time" },
                    "window_seconds": { "type": "integer", "minimum": 0, "description": "How long the time is that it is about." },
                    "hit_rate": optional("number"),
                    "miss_rate": optional("number"),
                    "hit_rate_points": { "type": ["number", "null"], "description": "By how many points the hit rate has grown since the report before." },
                    "inconsistent_p99_ms": optional("number"),
                    "regressions": { "type": "integer", "minimum": 0 },
                    "bottlenecks": { "type": "integer", "minimum": 0 },
                    "recommendations": { "type": "integer", "minimum": 0 },
                },
            },
            "jobs_unfinished": { "type": "integer", "minimum": 0 },
        },
    });
    let latency = json!({
        "type": "object",
        "required": ["count", "mean_ms", "p50_ms", "p99_ms"],
        "properties": {
            "count": { "type": "integer", "minimum": 0 },
            "mean_ms": optional("number"),
            "p50_ms": optional("number"),
            "p99_ms": optional("number"),
        },
    });
    let reads = json!({
        "type": "object",
        "required": ["held", "hits", "misses", "bypasses", "stale", "errors", "hit_rate", "miss_rate", "hit_latency", "miss_latency", "speedup"],
        "properties": {
            "held": { "type": "integer", "minimum": 0, "description": "Answered from the daemon's own memory." },
            "hits": { "type": "integer", "minimum": 0 },
            "misses": { "type": "integer", "minimum": 0 },
            "bypasses": { "type": "integer", "minimum": 0 },
            "stale": { "type": "integer", "minimum": 0, "description": "Answered by an older value, since the database did not answer (`stale_if_error`)." },
            "errors": { "type": "integer", "minimum": 0 },
            "hit_rate": optional("number"),
            "miss_rate": optional("number"),
            "hit_latency": latency,
            "miss_latency": latency,
            "speedup": optional("number"),
        },
    });
    let job = json!({
        "type": "object",
        "required": ["id", "action", "state", "cache_type", "ordered_by", "ordered_at", "counts", "error"],
        "properties": {
            "id": { "type": "string" },
            "action": { "enum": ["warm", "invalidate"] },
            "state": { "enum": ["waiting", "running", "done", "failed", "cut_off"], "description": "`cut_off`: the configuration was loaded anew; order it again." },
            "cache_type": { "type": "string" },
            "organization_id": optional("string"),
            "user_id": optional("string"),
            "ordered_by": { "type": "string", "description": "The user's id." },
            "ordered_at": { "type": "string", "format": "date-time" },
            "begun_at": { "type": ["string", "null"], "format": "date-time" },
            "ended_at": { "type": ["string", "null"], "format": "date-time" },
            "counts": { "type": ["object", "null"], "description": "What was done: in total, by cache, and which caches were left out, and why." },
            "error": optional("string"),
        },
    });
    let ordered = json!({
        "type": "object",
        "required": ["success", "message", "job_id", "job_url", "cache_type"],
        "properties": {
            "success": { "const": true },
            "message": { "type": "string" },
            "job_id": { "type": "string", "pattern": "^[0-9a-f]{32}$" },
            "job_url": { "type": "string" },
            "cache_type": { "type": "string" },
            "organization_id": optional("string"),
            "user_id": optional("string"),
        },
    });
    vec![("Figures", figures), ("Reads", reads), ("Job", job), ("Ordered", ordered)]
}
