//! Whatever a request to the read API says, it is refused, or it asks by the one spelling of each value
//! for an entry of its endpoint that who asks may see.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use hyper::Uri;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use unstale::api::access::may;
use unstale::api::conditional::{etag, none_match, not_modified_since};
use unstale::api::encoding::Coding;
use unstale::api::endpoints::{Endpoint, Endpoints};
use unstale::api::identity::{Identity, canonical_uuid};
use unstale::api::parameters::{Allowed, Parameter, Query, Values};
use unstale::config::Layers;
use unstale::config::endpoints::{IdentityField, Who};
use unstale::lsn::Lsn;
use unstale::mapping::Mapping;

/// The endpoints that the daemon comes with, and one of each other kind of parameter.
static SERVED: LazyLock<(Mapping, Endpoints)> = LazyLock::new(|| {
    let text = [include_str!("../../config/unstale.toml"), MORE].concat();
    let loaded = Layers::text("unstale.toml", &text).load().expect("a configuration");
    let mapping = Mapping::new(&loaded.config).expect("a mapping");
    let endpoints = Endpoints::compile(&loaded.config, &mapping, &BTreeMap::new());
    (mapping, endpoints.expect("endpoints"))
});

const MORE: &str = r#"
[caches.kinds]
key = "v1:kinds:{u}:{n}:{t}:{w}:{c}"
query = "select 1"
ttl = "1m"

[[endpoints]]
path = "/kinds/{u}/of/{t}/"
cache = "kinds"
envelope = "kinds"
who = "anyone"
[endpoints.parameters]
u = { path = "u", type = "uuid" }
n = { query = "n", type = "integer", min = -5, max = 9223372036854775807, default = -1 }
t = { path = "t", max_length = 1000 }
w = { query = "w", min_length = 0, trim = true, lowercase = true, default = "" }
c = { query = "c", one_of = ["a b", "+", "%"], default = "%" }
"#;

/// Reads `input`, by lines: the target of a request, the user as the identity cache has him,
/// and values of headers.
///
/// # Panics
/// If an answer breaks a promise.
pub(crate) fn check(input: &[u8]) -> bool {
    let mut lines = input.split(|byte| *byte == b'\n');
    let (target, user) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    lines.take(4).filter_map(|line| str::from_utf8(line).ok()).for_each(header);
    let identity = Identity::read(user);
    // As hyper does.
    let Ok(target) = Uri::try_from(target) else { return false };
    ask(target.path(), target.query().unwrap_or_default(), identity.as_ref())
}

fn ask(path: &str, query: &str, identity: Option<&Identity>) -> bool {
    let (mapping, endpoints) = &*SERVED;
    let Some(matched) = endpoints.find(path) else { return false };
    let query = Query::parse(query);
    let endpoint = matched.endpoint;
    let Ok(values) = matched.values(&query, identity) else { return false };
    assert!(endpoint.parameters.iter().map(|p| &*p.name).eq(values.values.iter().map(|(n, _)| *n)));
    for (parameter, (_, value)) in endpoint.parameters.iter().zip(&values.values) {
        check_value(parameter, value, identity);
    }

    // Whoever asks for these values asks for the same, unless lower case made them too long to ask.
    let (path, query) = spelled(endpoint, &values, identity);
    let again = endpoints.find(&path).expect("the same endpoint");
    assert_eq!(again.endpoint.template, endpoint.template, "{path}");
    match again.values(&Query::parse(&query), identity) {
        Ok(same) => assert_eq!(same, values),
        Err(problem) => assert!(
            values.values.iter().any(|(_, value)| value.chars().count() > 100),
            "{path}?{query}: {problem:?}"
        ),
    }

    check_access(endpoint, &values, identity);
    if let Some((_, cache)) = mapping.cache_by_name(&endpoint.cache) {
        let value = |name: &str| Some(values.get(name).unwrap_or("generation").as_bytes());
        let mut key = Vec::new();
        assert!(cache.template.render(value, &mut key).is_some());
        let read = cache.template.values(&key).expect("a key of its template");
        assert!(read.iter().all(|(name, found)| Some(&**found) == value(name)), "{key:?}");
    }
    true
}

