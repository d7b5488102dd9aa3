//! Proving who we are (manual, "Start-up" and "SASL Authentication").

use bytes::BytesMut;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::escape::escape_identifier;
use postgres_protocol::message::frontend;
use secrecy::ExposeSecret as _;

use super::about::About;
use super::backend::{self, Authentication};
use super::conninfo::{ChannelBinding, ConnectOptions};
use super::error::{Class, Kind, PgError};
use super::wire::{Message, Wire, tag};

/// Answers what the server asks until it is satisfied.
pub(super) async fn authenticate(
    wire: &mut Wire,
    options: &ConnectOptions,
    about: &About,
) -> Result<(), PgError> {
    let bound = options.channel_binding() == ChannelBinding::Require;
    let unbound = |method: &str| {
        PgError::new(
            Kind::Login,
            Class::Stop,
            format!("the server asks for {method}, which channel_binding=require forbids"),
        )
        .with_remedy(
            "let the server ask for scram-sha-256 by hostssl in pg_hba.conf, with a password \
             stored so (password_encryption), or use channel_binding=prefer",
        )
    };
    loop {
        let message = next(wire, about).await?;
        match backend::authentication(&message.body)? {
            Authentication::Ok if bound => return Err(unbound("no password")),
            Authentication::Ok => return Ok(()),
            Authentication::CleartextPassword if bound => return Err(unbound("a plain password")),
            Authentication::CleartextPassword => {
                send_password(wire, password(options)?.as_bytes()).await?;
            }
            Authentication::Md5Password { .. } if bound => return Err(unbound("an MD5 password")),
            Authentication::Md5Password { salt } => {
                let hash = md5_hash(options.user().as_bytes(), password(options)?.as_bytes(), salt);
                send_password(wire, hash.as_bytes()).await?;
            }
            Authentication::Sasl { mechanisms } => {
                scram(wire, options, &mechanisms, about).await?;
                // The exchange has proven both sides, and bound them if it was to.
                let message = next(wire, about).await?;
                return match backend::authentication(&message.body)? {
                    Authentication::Ok => Ok(()),
                    _ => Err(out_of_turn()),
                };
            }
            Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
                return Err(out_of_turn());
            }
            Authentication::Unsupported(method) => {
                return Err(PgError::new(
                    Kind::Login,
                    Class::Stop,
                    format!("the server asks for {method} authentication, which is not supported"),
                )
                .with_remedy(format!(
                    "give {} a line of its own in pg_hba.conf, above the present one, with the \
                     method scram-sha-256 (or cert, peer), then SELECT pg_reload_conf()",
                    options.user()
                )));
            }
        }
    }
}

async fn next(wire: &mut Wire, about: &About) -> Result<Message, PgError> {
    loop {
        let message = wire.receive(about).await?;
        match message.tag {
            tag::AUTHENTICATION => return Ok(message),
            // The server is older than something that we did not ask for: no matter.
            tag::NEGOTIATE_PROTOCOL_VERSION => {}
            _ => return Err(out_of_turn()),
        }
    }
}

fn out_of_turn() -> PgError {
    PgError::protocol("the server said something out of turn during the login")
}

fn password(options: &ConnectOptions) -> Result<&str, PgError> {
    options.password().map(|password| password.expose_secret()).ok_or_else(|| {
        PgError::new(
            Kind::Login,
            Class::Stop,
            format!("the server asks for the password of {}, and none is known", options.user()),
        )
        .with_remedy(
            "give it in UNSTALE_POSTGRES__PASSWORD, postgres.password_file, PGPASSWORD or .pgpass \
             (mode 0600)",
        )
    })
}

async fn send_password(wire: &mut Wire, password: &[u8]) -> Result<(), PgError> {
    let mut message = BytesMut::new();
    frontend::password_message(password, &mut message)
        .map_err(|_| PgError::settings("the password holds a zero byte", "set another one"))?;
    wire.send(&message).await
}

