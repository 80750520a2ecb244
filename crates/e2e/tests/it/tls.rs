//! The public listener ends TLS itself: with certificates that may change, and for clients that prove who they are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::http::{Connection, post};
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
    let body = meta::messages(&[meta::text("wamid.TLS", "over TLS")]);
    let headers = format!("{}Connection: close\r\n", meta::signature(meta::SECRET, &body));
    exchange(to, trusts, identity, &post(meta::PATH, &headers, &body))
}

/// Sends these bytes over TLS; the answer's first line, or why there is none.
fn exchange(
    to: SocketAddr,
    trusts: &Authority,
    identity: Option<&(rcgen::Certificate, KeyPair)>,
    request: &[u8],
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TcpStream::connect(to).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        // It may answer and close before it has everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer).await
            && answer.is_empty()
        {
            return Err(error);
        }
        Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
    })
}

/// Wharf without limits that shows a certificate of this authority, and the files that it is in.
fn shows(authority: &Authority) -> (Setup, [PathBuf; 2]) {
    let setup = Setup::new().without_limits();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| setup.file(name, ""));
    install(authority, &certificate, &key);
    let setup = setup
        .set("WHARF__LISTEN__TLS__CERTIFICATE", certificate.to_str().unwrap())
        .set("WHARF__LISTEN__TLS__KEY", key.to_str().unwrap());
    (setup, [certificate, key])
}

#[test]
fn webhooks_come_over_tls_and_a_new_certificate_needs_no_restart() {
    let (first, second) = (authority(), authority());
    let (setup, [certificate, key]) = shows(&first);
    // Production, open to others as far as the configuration can tell.
    let wharf = setup.start();
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
    let (setup, _) = shows(&own);
    let bundle = setup.file("ca.pem", &clients.pem());
    let wharf = setup
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

#[test]
fn connections_that_never_begin_tls_keep_nobody_out() {
    const MAX: usize = 8;
    const SILENT: usize = 1500;
    let own = authority();
    let (setup, _) = shows(&own);
    let wharf = setup.set("WHARF__INGRESS__CONNECTIONS_PER_IP", &MAX.to_string()).start();
    let silent: Vec<_> = (0..SILENT).map(|_| Connection::open_from([127, 0, 0, 2].into(), wharf.public())).collect();
    let began = Instant::now();
    assert_eq!(send(wharf.public(), &own, None).unwrap(), "HTTP/1.1 200 OK");
    // Before the silent ones are given up, which takes 3 s.
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    let count = |name: &str, labels: &[&str]| wharf.metrics().count(name, labels);
    wait::until("all are closed", || {
        let refused = count("wharf_connections_refused_total", &[]);
        let given_up = count("wharf_tls_handshakes_failed_total", &[r#"reason="timeout""#]);
        // Where opening them takes long, some get places that others have lost.
        (refused + given_up == SILENT as u64 && refused > 0 && given_up >= MAX as u64).then_some(())
    });
    drop(silent);
    assert!(send(wharf.public(), &authority(), None).is_err());
    wait::until("a handshake that the client gave up is counted", || {
        (count("wharf_tls_handshakes_failed_total", &[r#"reason="refused""#]) == 1).then_some(())
    });
}

#[test]
fn an_address_begins_so_many_handshakes_in_a_second_and_others_theirs() {
    const REQUESTS: usize = 10;
    let own = authority();
    let (setup, _) = shows(&own);
    let wharf = setup.set("WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND", &REQUESTS.to_string()).start();
    let began = Instant::now();
    let mut connections: Vec<_> =
        (0..REQUESTS * 3).map(|_| Connection::open_from([127, 0, 0, 2].into(), wharf.public())).collect();
    assert!(began.elapsed() < Duration::from_secs(1), "this machine is too slow for a burst: {:?}", began.elapsed());
    let closed = connections.split_off(REQUESTS * 2);
    for mut connection in closed {
        assert!(connection.answer().is_none(), "closed without a handshake");
    }
    assert_eq!(wharf.metrics().count("wharf_connections_refused_total", &[]), REQUESTS as u64);
    assert_eq!(send(wharf.public(), &own, None).unwrap(), "HTTP/1.1 200 OK");
}

#[test]
fn what_is_refused_without_tls_is_refused_with_it() {
    let own = authority();
    let (setup, _) = shows(&own);
    let wharf = setup.start();
    let body = meta::messages(&[meta::text("wamid.ABUSE", "never")]);
    let signed = meta::signature(meta::SECRET, &body);
    let head = |headers: &str| format!("POST {} HTTP/1.1\r\nHost: wharf\r\n{signed}{headers}\r\n", meta::PATH);
    let both = format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", body.len());
    let many = format!("X: {}\r\n", "y".repeat(1000)).repeat(200);
    let rows: [(&str, Vec<u8>, &str); 7] = [
        ("a head that stops", b"POST /webhooks".to_vec(), "408"),
        ("a body that stops", head("Content-Length: 1000\r\n").into_bytes(), "408"),
        ("chunks that do not end", format!("{}5\r\nabcde\r\n", head("Transfer-Encoding: chunked\r\n")).into(), "408"),
        ("two lengths", [head(&both).into_bytes(), body.clone()].concat(), "400"),
        ("a flood of headers", head(&many).into_bytes(), "4"),
        ("a compressed body", head("Content-Encoding: gzip\r\nContent-Length: 9\r\n").into_bytes(), "415"),
        ("an endless body", head("Content-Length: 99999999999\r\n").into_bytes(), "413"),
    ];
    std::thread::scope(|scope| {
        for (name, request, status) in &rows {
            let (to, trusts) = (wharf.public(), &own);
            scope.spawn(move || {
                let answer = exchange(to, trusts, None, request);
                let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {answer}");
            });
        }
        for _ in 0..20 {
            assert_eq!(send(wharf.public(), &own, None).unwrap(), "HTTP/1.1 200 OK", "meanwhile");
        }
    });
    wharf.wait_for_message("wamid.TLS");
    assert_eq!(wharf.events().len(), 1);
}
