//! Running a script by its hash.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};

use super::error::StoreError;

/// Begins the call of a script; the number of keys, the keys and the arguments follow.
pub(super) fn call(script: &Script) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash());
    command
}

/// The same with room for so many arguments that hold so many bytes together, and for a few more.
pub(super) fn call_with_room(script: &Script, arguments: usize, bytes: usize) -> Cmd {
    let mut command = Cmd::with_capacity(arguments + 24, bytes + 512);
    command.arg("EVALSHA").arg(script.get_hash());
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

/// Runs a script several times in one round trip. A call that Redis refused is an error of
/// its own; the others were run all the same.
pub(super) async fn evaluate_all(
    connection: &mut MultiplexedConnection,
    script: &Script,
    calls: &[Cmd],
) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
    let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
    let mut answers = run_all(connection, calls.iter()).await?;
    let is_unknown = |answer: &Result<Value, RedisError>| {
        answer.as_ref().is_err_and(|error| error.kind() == unknown)
    };
    if answers.iter().any(is_unknown) {
        script.prepare_invoke().load_async(connection).await?;
        let again = calls.iter().zip(&answers).filter(|(_, answer)| is_unknown(answer));
        let mut answered = run_all(connection, again.map(|(call, _)| call)).await?.into_iter();
        for answer in answers.iter_mut().filter(|answer| is_unknown(answer)) {
            if let Some(second) = answered.next() {
                *answer = second;
            }
        }
    }
    Ok(answers.into_iter().map(|answer| answer.map_err(StoreError::from)).collect())
}

async fn run_all(
    connection: &mut MultiplexedConnection,
    calls: impl Iterator<Item = &Cmd>,
) -> Result<Vec<Result<Value, RedisError>>, StoreError> {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    for call in calls {
        pipeline.add_command(call.clone());
    }
    let answers: Vec<Value> = pipeline.query_async(connection).await?;
    Ok(answers.into_iter().map(Value::extract_error).collect())
}
