//! The public listener ends TLS itself: with certificates that may change, and for clients that prove who they are.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http::post;
use crate::meta;
use crate::wait;
use crate::wharf::Setup;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of this name, and its key.
fn issue(by: &Authority, name: &str) -> (rcgen::Certificate, KeyPair) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, by).unwrap(), key)
}

fn install(by: &Authority, certificate: &Path, key: &Path) {
    let (issued, own) = issue(by, "localhost");
    std::fs::write(key, own.serialize_pem()).unwrap();
    std::fs::write(certificate, issued.pem()).unwrap();
}

/// Sends a signed webhook over TLS; the answer's first line, or why there is none.
fn send(
    to: SocketAddr,
    trusts: &Authority,
    identity: Option<&(rcgen::Certificate, KeyPair)>,
) -> std::io::Result<String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    roots.add(trusts.der().clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
            config.with_client_auth_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap()
        }
    };
    let body = meta::messages(&[meta::text("wamid.TLS", "over TLS")]);
    let headers = format!("{}Connection: close\r\n", meta::signature(meta::SECRET, &body));
    let request = post(meta::PATH, &headers, &body);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TcpStream::connect(to).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(&request).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
    })
}

#[test]
fn webhooks_come_over_tls_and_a_new_certificate_needs_no_restart() {
    let (first, second) = (authority(), authority());
    let setup = Setup::new().without_limits();
    let (certificate, key) = (setup.file("tls.crt", ""), setup.file("tls.key", ""));
    install(&first, &certificate, &key);
    // Production, open to others as far as the configuration can tell.
    let wharf = setup
        .set("WHARF__LISTEN__TLS__CERTIFICATE", certificate.to_str().unwrap())
        .set("WHARF__LISTEN__TLS__KEY", key.to_str().unwrap())
        .start();
    assert_eq!(send(wharf.public(), &first, None).unwrap(), "HTTP/1.1 200 OK");
    assert!(send(wharf.public(), &second, None).is_err(), "it shows the certificate that it was given");
    install(&second, &certificate, &key);
    wait::until("the new certificate is shown", || send(wharf.public(), &second, None).ok());
    assert!(send(wharf.public(), &first, None).is_err());
    wharf.wait_for_message("wamid.TLS");
}

#[test]
fn only_clients_with_the_right_certificate_get_in() {
    const META: &str = "client.webhooks.fbclientcerts.com";
    let (own, clients, strangers) = (authority(), authority(), authority());
    let setup = Setup::new().without_limits();
    let (certificate, key) = (setup.file("tls.crt", ""), setup.file("tls.key", ""));
    install(&own, &certificate, &key);
    let bundle = setup.file("ca.pem", &clients.pem());
    let wharf = setup
        .set("WHARF__LISTEN__TLS__CERTIFICATE", certificate.to_str().unwrap())
        .set("WHARF__LISTEN__TLS__KEY", key.to_str().unwrap())
        .set("WHARF__LISTEN__TLS__CLIENT_CA", bundle.to_str().unwrap())
        .set("WHARF__LISTEN__TLS__CLIENT_NAMES", META)
        .start();
    let comes = |by: &Authority, name: &str| send(wharf.public(), &own, Some(&issue(by, name)));
    assert_eq!(comes(&clients, META).unwrap(), "HTTP/1.1 200 OK");
    for refused in [comes(&clients, "somebody.example.com"), comes(&strangers, META), send(wharf.public(), &own, None)]
    {
        assert!(refused.as_ref().is_err() || refused.as_ref().is_ok_and(String::is_empty), "{refused:?}");
    }
}
