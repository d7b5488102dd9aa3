//! Running a script by its hash.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Script, ServerErrorKind, Value};

use super::error::StoreError;

/// Begins the call of a script; the number of keys, the keys and the arguments follow.
pub(super) fn call(script: &Script) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash());
    command
}

/// Runs a script. A server that does not know it (a restart, a SCRIPT FLUSH) ran nothing:
/// it is given the text and asked again.
pub(super) async fn evaluate(
    connection: &mut MultiplexedConnection,
    script: &Script,
    call: &Cmd,
) -> Result<Value, StoreError> {
    let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
    match call.query_async(connection).await {
        Err(error) if error.kind() == unknown => {
            script.prepare_invoke().load_async(connection).await?;
            Ok(call.query_async(connection).await?)
        }
        answer => Ok(answer?),
    }
}

/// An answer that no script gives. Its kind is told, not what it holds: that may be a value.
pub(super) fn unexpected(answer: &Value) -> StoreError {
    let kind = match answer {
        Value::Nil => "nil",
        Value::Int(_) => "an integer",
        Value::BulkString(_) | Value::SimpleString(_) => "a string",
        Value::Array(_) => "an array",
        _ => "something else",
    };
    StoreError::Lost(format!("a script answered with {kind}, which it never does"))
}
