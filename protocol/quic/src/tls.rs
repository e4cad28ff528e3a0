//! Whom a client trusts.

use std::sync::{Arc, LazyLock};

use quinn::crypto::rustls::QuicClientConfig;
use rove_protocol::registry::ALPN;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, CipherSuite, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

/// Why a TLS configuration cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The bytes are not an X.509 certificate.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// The system has no certificate of an authority to trust.
    #[error("the system has no trusted roots: {0}")]
    NoRoots(String),
    /// A list of pins without a pin trusts nobody.
    #[error("no pin is given")]
    NoPins,
    /// rustls or quinn cannot work with what it was given.
    #[error("the TLS configuration is not usable: {0}")]
    Config(String),
}

/// Whom a client trusts to be the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Whoever has a certificate for the server's name from an authority the operating system trusts.
    System,
    /// Whoever has the private key of one of these SHA-256 hashes of a SubjectPublicKeyInfo: the current one and the
    /// next, say. Name, authority and dates of the certificate then say nothing more.
    Pins(Vec<[u8; 32]>),
}

/// The cryptography of everything that speaks TLS here: ring's, with AES-128 before AES-256.
///
/// Clients say what they would rather have, and servers follow. Sixteen bytes of key are out of reach of anybody as thirty-two are, and QUIC
/// protects its first packets with them anyway; but the key schedule of AES-256 is made of SHA-384, for which few processors have
/// an instruction: 6.6 % of a server's time when it does nothing but handshakes.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::ring::default_provider();
        // The order of the others stays.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// The pin of a certificate: the SHA-256 of its SubjectPublicKeyInfo, which a renewal with the same key keeps.
///
/// # Errors
/// [`TlsError::Certificate`] for bytes that are not an X.509 certificate.
pub fn spki_pin(certificate: &[u8]) -> Result<[u8; 32], TlsError> {
    let certificate = CertificateDer::from(certificate);
    let parsed = ParsedCertificate::try_from(&certificate).map_err(|error| TlsError::Certificate(error.to_string()))?;
    Ok(Sha256::digest(parsed.subject_public_key_info().as_ref()).into())
}

/// A client's configuration that speaks `alpn` (`rove/1` or `h3`), with [`crate::client_transport`].
///
/// It remembers TLS sessions for resumption, and for 0-RTT if it speaks `rove/1`: keep it for as long as the same server is dialled.
///
/// # Errors
/// [`TlsError::NoRoots`], [`TlsError::NoPins`], [`TlsError::Config`].
pub fn client_tls(trust: &Trust, alpn: &[u8]) -> Result<quinn::ClientConfig, TlsError> {
    client_tls_with(trust, alpn, crate::client_transport())
}

/// As [`client_tls`], with a transport of the caller's own.
///
/// # Errors
/// As [`client_tls`].
pub fn client_tls_with(
    trust: &Trust,
    alpn: &[u8],
    transport: quinn::TransportConfig,
) -> Result<quinn::ClientConfig, TlsError> {
    let provider = provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Config(error.to_string()))?;
    let mut tls = match trust {
        Trust::System => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
        Trust::Pins(pins) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinVerifier::new(pins.clone(), provider)?))
            .with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.resumption = rustls::client::Resumption::in_memory_sessions(crate::config::CLIENT_TLS_SESSIONS);
    // What `rove/1` sends early is harmless when it is sent again (D5). HTTP requests are not.
    tls.enable_early_data = alpn == ALPN;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| TlsError::Config(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The authorities the operating system trusts. Single certificates that do not parse are left out, as systems have
/// some; none at all is an error.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots(errors.join("; ")));
    }
    Ok(roots)
}

/// Accepts a certificate by its key alone. That the server has the key is proven by its signature, which the provider
/// checks as for any other certificate.
#[derive(Debug)]
struct PinVerifier {
    pins: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    fn new(pins: Vec<[u8; 32]>, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        if pins.is_empty() { Err(TlsError::NoPins) } else { Ok(Self { pins, provider }) }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pin = spki_pin(end_entity).map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        if self.pins.contains(&pin) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
