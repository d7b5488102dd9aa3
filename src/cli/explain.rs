//! `unstale explain`

use clap::{Args, ValueEnum};

use super::output::{error, line};
use super::{Common, Exit, runtime};
use crate::config::model;
use crate::explain::row::{Change, JsonRow};
use crate::explain::{ExplainError, Report, offline, online};
use crate::mapping::name::TableName;
use crate::postgres::client::SqlClient;
use crate::servers::connect_options;

/// Say which keys a change reaches, by which rule, and why others do not apply
///
/// Only a new row is an INSERT, only --old a DELETE, both an UPDATE; of an UPDATE, what one
/// row does not say is as the other says. Rows are JSON objects of columns by their exact
/// names. Nothing is written anywhere: the database is asked for the table's shape, for the
/// values as the stream would have them, and for what the rules' queries find now.
#[derive(Debug, Args)]
pub(super) struct ExplainCommand {
    /// The table, written as in SQL
    table: TableName,
    /// The new row, such as '{"id": 7, "organization_id": 3}'
    #[arg(value_name = "NEW", value_parser = JsonRow::parse)]
    new: Option<JsonRow>,
    /// The old row
    #[arg(long, value_name = "OLD", value_parser = JsonRow::parse)]
    old: Option<JsonRow>,
    /// What is done to the row, where the rows do not tell
    #[arg(long, value_enum)]
    operation: Option<Operation>,
    /// Explain without the database, as far as that is possible
    #[arg(long)]
    offline: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Operation {
    Insert,
    Update,
    Delete,
    Truncate,
}

impl From<Operation> for model::Operation {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Insert => model::Operation::Insert,
            Operation::Update => model::Operation::Update,
            Operation::Delete => model::Operation::Delete,
            Operation::Truncate => model::Operation::Truncate,
        }
    }
}

impl ExplainCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(report) => {
                if self.json {
                    line(&serde_json::to_string(&report).unwrap_or_default());
                } else {
                    line(report.to_string().trim_end());
                }
                if report.has_problems() { Exit::Failed } else { Exit::Done }
            }
            Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Report, Exit> {
        let operation = self.operation.map(Into::into);
        let change =
            Change::new(operation, self.new.clone(), self.old.clone()).map_err(|reason| {
                error(reason);
                Exit::Usage
            })?;
        let loaded = common.load()?;
        let mapping = common.rules(&loaded)?.mapping;
        if self.offline {
            return offline(&mapping, &self.table, &change).map_err(|reason| refuse(&reason));
        }
        let postgres = &loaded.config.postgres;
        let connect = connect_options(&loaded.config).map_err(|reason| {
            error(&reason);
            Exit::Configuration
        })?;
        runtime()?.block_on(async {
            let connect = connect.with_application_name("unstale explain");
            let client =
                SqlClient::connect_read_only(&connect, postgres.statement_timeout.get()).await;
            let client = client.map_err(|reason| {
                error(&format!("{reason}\n--offline explains without the database"));
                Exit::from(&reason)
            })?;
            let explained =
                online(&client, &mapping, &postgres.publication, &self.table, change).await;
            explained.map_err(|reason| refuse(&reason))
        })
    }
}

fn refuse(reason: &ExplainError) -> Exit {
    error(&reason.to_string());
    match reason {
        ExplainError::Asked(_) => Exit::Usage,
        ExplainError::Configuration(_) => Exit::Configuration,
        ExplainError::Postgres(reason) => Exit::from(reason),
    }
}
