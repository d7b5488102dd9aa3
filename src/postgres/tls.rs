//! TLS by rustls, with libpq's meaning of `sslmode` (manual, "SSL Support").

use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::db::rfc5912;

use super::conninfo::{ConnectOptions, Host, RootCert, SslMode};
use super::error::{Class, Kind, PgError};
use super::socket::Stream;

/// Encrypts a connection whose server has agreed to it.
///
/// The files are read anew each time, so that a renewed certificate needs no restart.
pub(super) async fn handshake(
    socket: TcpStream,
    options: &ConnectOptions,
) -> Result<Stream, PgError> {
    let Host::Tcp(host) = options.host() else {
        return Err(PgError::settings("TLS over a unix socket", "use sslmode=disable"));
    };
    let name = ServerName::try_from(host.clone()).map_err(|error| {
        PgError::settings(
            format!("{host:?} cannot be the name in a certificate: {error}"),
            "name the server by a DNS name or an address",
        )
    })?;
    let settings = options.clone();
    let config = tokio::task::spawn_blocking(move || client_config(&settings))
        .await
        .map_err(|error| PgError::new(Kind::Tls, Class::Bug, error.to_string()))??;
    match TlsConnector::from(Arc::new(config)).connect(name, socket).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(error) => Err(PgError::io("TLS handshake", error)),
    }
}

/// What a TLS error means. None of them passes by itself.
pub(super) fn explain(error: &rustls::Error) -> PgError {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    let remedy = match error {
        InvalidCertificate(CertificateError::UnknownIssuer) => {
            "name the authority that signed the server's certificate by sslrootcert=FILE \
             (or sslrootcert=system)"
        }
        InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "connect by a name that the certificate holds as a subjectAltName (a common name \
             alone does not count), or use sslmode=verify-ca if your authority signs for this \
             server only"
        }
        InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "renew the server's certificate, or set this machine's clock right",
        InvalidCertificate(_) => {
            "check the server's certificate (ssl_cert_file) and sslrootcert; rustls takes X.509 \
             version 3 only"
        }
        AlertReceived(_) => {
            "the server refused the handshake: check the client certificate (sslcert, sslkey) and \
             what the server asks for (ssl_ca_file, ssl_min_protocol_version)"
        }
        _ => "check that server and client have a TLS version in common (1.2 or 1.3)",
    };
    PgError::new(Kind::Tls, Class::Stop, format!("TLS with the server failed: {error}"))
        .with_remedy(remedy)
        .with_source(error.clone())
}

/// The hash of the server's certificate that SCRAM binds to (RFC 5929, section 4.1): by the
/// hash function of its signature, SHA-256 instead of MD5 and SHA-1. `None` where the
/// signature names none (Ed25519, RSA-PSS): there is no binding then.
pub(super) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    match parsed.signature_algorithm.oid {
        rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Some(Sha256::digest(certificate).to_vec()),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => {
            Some(Sha384::digest(certificate).to_vec())
        }
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

fn client_config(options: &ConnectOptions) -> Result<ClientConfig, PgError> {
    let provider = Arc::new(ring::default_provider());
    let verifier =
        Verifier { trust: trust(options)?, algorithms: provider.signature_verification_algorithms };
    let builder =
        builder(provider)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    match options.ssl_client_cert() {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let chain = certificates("sslcert", cert)?;
            let key_error = |error: &dyn std::fmt::Display| {
                PgError::settings(
                    format!("sslkey: {} cannot be used: {error}", key.display()),
                    "name a readable PEM file with the private key of sslcert, without a passphrase",
                )
            };
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| key_error(&error))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| key_error(&error))
        }
    }
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, PgError> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PgError::new(Kind::Tls, Class::Bug, error.to_string()))
}

/// Which certificates are accepted.
#[derive(Debug)]
enum Trust {
    /// Any: the connection is encrypted, to whom is not known.
    Anyone,
    /// Those that lead to one of `roots`; `name`: and are the host's.
    Roots { roots: RootCertStore, exact: Vec<CertificateDer<'static>>, name: bool },
}

fn trust(options: &ConnectOptions) -> Result<Trust, PgError> {
    let name = options.ssl_mode() == SslMode::VerifyFull;
    match (options.ssl_mode(), options.ssl_root_cert()) {
        (SslMode::Disable | SslMode::Prefer, _) | (SslMode::Require, None) => Ok(Trust::Anyone),
        (_, Some(RootCert::File(file))) => {
            let exact = certificates("sslrootcert", file)?;
            let mut roots = RootCertStore::empty();
            for certificate in &exact {
                roots.add(certificate.clone()).map_err(|error| {
                    PgError::settings(
                        format!(
                            "sslrootcert: {} holds no usable certificate: {error}",
                            file.display()
                        ),
                        "name a PEM file with the authority's certificate",
                    )
                })?;
            }
            Ok(Trust::Roots { roots, exact, name })
        }
        // `verify-ca` without a file was refused when the settings were read.
        (_, Some(RootCert::System) | None) => {
            let loaded = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            let (usable, _) = roots.add_parsable_certificates(loaded.certs);
            if usable == 0 {
                return Err(PgError::settings(
                    "this system has no trusted certificates",
                    "install them (Debian: ca-certificates), or name your authority's by sslrootcert=FILE",
                ));
            }
            Ok(Trust::Roots { roots, exact: Vec::new(), name: true })
        }
    }
}

/// The certificates of a PEM file.
fn certificates(parameter: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, PgError> {
    let refuse = |error: &dyn std::fmt::Display| {
        PgError::settings(
            format!("{parameter}: {} cannot be read: {error}", file.display()),
            "name a readable file of PEM certificates",
        )
    };
    let reader = std::fs::File::open(file).map_err(|error| refuse(&error))?;
    let found = CertificateDer::pem_reader_iter(BufReader::new(reader))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse(&error))?;
    if found.is_empty() {
        return Err(refuse(&io::Error::from(io::ErrorKind::InvalidData)));
    }
    Ok(found)
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trust::Roots { roots, exact, name } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if exact.contains(end_entity) {
            // A self-signed certificate that is trusted itself, as the manual's own recipe
            // makes it. It is an authority by form, which webpki refuses for a server.
            in_force(end_entity, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        if *name {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // The server must prove that it has the certificate's key, whoever it is: without that,
    // channel binding would bind to nothing.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether `now` lies within the certificate's validity.
fn in_force(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let parsed = Certificate::from_der(certificate)
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let validity = parsed.tbs_certificate.validity;
    let now = Duration::from_secs(now.as_secs());
    if now > validity.not_after.to_unix_duration() {
        return Err(rustls::Error::InvalidCertificate(CertificateError::Expired));
    }
    if now < validity.not_before.to_unix_duration() {
        return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    Ok(())
}