fn check_value(parameter: &Parameter, value: &str, identity: Option<&Identity>) {
    let of_user = is_of_user(parameter, value, identity);
    let fits = match &parameter.allowed {
        Allowed::OneOf(values) => values.iter().any(|one| one == value),
        Allowed::Uuid => canonical_uuid(value).as_deref() == Some(value),
        Allowed::Integer { min, max } => value
            .parse::<i64>()
            .is_ok_and(|number| (min..=max).contains(&&number) && number.to_string() == value),
        Allowed::Text { min, max, trim, lowercase } => {
            // A letter may become two or three in lower case.
            let length = value.chars().count();
            let most = usize::try_from(*max).unwrap_or(usize::MAX) * if *lowercase { 3 } else { 1 };
            length >= usize::try_from(*min).unwrap_or_default()
                && length <= most
                && !value.chars().any(char::is_control)
                && (!trim || value.trim() == value)
                && (!lowercase || value.to_lowercase() == value)
        }
    };
    assert!(fits || of_user, "{value:?} for {parameter:?}");
}

/// Whether the value may have come from the user, as the identity cache has him.
fn is_of_user(parameter: &Parameter, value: &str, identity: Option<&Identity>) -> bool {
    identity.is_some_and(|identity| match parameter.identity {
        None => false,
        Some(IdentityField::UserId) => identity.user_id == value,
        Some(IdentityField::OrganizationId) => identity.organization_id.as_deref() == Some(value),
    })
}

/// Nobody is let in by more ways than these.
fn check_access(endpoint: &Endpoint, values: &Values<'_>, identity: Option<&Identity>) {
    let Some(identity) = identity else { return };
    let (organization, user) = (values.get(&endpoint.organization), values.get(&endpoint.user));
    if may(endpoint.who, identity, organization, user).is_err() || endpoint.who == Who::Anyone {
        return;
    }
    assert!(identity.is_active);
    if identity.is_superuser {
        return;
    }
    match endpoint.who {
        Who::Superuser => panic!("{identity:?} is none"),
        Who::Myself => assert!(user.is_none_or(|user| user == identity.user_id)),
        Who::Member | Who::Admin => {
            assert!(organization.is_some());
            assert_eq!(organization, identity.organization_id.as_deref());
        }
        Who::Anyone => {}
    }
}

/// A path and a query that give these values, those of the user left out.
fn spelled(
    endpoint: &Endpoint,
    values: &Values<'_>,
    identity: Option<&Identity>,
) -> (String, String) {
    let mut path = endpoint.template.to_string();
    let mut query = String::new();
    for parameter in &endpoint.parameters {
        let value = values.get(&parameter.name).unwrap_or_default();
        let encoded = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
        if let Some(name) = &parameter.path {
            path = path.replace(&format!("{{{name}}}"), &encoded);
        } else if let Some(name) = &parameter.query
            && !is_of_user(parameter, value, identity)
        {
            query.push_str(&format!("&{name}={encoded}"));
        }
    }
    (path, query)
}

fn header(value: &str) {
    if none_match(value, &etag(0)) {
        let tag = format!("\"{:032}\"", 0);
        assert!(value.contains(&tag) || value.contains('*'), "{value}");
    }
    let modified = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let later = modified + Duration::from_secs(60);
    let is_of = [modified, later].map(|time| not_modified_since(value, time));
    assert!(is_of != [true; 2], "one time is of one value");
    let coding = Coding::preferred(value);
    assert!(
        coding.as_str().is_none_or(|name| {
            value.contains('*') || value.to_ascii_lowercase().contains(name)
        })
    );
    if let Ok(lsn) = value.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
}
