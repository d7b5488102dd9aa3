//! docs/FROM_DJANGO.md leaves nothing out of what the Django cache layer has, and promises
//! nothing that is not there.

use std::process::Command;

const PAGE: &str = include_str!("../../docs/FROM_DJANGO.md");

/// What there is in the application: classes, methods, decorators, flags, tasks, settings, keys
/// and endpoints.
const THERE: &[&str] = &[
    "StrategicCacheManager",
    "get_organization_data",
    "warm_organization_cache",
    "invalidate_user_related_caches",
    "APIResponseOptimizer",
    "CacheHeadersMiddleware",
    "CacheWarmingManager",
    "cache_static_data",
    "cache_api_response",
    "CachedOrganizationViewSet",
    "CachedUserViewSet",
    "CachedAnalyticsViewSet",
    "CacheManagementViewSet",
    "signals",
    "--action=warm",
    "--action=invalidate",
    "--action=status",
    "--action=test",
    "--action=clear",
    "--cache-type",
    "--organization",
    "--days",
    "--force",
    "--verbose",
    "warm_organization_caches",
    "invalidate_organization_caches",
    "scheduled_cache_warming",
    "cache_maintenance",
    "generate_cache_performance_report",
    "CACHE_PERIODIC_TASKS",
    "CELERYBEAT_SCHEDULE",
    "BACKEND",
    "LOCATION",
    "CLIENT_CLASS",
    "max_connections",
    "retry_on_timeout",
    "KEY_PREFIX",
    "TIMEOUT",
    "MIDDLEWARE",
    "urlpatterns",
    "LOGGING",
    "v1:org:data:123",
    "v1:user_perms:456:123",
    "v1:deal_stats:123:30",
    "v1:role_info:123",
    "v1:api_response:dashboard:456:123",
    "/api/cached/organizations/{id}/info/",
    "/api/cached/organizations/{id}/statistics/?days=30",
    "/api/cached/organizations/{id}/roles/",
    "/api/cached/users/dashboard/",
    "/api/cached/users/permissions/",
    "/api/cached/analytics/deal-analytics/?days=30&type=overview",
    "/api/cached/analytics/performance-metrics/",
    "/api/cache-management/warm-cache/",
    "/api/cache-management/invalidate-cache/",
    "/api/cache-management/cache-status/",
];

#[test]
fn each_thing_that_the_application_has_stands_first_in_a_row() {
    let firsts: Vec<&str> =
        PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    for thing in THERE {
        assert!(firsts.iter().any(|first| first.contains(thing)), "no row for {thing}");
    }
}

#[test]
fn each_command_that_is_not_called_planned_is_there() {
    let help = Command::new(env!("CARGO_BIN_EXE_unstale")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .collect();
    assert!(commands.contains(&"run"), "{help}");
    let mut named = 0;
    for line in PAGE.lines().filter(|line| !line.contains("**planned**")) {
        for part in line.split('`').filter_map(|part| part.strip_prefix("unstale ")) {
            let command = part.split(' ').next().unwrap();
            assert!(commands.contains(&command), "unstale {command} is not there: {line}");
            named += 1;
        }
    }
    assert!(named > 5, "{named}");
}
