//! Parameters go in as text and values come out as they are, whatever their types: Postgres
//! knows both, and nobody here needs to.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type};

/// A parameter in its type's text form, which the server reads.
#[derive(Debug)]
pub(super) struct Text<'a>(pub(super) &'a str);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// A JSON text: of `json` and `text` the bytes as they come, of `jsonb` those behind its
/// version.
pub(super) struct Json<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Json<'a> {
    fn from_sql(r#type: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        match (r#type, raw) {
            (&Type::JSONB, [1, text @ ..]) => Ok(Json(text)),
            (&Type::JSONB, _) => Err("a jsonb of an unknown version".into()),
            _ => Ok(Json(raw)),
        }
    }

    fn accepts(r#type: &Type) -> bool {
        matches!(*r#type, Type::JSON | Type::JSONB | Type::TEXT | Type::VARCHAR)
    }
}
