//! Publications: what the stream carries.

use xxhash_rust::xxh3::Xxh3;

use super::client::SqlClient;
use super::error::PgError;

/// A publication and its tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Its name.
    pub name: String,
    /// FOR ALL TABLES.
    pub all_tables: bool,
    /// Whether INSERT is published.
    pub insert: bool,
    /// Whether UPDATE is published.
    pub update: bool,
    /// Whether DELETE is published.
    pub delete: bool,
    /// Whether TRUNCATE is published.
    pub truncate: bool,
    /// `publish_via_partition_root`
    pub via_root: bool,
    /// `publish_generated_columns = stored` (Postgres 18 and later).
    pub generated: bool,
    /// Another text after every statement that altered the publication itself, also if a
    /// later one altered it back: what was written in between was not streamed.
    pub edition: String,
    /// Its tables by schema and name, however they came in (by name, by schema, by all).
    /// Without `via_root` partitions stand here by themselves.
    pub tables: Vec<PublishedTable>,
}

/// A table of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedTable {
    /// The schema.
    pub schema: String,
    /// The table.
    pub name: String,
    /// Its OID: a table that was dropped and made anew is another one.
    pub oid: u32,
    /// WHERE: only such rows are published.
    pub row_filter: Option<String>,
    /// The columns, if not all are published.
    pub columns: Option<Vec<String>>,
    /// Another text after the table was taken out of the publication and added again.
    pub edition: String,
}

// What is altered has a new version of its row in the catalog, what is dropped and made or
// added anew has a new row: a change is known although it was taken back.
const PUBLICATION: &str = "\
SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
       pg_catalog.concat_ws(' ', oid, xmin), coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false)
  FROM pg_catalog.pg_publication p WHERE pubname = $1::text::name";

// `attnames` lists all columns where no list was given: a list is what leaves one out.
const TABLES: &str = "\
SELECT t.schemaname::text, t.tablename::text, c.oid, t.rowfilter,
       CASE WHEN EXISTS (
              SELECT FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                 AND a.attgenerated = '' AND a.attname <> ALL (t.attnames))
            THEN t.attnames::text[] END,
       pg_catalog.concat_ws(' ',
         (SELECT pg_catalog.string_agg(r.oid::text, ',' ORDER BY r.oid)
            FROM pg_catalog.pg_publication_rel r
           WHERE r.prpubid = p.oid
             AND r.prrelid IN (SELECT c.oid
                               UNION ALL SELECT pg_catalog.pg_partition_ancestors(c.oid))),
         (SELECT o.oid::text FROM pg_catalog.pg_publication_namespace o
           WHERE o.pnpubid = p.oid AND o.pnnspid = n.oid))
  FROM pg_catalog.pg_publication_tables t
  JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
  JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
 WHERE t.pubname = $1::text::name
 ORDER BY t.schemaname COLLATE \"C\", t.tablename COLLATE \"C\"";

impl Publication {
    /// Looks for a publication in the connection's database.
    pub async fn read(client: &SqlClient, name: &str) -> Result<Option<Publication>, PgError> {
        let during = |error| PgError::from(error).during("reading the publication");
        let statement = client.known(PUBLICATION).await.map_err(during)?;
        let Some(row) = client.query_opt(&statement, &[&name]).await.map_err(during)? else {
            return Ok(None);
        };
        let statement = client.known(TABLES).await.map_err(during)?;
        let tables = client.query(&statement, &[&name]).await.map_err(during)?;
        let tables = tables
            .iter()
            .map(|row| {
                Ok(PublishedTable {
                    schema: row.try_get(0)?,
                    name: row.try_get(1)?,
                    oid: row.try_get(2)?,
                    row_filter: row.try_get(3)?,
                    columns: row.try_get(4)?,
                    edition: row.try_get(5)?,
                })
            })
            .collect::<Result<_, tokio_postgres::Error>>()?;
        Ok(Some(Publication {
            name: name.to_owned(),
            all_tables: row.try_get(0)?,
            insert: row.try_get(1)?,
            update: row.try_get(2)?,
            delete: row.try_get(3)?,
            truncate: row.try_get(4)?,
            via_root: row.try_get(5)?,
            edition: row.try_get(6)?,
            generated: row.try_get(7)?,
            tables,
        }))
    }

