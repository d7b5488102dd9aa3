//! Content codings: which one a client prefers (RFC 9110, section 12.5.3), and coding.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Less than this does not get smaller by much.
pub const WORTH: usize = 1_024;

/// A coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Identity,
    /// `gzip`
    Gzip,
    /// `br`
    Brotli,
}

impl Coding {
    /// The name in `Content-Encoding`; none for what is as it is.
    #[must_use]
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Coding::Identity => None,
            Coding::Gzip => Some("gzip"),
            Coding::Brotli => Some("br"),
        }
    }

    /// What `Accept-Encoding` prefers of what there is.
    #[must_use]
    pub fn preferred(accept: &str) -> Coding {
        let mut any = None;
        let (mut gzip, mut brotli) = (None, None);
        for part in accept.split(',') {
            let (name, parameters) = part.split_once(';').unwrap_or((part, ""));
            let weight = match parameters.trim().split_once('=') {
                Some((q, weight)) if q.trim().eq_ignore_ascii_case("q") => {
                    weight.trim().parse::<f32>().unwrap_or(0.0)
                }
                _ => 1.0,
            };
            let name = name.trim();
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                gzip = Some(weight);
            } else if name.eq_ignore_ascii_case("br") {
                brotli = Some(weight);
            } else if name == "*" {
                any = Some(weight);
            }
        }
        let weight = |named: Option<f32>| named.or(any).unwrap_or(0.0);
        let (gzip, brotli) = (weight(gzip), weight(brotli));
        if brotli > 0.0 && brotli >= gzip {
            Coding::Brotli
        } else if gzip > 0.0 {
            Coding::Gzip
        } else {
            Coding::Identity
        }
    }

    /// The body in this coding. Fast settings: it is done for each answer.
    #[must_use]
    pub fn encode(self, body: Vec<u8>) -> Vec<u8> {
        let capacity = body.len() / 3;
        let coded = match self {
            Coding::Identity => return body,
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(capacity), Compression::fast());
                encoder.write_all(&body).and_then(|()| encoder.finish())
            }
            Coding::Brotli => {
                let mut out = Vec::with_capacity(capacity);
                let parameters = brotli::enc::BrotliEncoderParams {
                    quality: 4,
                    lgwin: 18,
                    ..Default::default()
                };
                brotli::BrotliCompress(&mut body.as_slice(), &mut out, &parameters).map(|_| out)
            }
        };
        // Writing to memory does not fail.
        coded.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_has_the_choice() {
        for (accept, expected) in [
            ("", Coding::Identity),
            ("gzip", Coding::Gzip),
            ("gzip, deflate, br", Coding::Brotli),
            ("gzip;q=1.0, br;q=0.5", Coding::Gzip),
            ("br;q=0, gzip", Coding::Gzip),
            ("gzip;q=0", Coding::Identity),
            ("*", Coding::Brotli),
            ("br;q=0, *;q=0.1", Coding::Gzip),
            ("identity", Coding::Identity),
            ("GZIP; Q=0.3", Coding::Gzip),
            ("br;q=nonsense", Coding::Identity),
        ] {
            assert_eq!(Coding::preferred(accept), expected, "{accept}");
        }
    }
}
