//! What a parameter may be, as JSON Schema says it: exactly that.

use serde_json::{Value, json};

use crate::api::parameters::{Allowed, Parameter};

/// Control characters, as `char::is_control` has them.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";

/// White space, as `str::trim` has it. (`\s` is another set in each language.)
const SPACE: &str = r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";

/// A parameter; `None` if it does not come with the request.
pub(super) fn describe(parameter: &Parameter) -> Option<Value> {
    let (place, name) = match (&parameter.path, &parameter.query) {
        (Some(name), _) => ("path", name),
        (None, Some(name)) => ("query", name),
        (None, None) => return None,
    };
    let required = place == "path" || parameter.default.is_none() && parameter.identity.is_none();
    let mut schema = schema(&parameter.allowed);
    if let (Some(default), Some(schema)) = (&parameter.default, schema.as_object_mut()) {
        schema.insert("default".to_owned(), typed(&parameter.allowed, default));
    }
    let mut text = parameter.allowed.describe();
    if let Some(cached) = &parameter.cached {
        text.push_str(&format!(
            "; {} are cached, others are answered from the database",
            cached.join(", ")
        ));
    }
    if parameter.identity.is_some() {
        text.push_str("; the user's own, unless it is given");
    }
    Some(json!({
        "name": name,
        "in": place,
        "required": required,
        "description": text,
        "schema": schema,
        "example": example(parameter),
    }))
}

fn schema(allowed: &Allowed) -> Value {
    match allowed {
        Allowed::OneOf(values) => json!({ "type": "string", "enum": values }),
        Allowed::Integer { min, max } => {
            json!({ "type": "integer", "format": "int64", "minimum": min, "maximum": max })
        }
        Allowed::Uuid => json!({
            "type": "string",
            "format": "uuid",
            "pattern": "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
        }),
        // The length is that of what is left.
        Allowed::Text { min, max, trim: true, .. } => {
            json!({ "type": "string", "pattern": trimmed(*min, *max) })
        }
        Allowed::Text { min, max, trim: false, .. } => json!({
            "type": "string",
            "minLength": min,
            "maxLength": max,
            "pattern": format!("^[^{CONTROL}]*$"),
        }),
    }
}

/// A text of `min` to `max` characters without control characters, and white space around it.
fn trimmed(min: u32, max: u32) -> String {
    let (edge, inner) = (format!("[^{CONTROL}{SPACE}]"), format!("[^{CONTROL}]"));
    let of_two =
        format!("{edge}{inner}{{{},{}}}{edge}", min.saturating_sub(2), max.saturating_sub(2));
    let core = match (min, max) {
        (_, 0) => String::new(),
        (_, 1) => edge,
        (0 | 1, _) => format!("({edge}|{of_two})"),
        _ => of_two,
    };
    let core = if min == 0 { format!("({core})?") } else { core };
    format!("^[{SPACE}]*{core}[{SPACE}]*$")
}

fn example(parameter: &Parameter) -> Value {
    let text = match (&parameter.default, &parameter.allowed) {
        (Some(default), _) => default.clone(),
        (None, Allowed::OneOf(values)) => values.first().cloned().unwrap_or_default(),
        (None, Allowed::Integer { min, max }) => 1.clamp(*min, *max).to_string(),
        (None, Allowed::Uuid) => "c0ffee00-0000-4000-8000-00000000000a".to_owned(),
        (None, Allowed::Text { min, max, .. }) if (*min..=*max).contains(&4) => "acme".to_owned(),
        (None, Allowed::Text { min, .. }) => "a".repeat(usize::try_from(*min).unwrap_or_default()),
    };
    typed(&parameter.allowed, &text)
}

fn typed(allowed: &Allowed, text: &str) -> Value {
    match allowed {
        Allowed::Integer { .. } => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
        _ => text.into(),
    }
}