    /// A table by name.
    #[must_use]
    pub fn table(&self, schema: &str, name: &str) -> Option<&PublishedTable> {
        self.tables.iter().find(|table| table.schema == schema && table.name == name)
    }

    /// A number that stays as long as all that the publication says stays; the same in
    /// every process and version. Of FOR ALL TABLES a table more or less changes nothing.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let all = self.all_tables;
        self.fingerprint_of(|_| !all)
    }

    /// [`Publication::fingerprint`] as far as it concerns some of its tables.
    #[must_use]
    pub fn fingerprint_of(&self, concerned: impl Fn(&PublishedTable) -> bool) -> u64 {
        let mut hash = Xxh3::new();
        // Each text with its length before it, each list with its count: no two
        // publications are written alike.
        let text = |hash: &mut Xxh3, text: &str| {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        text(&mut hash, &self.name);
        text(&mut hash, &self.edition);
        for flag in
            [self.all_tables, self.insert, self.update, self.delete, self.truncate, self.via_root]
        {
            hash.update(&[u8::from(flag)]);
        }
        for table in self.tables.iter().filter(|table| concerned(table)) {
            text(&mut hash, &table.schema);
            text(&mut hash, &table.name);
            text(&mut hash, &table.edition);
            hash.update(&table.oid.to_le_bytes());
            match &table.row_filter {
                None => hash.update(&[0]),
                Some(filter) => {
                    hash.update(&[1]);
                    text(&mut hash, filter);
                }
            }
            match &table.columns {
                None => hash.update(&[0]),
                Some(columns) => {
                    hash.update(&[1]);
                    hash.update(&(columns.len() as u64).to_le_bytes());
                    for column in columns {
                        text(&mut hash, column);
                    }
                }
            }
        }
        hash.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication() -> Publication {
        let table = |name: &str| PublishedTable {
            schema: "public".into(),
            name: name.into(),
            oid: 16_384,
            row_filter: None,
            columns: None,
            edition: "3".into(),
        };
        Publication {
            name: "unstale".into(),
            all_tables: false,
            insert: true,
            update: true,
            delete: true,
            truncate: true,
            via_root: true,
            generated: false,
            edition: "1 2".into(),
            tables: vec![table("a"), table("b")],
        }
    }

    #[test]
    fn every_change_changes_the_fingerprint_and_nothing_else_does() {
        let before = publication();
        // A fixed number: a fingerprint that outlives its process must be the same in the next.
        assert_eq!(before.fingerprint(), publication().fingerprint());
        let changes: [fn(&mut Publication); 10] = [
            |p| p.tables[1].edition = "4".into(),
            |p| p.edition.push('5'),
            |p| p.truncate = false,
            |p| p.via_root = false,
            |p| p.name.push('x'),
            |p| p.tables[0].oid += 1,
            |p| p.tables[0].row_filter = Some("(a > 1)".into()),
            |p| p.tables[0].columns = Some(vec!["id".into()]),
            |p| p.tables[1].name = "c".into(),
            |p| drop(p.tables.pop()),
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut after = publication();
            change(&mut after);
            assert_ne!(before.fingerprint(), after.fingerprint(), "change {n}");
        }
    }

    #[test]
    fn what_concerns_other_tables_only_is_no_change() {
        let mut more = publication();
        more.tables[1].row_filter = Some("(a > 1)".into());
        let of_a = |p: &Publication| p.fingerprint_of(|table| table.name == "a");
        assert_eq!(of_a(&publication()), of_a(&more));
        let mut all = Publication { all_tables: true, ..publication() };
        let before = all.fingerprint();
        all.tables.clear();
        assert_eq!(before, all.fingerprint());
    }
}
