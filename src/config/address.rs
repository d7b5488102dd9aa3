//! Settings that are an address to listen on.

use serde::{Deserialize, Deserializer, de};

pub(super) fn socket_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<std::net::SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        // What follows the line break is shown as the hint.
        de::Error::custom(format_args!(
            "{text:?} is not an address to listen on\n\
             write an IP address and a port, such as \"127.0.0.1:9187\", \"[::1]:9187\" or \"0.0.0.0:9187\""
        ))
    })
}
