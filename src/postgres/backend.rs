//! What the server says: bytes in, messages out, for the few messages that a
//! replication connection sees (manual, "Message Formats"). Pure, and never panics.

use super::error::PgError;

/// An ErrorResponse or a NoticeResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerError {
    pub(super) sqlstate: String,
    pub(super) message: String,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
}

/// A request for authentication.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authentication<'a> {
    Ok,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    Sasl {
        mechanisms: Vec<&'a str>,
    },
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    /// A method that this client does not speak, by name.
    Unsupported(&'static str),
}

/// Splits off the first `n` bytes.
fn take<'a>(body: &mut &'a [u8], n: usize) -> Result<&'a [u8], PgError> {
    let (head, rest) = body.split_at_checked(n).ok_or_else(|| cut("a message"))?;
    *body = rest;
    Ok(head)
}

fn take_array<'a, const N: usize>(body: &mut &'a [u8]) -> Result<&'a [u8; N], PgError> {
    let (head, rest) = body.split_first_chunk::<N>().ok_or_else(|| cut("a message"))?;
    *body = rest;
    Ok(head)
}

pub(super) fn take_u8(body: &mut &[u8]) -> Result<u8, PgError> {
    take_array::<1>(body).map(|b| u8::from_be_bytes(*b))
}

fn take_u16(body: &mut &[u8]) -> Result<u16, PgError> {
    take_array(body).map(|b| u16::from_be_bytes(*b))
}

fn take_i32(body: &mut &[u8]) -> Result<i32, PgError> {
    take_array(body).map(|b| i32::from_be_bytes(*b))
}

pub(super) fn take_u64(body: &mut &[u8]) -> Result<u64, PgError> {
    take_array(body).map(|b| u64::from_be_bytes(*b))
}

pub(super) fn take_i64(body: &mut &[u8]) -> Result<i64, PgError> {
    take_array(body).map(|b| i64::from_be_bytes(*b))
}

/// A text that ends with a zero byte, as bytes.
fn take_text<'a>(body: &mut &'a [u8]) -> Result<&'a [u8], PgError> {
    let end = memchr::memchr(0, body).ok_or_else(|| cut("a text"))?;
    let text = take(body, end)?;
    take(body, 1)?;
    Ok(text)
}

fn cut(what: &str) -> PgError {
    PgError::protocol(format!("the server sent {what} that ends too early"))
}

/// ErrorResponse and NoticeResponse. Texts that are not UTF-8 (before the encoding is
/// agreed on, they may be in any) are shown as well as can be.
pub(super) fn server_error(mut body: &[u8]) -> Result<ServerError, PgError> {
    let mut error = ServerError {
        // Postgres always sends a code; a pooler in front of it may not.
        sqlstate: String::from("XX000"),
        message: String::new(),
        detail: None,
        hint: None,
    };
    loop {
        match take_u8(&mut body)? {
            0 => return Ok(error),
            field => {
                let text = String::from_utf8_lossy(take_text(&mut body)?).into_owned();
                match field {
                    b'C' => error.sqlstate = text,
                    b'M' => error.message = text,
                    b'D' => error.detail = Some(text),
                    b'H' => error.hint = Some(text),
                    _ => {}
                }
            }
        }
    }
}

/// An authentication request.
pub(super) fn authentication(mut body: &[u8]) -> Result<Authentication<'_>, PgError> {
    Ok(match take_i32(&mut body)? {
        0 => Authentication::Ok,
        2 => Authentication::Unsupported("Kerberos V5"),
        3 => Authentication::CleartextPassword,
        5 => Authentication::Md5Password { salt: *take_array(&mut body)? },
        7 | 8 => Authentication::Unsupported("GSSAPI"),
        9 => Authentication::Unsupported("SSPI"),
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                match take_text(&mut body)? {
                    [] => break Authentication::Sasl { mechanisms },
                    name => mechanisms.extend(std::str::from_utf8(name).ok()),
                }
            }
        }
        11 => Authentication::SaslContinue(body),
        12 => Authentication::SaslFinal(body),
        _ => Authentication::Unsupported("of a kind that is newer than this client"),
    })
}

/// ParameterStatus: name and value.
pub(super) fn parameter_status(mut body: &[u8]) -> Result<(String, String), PgError> {
    let mut text = || take_text(&mut body).map(|t| String::from_utf8_lossy(t).into_owned());
    Ok((text()?, text()?))
}

/// BackendKeyData: the server process.
pub(super) fn backend_pid(mut body: &[u8]) -> Result<i32, PgError> {
    take_i32(&mut body)
}

/// DataRow, in the text form.
pub(super) fn data_row(mut body: &[u8]) -> Result<Vec<Option<String>>, PgError> {
    let columns = take_u16(&mut body)?;
    (0..columns)
        .map(|_| match usize::try_from(take_i32(&mut body)?) {
            Err(_) => Ok(None),
            Ok(length) => {
                let text = take(&mut body, length)?.to_vec();
                String::from_utf8(text)
                    .map(Some)
                    .map_err(|_| PgError::protocol("the server sent a text that is not UTF-8"))
            }
        })
        .collect()
}

/// How long the message is whose first bytes are `head`, tag and length word included.
/// `None` until the length word has arrived.
///
/// The length counts itself but not the tag; what is shorter than that, or longer than
/// `limit`, is no message, and waiting for it would only fill memory.
pub(super) fn message_length(head: &[u8], limit: usize) -> Result<Option<usize>, PgError> {
    let Some((tag, rest)) = head.split_first() else { return Ok(None) };
    let Some(word) = rest.first_chunk::<4>() else { return Ok(None) };
    let word = i32::from_be_bytes(*word);
    match usize::try_from(word) {
        Ok(length) if (4..=limit).contains(&length) => Ok(Some(length.saturating_add(1))),
        _ => Err(PgError::protocol(format!(
            "the server sent a message of type {:?} with the impossible length {word}",
            char::from(*tag)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_is_read_field_by_field() {
        let body = b"SFATAL\0C28P01\0Mno\xffpe\0Dwhy\0Hdo\0\0";
        let error = server_error(body).unwrap();
        assert_eq!(error.sqlstate, "28P01");
        assert_eq!(error.message, "no\u{fffd}pe");
        assert_eq!((error.detail.as_deref(), error.hint.as_deref()), (Some("why"), Some("do")));
        assert!(server_error(b"C28P01\0").is_err(), "cut off");
    }

    #[test]
    fn impossible_lengths_are_refused_before_memory_is_taken() {
        let head = |word: i32| [&b"d"[..], &word.to_be_bytes()].concat();
        assert!(message_length(&head(-1), 1 << 20).is_err());
        assert!(message_length(&head(3), 1 << 20).is_err());
        assert!(message_length(&head(i32::MAX), 1 << 20).is_err());
        assert_eq!(message_length(&head(4), 1 << 20).unwrap(), Some(5));
        assert_eq!(message_length(b"d\0\0\0", 1 << 20).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(server_error(&bytes));
            drop(authentication(&bytes));
            drop(parameter_status(&bytes));
            drop(backend_pid(&bytes));
            drop(data_row(&bytes));
            drop(message_length(&bytes, 1 << 20));
        }
    }
}
