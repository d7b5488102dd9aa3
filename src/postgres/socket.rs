//! The way to the server: TCP or unix socket, and TLS over it when asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::ChannelBinding as SqlChannelBinding;
use tokio_rustls::client::TlsStream;

use super::conninfo::{ConnectOptions, Host, SslMode};
use super::error::{Class, Kind, PgError};
use super::tls;

/// A connection before any word of Postgres' protocol but the request for TLS.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects, and encrypts as `sslmode` asks.
    ///
    /// `prefer` falls back to plain text if the server has no TLS; if it has, a handshake
    /// that fails is an error (libpq would try again without, which helps nobody).
    pub(super) async fn open(options: &ConnectOptions) -> Result<Stream, PgError> {
        let unreachable = |error: io::Error| {
            PgError::new(
                Kind::Unreachable,
                Class::Retry,
                format!("cannot connect to Postgres at {}: {error}", options.address()),
            )
            .with_remedy(
                "check that the server runs and listens there (listen_addresses, firewall)",
            )
            .with_source(error)
        };
        let mut socket = match options.host() {
            Host::Unix(_) => {
                // As in libpq, sslmode means nothing here: nothing leaves the machine.
                return UnixStream::connect(options.address())
                    .await
                    .map(Stream::Unix)
                    .map_err(unreachable);
            }
            Host::Tcp(name) => {
                TcpStream::connect((name.as_str(), options.port())).await.map_err(unreachable)?
            }
        };
        tune(&socket, options).map_err(|error| PgError::io("setting up the socket", error))?;
        if options.ssl_mode() == SslMode::Disable {
            return Ok(Stream::Tcp(socket));
        }

        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        let io = |error| PgError::io("asking the server for TLS", error);
        socket.write_all(&request).await.map_err(io)?;
        // One byte and no more: whatever came along with it would be unencrypted, and must
        // not be taken for part of the encrypted session (CVE-2021-23222).
        match socket.read_u8().await.map_err(io)? {
            b'S' => tls::handshake(socket, options).await,
            b'N' if options.ssl_mode() == SslMode::Prefer => Ok(Stream::Tcp(socket)),
            b'N' => Err(PgError::new(
                Kind::Tls,
                Class::Stop,
                format!("the server at {} has no TLS, and sslmode asks for it", options.address()),
            )
            .with_remedy(
                "switch TLS on in the server (ssl = on, ssl_cert_file, ssl_key_file, then a \
                 reload), or say sslmode=disable if the network is trusted",
            )),
            // Postgres answers so when it cannot even start a process for the connection. The
            // words behind it are not encrypted, so they are nobody's to believe.
            b'E' => Err(PgError::new(
                Kind::Unreachable,
                Class::Retry,
                format!("the server at {} could not take the connection", options.address()),
            )
            .with_remedy("see the server's log: it may be out of memory or processes")),
            other => Err(PgError::protocol(format!(
                "the server at {} answered the request for TLS with byte {other:#04x}",
                options.address()
            ))),
        }
    }

    /// What ties a SCRAM login to this TLS session, if anything does.
    pub(super) fn server_end_point(&self) -> Option<Vec<u8>> {
        match self {
            Stream::Tls(stream) => {
                let (_, session) = stream.get_ref();
                tls::server_end_point(session.peer_certificates()?.first()?)
            }
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }
}

/// A server that vanishes must be noticed, and feedback must not wait for more bytes.
fn tune(socket: &TcpStream, options: &ConnectOptions) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let Some(keepalive) = options.keepalive() else { return Ok(()) };
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.count),
    )?;
    // Keepalive probes are not sent while data is unacknowledged: bound that, too.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(
        keepalive.idle.saturating_add(keepalive.interval.saturating_mul(keepalive.count)),
    ))?;
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

// For `tokio-postgres`, which asks the stream for the channel binding.
impl tokio_postgres::tls::TlsStream for Stream {
    fn channel_binding(&self) -> SqlChannelBinding {
        self.server_end_point()
            .map_or_else(SqlChannelBinding::none, SqlChannelBinding::tls_server_end_point)
    }
}
