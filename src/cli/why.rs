//! `unstale why`

use std::net::SocketAddr;

use clap::Args;

use super::output::{error, line, warn_on_stderr};
use super::{Common, Exit, runtime};
use crate::admin::client;
use crate::store::keys::ControlKeys;
use crate::store::session::Address;
use crate::why::answer::{Answer, Answers};
use crate::why::key::Key;
use crate::why::report::Report;
use crate::why::stored::ask_redis;

/// Say why a key was dropped last, and what is known of it now
///
/// Asks the daemon (admin.listen) for the last drops that it remembers, and Redis for the
/// key itself. Where one of them does not answer, what the other knows is told.
#[derive(Debug, Args)]
pub(super) struct WhyCommand {
    /// The key in Redis, with or without redis.key_prefix
    key: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl WhyCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let loaded = common.load()?;
        let mapping = common.rules(&loaded)?.mapping;
        let config = &loaded.config;
        // Redis' client takes the process's provider.
        _ = rustls::crypto::ring::default_provider().install_default();
        let address = Address::new(&config.redis).map_err(|reason| {
            error(&reason.to_string());
            Exit::Configuration
        })?;
        let key = Key::find(&self.key, &config.redis.key_prefix, &mapping);
        let control = ControlKeys::new(&config.postgres.slot);
        let daemon = client::reach(config.admin.listen);
        let (told, stored) = runtime()?.block_on(async {
            tokio::join!(ask_daemon(daemon, &key), Box::pin(ask_redis(&address, control, &key)))
        });
        if let Err(reason) = &told {
            warn_on_stderr(&format!(
                "no daemon answers at {daemon} (admin.listen), so the last drop is not known: {reason}; start `unstale run`, or point --config at its configuration"
            ));
        }
        if let Err(reason) = &stored {
            warn_on_stderr(&reason.to_string());
        }
        if told.is_err() && stored.is_err() {
            return Ok(Exit::Unreachable);
        }
        let report = Report::new(&key, &mapping, told.ok(), stored.ok());
        if self.json {
            line(&serde_json::to_string(&report).unwrap_or_default());
        } else {
            line(report.to_string().trim_end());
        }
        Ok(Exit::Done)
    }
}

async fn ask_daemon(address: SocketAddr, key: &Key<'_>) -> Result<Answers, String> {
    let ask = async |key: &str| -> Result<Answer, String> {
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("key", key).finish();
        let body = client::get(address, &format!("/why?{query}")).await?;
        serde_json::from_slice(&body)
            .map_err(|e| format!("what answers there is no daemon of this version ({e})"))
    };
    let generation = match &key.generation {
        Some((generation, _)) => Some(ask(generation).await?),
        None => None,
    };
    Ok(Answers { key: ask(&key.full).await?, generation })
}