/// SCRAM-SHA-256, with channel binding where both sides can (RFC 5802, section 6).
async fn scram(
    wire: &mut Wire,
    options: &ConnectOptions,
    mechanisms: &[&str],
    about: &About,
) -> Result<(), PgError> {
    let wanted = options.channel_binding();
    let end_point = wire.stream().server_end_point().filter(|_| wanted != ChannelBinding::Disable);
    let plus = mechanisms.contains(&sasl::SCRAM_SHA_256_PLUS);
    let (mechanism, binding) = match end_point {
        Some(hash) if plus => {
            (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
        }
        _ if wanted == ChannelBinding::Require => {
            return Err(PgError::new(
                Kind::Login,
                Class::Stop,
                "channel_binding=require, but the login cannot be bound to the TLS session",
            )
            .with_remedy(
                "use TLS (sslmode=require or better), a server of Postgres 11 or later without a \
                 proxy that ends TLS, and a certificate signed by RSA or ECDSA with SHA-2, or \
                 say channel_binding=prefer",
            ));
        }
        // "We could, you did not offer": the server notices if somebody took its offer out.
        Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
        None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
    };
    if !mechanisms.contains(&mechanism) {
        return Err(PgError::new(
            Kind::Login,
            Class::Stop,
            format!("the server offers only the login methods {mechanisms:?}"),
        )
        .with_remedy("let pg_hba.conf ask for scram-sha-256"));
    }

    let mut exchange = sasl::ScramSha256::new(password(options)?.as_bytes(), binding);
    let mut message = BytesMut::new();
    frontend::sasl_initial_response(mechanism, exchange.message(), &mut message)
        .map_err(|error| PgError::io("SCRAM", error))?;
    wire.send(&message).await?;

    let answer = next(wire, about).await?;
    match backend::authentication(&answer.body)? {
        Authentication::SaslContinue(data) => {
            exchange.update(data).map_err(|error| match rounds(data) {
                Some(rounds) if rounds > MOST_ROUNDS => too_many_rounds(rounds, options),
                _ => not_proven(error),
            })?;
        }
        _ => return Err(out_of_turn()),
    }
    message.clear();
    frontend::sasl_response(exchange.message(), &mut message)
        .map_err(|error| PgError::io("SCRAM", error))?;
    wire.send(&message).await?;

    let answer = next(wire, about).await?;
    match backend::authentication(&answer.body)? {
        Authentication::SaslFinal(data) => exchange.finish(data).map_err(not_proven),
        _ => Err(out_of_turn()),
    }
}

/// How often SCRAM hashes a password at the most: postgres-protocol's bound. A server could have its
/// clients compute for minutes otherwise.
const MOST_ROUNDS: u64 = 100_000;

/// How many rounds the server asks for, by the `i=` of its first message (RFC 5802, section 7).
fn rounds(message: &[u8]) -> Option<u64> {
    let message = str::from_utf8(message).ok()?;
    message.split(',').find_map(|attribute| attribute.strip_prefix("i=")?.parse().ok())
}

fn too_many_rounds(rounds: u64, options: &ConnectOptions) -> PgError {
    let what = format!(
        "the password of {} is stored with {rounds} rounds of SCRAM, and no more than {MOST_ROUNDS} are computed here",
        options.user()
    );
    PgError::new(Kind::Login, Class::Stop, what).with_remedy(fewer_rounds(options))
}

/// What mends it.
pub(super) fn fewer_rounds(options: &ConnectOptions) -> String {
    format!(
        "SET scram_iterations = 4096 (Postgres 16 and later, whose default it is) and, in the same \
         session, ALTER ROLE {} PASSWORD '…': it is stored anew",
        escape_identifier(options.user())
    )
}

fn not_proven(error: std::io::Error) -> PgError {
    PgError::new(
        Kind::Login,
        Class::Stop,
        format!("the server could not prove that it knows the password: {error}"),
    )
    .with_remedy("make sure that this is the right server and that nobody stands in between")
}
