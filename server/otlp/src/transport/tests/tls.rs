//! TLS over real sockets, with an authority of our own.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use super::*;

/// Signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("they are good");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key()).expect("it can be signed"))
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate for these hosts, and its key.
    fn signed(&self, hosts: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let (params, key) = (CertificateParams::new(hosts).expect("they are good"), key());
        let certificate = params.signed_by(&key, &self.0).expect("it can be signed");
        (certificate, key)
    }

    fn identity(&self) -> Identity {
        let (certificate, key) = self.signed(&[]);
        Identity { certificate: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

/// A backend with a certificate for `host`; it wants one of its clients if `clients` can sign them.
async fn backend(protocol: Protocol, authority: &Authority, host: &str, clients: Option<&Authority>) -> Backend {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone());
    let config = config.with_safe_default_protocol_versions().expect("the provider has them");
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.0.der().clone()).expect("it is an authority's");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            config.with_client_cert_verifier(verifier.expect("it has a root"))
        }
    };
    let (certificate, key) = authority.signed(&[host]);
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is a key");
    let mut config = config.with_single_cert(chain, key).expect("they belong together");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let accepting = Arc::new(move |_| Some(Reply::accepting(protocol)));
    Backend::at(None, protocol, accepting, Some(Arc::new(config).into())).await
}

fn secured(backend: &Backend, roots: Vec<u8>, identity: Option<Identity>) -> Destination {
    let endpoint = Endpoint::General(format!("https://localhost:{}", backend.address().port()));
    let tls = Arc::new(TlsMaterial { roots: Roots::Pem(roots), identity });
    Destination { endpoint, tls, ..backend.destination(Signal::Traces) }
}

#[test]
fn a_backend_of_a_trusted_authority_gets_the_request() {
    for protocol in BOTH {
        real(async move {
            let authority = Authority::new();
            let backend = backend(protocol, &authority, "localhost", None).await;
            let exchange = exchange(&secured(&backend, authority.pem(), None));
            assert_eq!(exchange.send(request()).await, Ok(Accepted::default()));
            assert_eq!(exchange.send(request()).await, Ok(Accepted::default()));
            assert_eq!((backend.received().spans.len(), backend.received().connections), (2, 1));
        });
    }
}

#[test]
fn another_authority_or_another_host_is_not_trusted_and_the_reason_is_told() {
    for protocol in BOTH {
        real(async move {
            let (authority, other) = (Authority::new(), Authority::new());
            let cases = [(&other, "localhost", "BadSignature"), (&authority, "elsewhere", "not valid for name")];
            for (trusted, host, part) in cases {
                let backend = backend(protocol, &authority, host, None).await;
                let refusal = exchange(&secured(&backend, trusted.pem(), None)).send(request()).await;
                let refusal = refusal.expect_err("it is not trusted");
                assert!(refusal.reason.starts_with("TLS failed") && refusal.reason.contains(part), "{refusal}");
                // A certificate may be replaced.
                assert_eq!(refusal.retry, Retry::Allowed);
                assert_eq!(backend.received().requests, 0);
            }
        });
    }
}

#[test]
fn a_client_s_certificate_is_shown_and_without_it_nothing_is_taken() {
    for protocol in BOTH {
        real(async move {
            let (authority, clients) = (Authority::new(), Authority::new());
            let backend = backend(protocol, &authority, "localhost", Some(&clients)).await;
            let known = secured(&backend, authority.pem(), Some(clients.identity()));
            assert_eq!(exchange(&known).send(request()).await, Ok(Accepted::default()));
            for identity in [None, Some(authority.identity())] {
                let unknown = secured(&backend, authority.pem(), identity);
                let refusal = exchange(&unknown).send(request()).await.expect_err("it shows nothing good");
                assert_eq!(refusal.retry, Retry::Allowed, "{refusal}");
            }
            assert_eq!(backend.received().requests, 1);
        });
    }
}

#[test]
fn material_that_cannot_be_used_is_named_before_the_start() {
    let authority = Authority::new();
    let complaint = |roots: Roots, identity: Option<Identity>| {
        let endpoint = Endpoint::General("https://localhost:1".to_owned());
        let tls = Arc::new(TlsMaterial { roots, identity });
        let error = Destination { tls, ..destination(Signal::Traces, endpoint) }.check().err();
        error.map_or_else(String::new, |error| format!("{}: {error}", error.key()))
    };
    let trusted = || Roots::Pem(authority.pem());
    assert_eq!(complaint(trusted(), Some(authority.identity())), "");
    for roots in [b"nothing".to_vec(), Vec::new(), b"-----BEGIN CERTIFICATE-----\n!!\n".to_vec()] {
        let message = complaint(Roots::Pem(roots), None);
        assert!(message.starts_with("certificate: "), "{message}");
    }
    let message = complaint(Roots::System(Vec::new()), None);
    assert!(message.starts_with("certificate: ") && message.contains("the system has none"), "{message}");
    let identity = |change: &dyn Fn(&mut Identity)| {
        let mut identity = authority.identity();
        change(&mut identity);
        complaint(trusted(), Some(identity))
    };
    let message = identity(&|identity| identity.key = b"s3cret".to_vec());
    assert!(message.starts_with("client_key: ") && !message.contains("s3cret"), "{message}");
    let message = identity(&|identity| identity.certificate = b"x".to_vec());
    assert!(message.starts_with("client_certificate: "), "{message}");
    let message = identity(&|identity| identity.key = key().serialize_pem().into_bytes());
    assert!(message.starts_with("client_key: ") && message.contains("does not belong"), "{message}");
}
