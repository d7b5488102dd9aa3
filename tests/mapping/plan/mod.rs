//! A row's change reaches exactly the keys that depended on it; and where the stream does
//! not carry what that takes, more, never less.

mod lookups;
mod many;
mod reaches;
mod reference;
mod told;

use unstale::config::model::{Config, Operation};
use unstale::mapping::Mapping;
use unstale::mapping::changes::ChangeSet;
use unstale::mapping::plan::TablePlan;
use unstale::mapping::types::TypeNames;
use unstale::pgoutput::encode;
use unstale::pgoutput::message::{
    OldTuple, Relation, RelationColumn, ReplicaIdentity, Tuple, Value,
};

const CACHES: &str = r#"
    [postgres]
    url = "postgres://unstale@127.0.0.1/app"
    [redis]
    url = "redis://127.0.0.1/1"
    key_prefix = "p:"
    [caches.one]
    key = "one:{org}"
    [caches.stats]
    key = "stats:{org}:{days}"
    parameters = { days = [7, 30] }
    [caches.search]
    key = "search:{org}:{generation}:{q}"
    scope = ["org"]
    [caches.pair]
    key = "pair:{user}:{org}"
"#;

fn mapping(rules: &str) -> Mapping {
    let text = format!("{CACHES}\n[[tables]]\nname = \"deals\"\ninvalidates = [{rules}]");
    let config: Config = toml_edit::de::from_str(&text).expect("the configuration is read");
    Mapping::new(&config).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// `deals(id int8, org int8, status text, note text)`; the key is `id`, by index `id, org`.
fn relation(identity: ReplicaIdentity) -> Relation {
    let column = |name: &str, type_id| {
        let key = match identity {
            ReplicaIdentity::Full => true,
            ReplicaIdentity::Default => name == "id",
            ReplicaIdentity::Index => matches!(name, "id" | "org"),
            ReplicaIdentity::Nothing => false,
        };
        RelationColumn { key, name: name.into(), type_id, type_modifier: -1 }
    };
    Relation {
        id: 7,
        namespace: "public".into(),
        name: "deals".into(),
        identity,
        columns: vec![
            column("id", 20),
            column("org", 20),
            column("status", 25),
            column("note", 25),
        ],
    }
}

fn plan(mapping: &Mapping, identity: ReplicaIdentity) -> TablePlan {
    let plan = mapping.plan(&relation(identity), &TypeNames::default()).expect("it has rules");
    assert_eq!(plan.problems(), Vec::<String>::new());
    plan
}

fn t(text: &str) -> Value<'_> {
    Value::Text(text.as_bytes())
}
const NULL: Value<'static> = Value::Null;
const TOAST: Value<'static> = Value::Unchanged;

/// The old row, as the test says it is sent.
#[derive(Clone, Copy)]
enum Old<'a> {
    None,
    Key(&'a [Value<'a>]),
    Full(&'a [Value<'a>]),
}
use Old::{Full, Key};

fn with_tuples<R>(
    old: Old<'_>,
    new: Option<&[Value<'_>]>,
    run: impl FnOnce(Option<OldTuple<'_>>, Option<Tuple<'_>>) -> R,
) -> R {
    let old_bytes = match old {
        Old::None => None,
        Key(values) | Full(values) => Some(encode::tuple(values)),
    };
    let new_bytes = new.map(encode::tuple);
    let new = new_bytes.as_deref().map(|bytes| Tuple::parse(bytes).expect("a tuple").0);
    let old_tuple = old_bytes.as_deref().map(|bytes| Tuple::parse(bytes).expect("a tuple").0);
    let old = match old {
        Full(_) => old_tuple.map(OldTuple::Full),
        _ => old_tuple.map(OldTuple::Key),
    };
    run(old, new)
}

fn apply_to(
    plan: &TablePlan,
    operation: Operation,
    old: Old<'_>,
    new: Option<&[Value<'_>]>,
    out: &mut ChangeSet,
) {
    with_tuples(old, new, |old, new| plan.apply(operation, old, new, out));
}

/// All that a set holds, readable and sorted.
fn shown(mapping: &Mapping, set: &ChangeSet) -> Vec<String> {
    let mut all: Vec<String> = set.keys().map(|(key, _)| key.to_string()).collect();
    for (cache, reason, _) in set.whole() {
        all.push(format!("all of {}: {reason}", mapping.cache(cache).expect("known").name));
    }
    for (rule, rows) in set.lookups() {
        for row in rows.batches(1) {
            let values: Vec<_> = row.into_iter().flatten().map(|v| v.unwrap_or("null")).collect();
            all.push(format!("look up {}: {}", rule.0, values.join(" ")));
        }
    }
    all.sort();
    all
}

struct Case {
    mapping: Mapping,
    identity: ReplicaIdentity,
}

impl Case {
    fn new(rules: &str, identity: ReplicaIdentity) -> Self {
        Case { mapping: mapping(rules), identity }
    }

    fn full(rules: &str) -> Self {
        Case::new(rules, ReplicaIdentity::Full)
    }

    #[track_caller]
    fn reaches(
        &self,
        operation: Operation,
        old: Old<'_>,
        new: Option<&[Value<'_>]>,
        expected: &[&str],
    ) {
        let plan = plan(&self.mapping, self.identity);
        let mut out = ChangeSet::default();
        apply_to(&plan, operation, old, new, &mut out);
        assert_eq!(shown(&self.mapping, &out), expected);
    }

    #[track_caller]
    fn insert(&self, new: &[Value<'_>], expected: &[&str]) {
        self.reaches(Operation::Insert, Old::None, Some(new), expected);
    }
    #[track_caller]
    fn update(&self, old: Old<'_>, new: &[Value<'_>], expected: &[&str]) {
        self.reaches(Operation::Update, old, Some(new), expected);
    }
    #[track_caller]
    fn delete(&self, old: Old<'_>, expected: &[&str]) {
        self.reaches(Operation::Delete, old, None, expected);
    }
}

const BY_ORG: &str = r#"{ cache = "one", org = "org" }"#;

const VIA: &str = r#"{ cache = "pair", columns = ["org", "status"], where = "id <> 5", via = """
    select u.id as "user", u.org as "org"
      from u join changed on changed.org = u.org and changed.note is null; -- done
""" }"#;
