//! Messages over a connection, one at a time: what login and queries need.
//!
//! Streaming has its own reader ([`super::frames`]), which lends instead of copying.

use bytes::{Buf as _, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::about::About;
use super::backend;
use super::error::PgError;
use super::socket::Stream;

/// The longest message before a login has succeeded: who answers there may be anybody.
const LOGIN_LIMIT: usize = 64 << 10;
/// The longest message of a query's answer.
const QUERY_LIMIT: usize = 16 << 20;

/// Message types (manual, "Message Formats").
pub(super) mod tag {
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const BACKEND_KEY_DATA: u8 = b'K';
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    pub(crate) const COPY_BOTH_RESPONSE: u8 = b'W';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const DATA_ROW: u8 = b'D';
    pub(crate) const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub(crate) const ERROR_RESPONSE: u8 = b'E';
    pub(crate) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub(crate) const NOTICE_RESPONSE: u8 = b'N';
    pub(crate) const NOTIFICATION_RESPONSE: u8 = b'A';
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    pub(crate) const READY_FOR_QUERY: u8 = b'Z';
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';
}

/// A message of the server.
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// A connection that speaks in messages.
pub(super) struct Wire {
    stream: Stream,
    received: BytesMut,
    limit: usize,
    parameters: Vec<(String, String)>,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Wire {
        Wire {
            stream,
            received: BytesMut::with_capacity(8 << 10),
            limit: LOGIN_LIMIT,
            parameters: Vec::new(),
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// From here on the other side is known to be the server.
    pub(super) fn logged_in(&mut self) {
        self.limit = QUERY_LIMIT;
    }

    /// What the server said of itself.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The connection, and what was received of it and not read.
    pub(super) fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.received)
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), PgError> {
        let sent = async {
            self.stream.write_all(message).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| PgError::io("sending to Postgres", error))
    }

    /// Sends a simple query.
    pub(super) async fn send_query(&mut self, sql: &str) -> Result<(), PgError> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message)
            .map_err(|_| PgError::protocol("a query holds a zero byte or is too long"))?;
        self.send(&message).await
    }

    /// The next message that answers something: notices and parameters are dealt with here,
    /// an ErrorResponse is an error.
    pub(super) async fn receive(&mut self, about: &About) -> Result<Message, PgError> {
        loop {
            let message = self.receive_any().await?;
            match message.tag {
                tag::ERROR_RESPONSE => {
                    return Err(PgError::server(&backend::server_error(&message.body)?, about));
                }
                tag::NOTICE_RESPONSE => log_notice(&message.body)?,
                tag::PARAMETER_STATUS => {
                    let (name, value) = backend::parameter_status(&message.body)?;
                    self.parameters.retain(|(known, _)| *known != name);
                    self.parameters.push((name, value));
                }
                tag::NOTIFICATION_RESPONSE => {}
                _ => return Ok(message),
            }
        }
    }

    async fn receive_any(&mut self) -> Result<Message, PgError> {
        loop {
            if let Some(length) = backend::message_length(&self.received, self.limit)?
                && self.received.len() >= length
            {
                let mut body = self.received.split_to(length).freeze();
                let tag = body.get_u8();
                body.advance(4);
                return Ok(Message { tag, body });
            }
            let read = self.stream.read_buf(&mut self.received).await;
            if read.map_err(|error| PgError::io("reading from Postgres", error))? == 0 {
                return Err(PgError::lost("the server closed the connection"));
            }
        }
    }

    /// After an error: reads up to the server's readiness for another query.
    pub(super) async fn resynchronize(&mut self) -> Result<(), PgError> {
        loop {
            if self.receive_any().await?.tag == tag::READY_FOR_QUERY {
                return Ok(());
            }
        }
    }
}

/// What the server wants an operator to know.
pub(super) fn log_notice(body: &[u8]) -> Result<(), PgError> {
    let notice = backend::server_error(body)?;
    tracing::info!(sqlstate = notice.sqlstate, message = notice.message, "notice from Postgres");
    Ok(())
}
