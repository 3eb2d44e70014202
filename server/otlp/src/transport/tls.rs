//! TLS towards a backend: whom to trust, and what to show.

#[cfg(feature = "tls")]
use std::sync::Arc;

use super::settings::{Destination, ExportError};

/// Whom a connection trusts, and who this client says it is. Not `Debug`: it has the key.
#[derive(Clone, Default)]
pub struct TlsMaterial {
    pub roots: Roots,
    pub identity: Option<Identity>,
}

/// The certificates that a backend's has to go back to.
#[derive(Clone)]
pub enum Roots {
    /// One or more, in PEM.
    Pem(Vec<u8>),
    /// Those of the system, each in DER.
    System(Vec<Vec<u8>>),
}

impl Default for Roots {
    fn default() -> Self {
        Self::System(Vec::new())
    }
}

/// A client's certificate with the chain above it, and its key; PEM both.
#[derive(Clone)]
pub struct Identity {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// Opens TLS on a connection.
#[cfg(feature = "tls")]
pub(super) type Connector = tokio_rustls::TlsConnector;
/// There is none in this build.
#[cfg(not(feature = "tls"))]
pub(super) type Connector = std::convert::Infallible;

#[cfg(not(feature = "tls"))]
pub(super) fn connector(destination: &Destination) -> Result<Connector, ExportError> {
    Err(ExportError::NoTls(crate::without_secrets(destination.endpoint.url())))
}

#[cfg(feature = "tls")]
pub(super) fn connector(destination: &Destination) -> Result<Connector, ExportError> {
    use rustls::ClientConfig;

    let TlsMaterial { roots, identity } = &*destination.tls;
    // Named, not left to the process's default: another crate may have brought a second one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of both versions")
        .with_root_certificates(trusted(roots)?);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = shown(identity)?;
            let refuse = |error: rustls::Error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    ExportError::ClientKey("it does not belong to the client's certificate".to_owned())
                }
                other => ExportError::ClientCertificate(other.to_string()),
            };
            config.with_client_auth_cert(chain, key).map_err(refuse)?
        }
    };
    config.alpn_protocols = vec![match destination.protocol {
        super::Protocol::Grpc => b"h2".to_vec(),
        super::Protocol::Http => b"http/1.1".to_vec(),
    }];
    Ok(Arc::new(config).into())
}

#[cfg(feature = "tls")]
fn trusted(roots: &Roots) -> Result<rustls::RootCertStore, ExportError> {
    use rustls::pki_types::CertificateDer;

    let refuse = |text: &str| ExportError::Certificate(text.to_owned());
    let mut store = rustls::RootCertStore::empty();
    match roots {
        Roots::Pem(pem) => {
            for certificate in certificates(pem).map_err(ExportError::Certificate)? {
                store.add(certificate).map_err(|error| ExportError::Certificate(error.to_string()))?;
            }
        }
        // The system's store may well hold some that are of no use.
        Roots::System(all) => {
            let _counts = store.add_parsable_certificates(all.iter().map(|der| CertificateDer::from(&der[..])));
        }
    }
    if store.is_empty() {
        return Err(refuse("the system has none: name a file with those of the backend's authority"));
    }
    Ok(store)
}

#[cfg(feature = "tls")]
fn certificates(pem: &[u8]) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() { Err("there is no certificate in the file, which has to be PEM".to_owned()) } else { Ok(all) }
}

#[cfg(feature = "tls")]
type Shown = (Vec<rustls::pki_types::CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>);

#[cfg(feature = "tls")]
fn shown(identity: &Identity) -> Result<Shown, ExportError> {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    let chain = certificates(&identity.certificate).map_err(ExportError::ClientCertificate)?;
    // The parser's message is not shown: there is a key in what it read.
    let key = PrivateKeyDer::from_pem_slice(&identity.key)
        .map_err(|_| ExportError::ClientKey("there is no private key in the file, which has to be PEM".to_owned()))?;
    Ok((chain, key))
}
