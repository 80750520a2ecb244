//! Real handshakes over TCP, with certificates made here. Nothing waits for the clock: files are looked at when asked.

use std::io;
use std::net::SocketAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName as Subject, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const META: &str = "client.webhooks.fbclientcerts.com";

type Authority = CertifiedIssuer<'static, KeyPair>;

struct Leaf {
    /// The leaf and its intermediates.
    chain: Vec<CertificateDer<'static>>,
    pem: String,
    key: KeyPair,
}

fn subject(name: impl Into<DnValue>) -> Subject {
    let mut subject = Subject::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn intermediate(name: &str, of: &Authority) -> Authority {
    CertifiedIssuer::signed_by(authority_params(name), KeyPair::generate().unwrap(), of).unwrap()
}

fn leaf(by: &Authority, common: impl Into<DnValue>, dns: &[&str], purpose: ExtendedKeyUsagePurpose) -> Leaf {
    let dns: Vec<String> = dns.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(dns).unwrap();
    params.distinguished_name = subject(common);
    params.extended_key_usages = vec![purpose];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap();
    Leaf { pem: certificate.pem(), chain: vec![certificate.der().clone()], key }
}

fn server(by: &Authority) -> Leaf {
    leaf(by, "the gateway", &["localhost"], ExtendedKeyUsagePurpose::ServerAuth)
}

fn client(by: &Authority, common: impl Into<DnValue>, dns: &[&str]) -> Leaf {
    leaf(by, common, dns, ExtendedKeyUsagePurpose::ClientAuth)
}

/// A listener's files, and what is reached through them.
struct Door {
    folder: TempDir,
    /// Signs the door's own certificates.
    authority: Authority,
    tasks: Tasks,
}

impl Door {
    fn new() -> Self {
        let door = Self { folder: tempfile::tempdir().unwrap(), authority: authority("servers"), tasks: Tasks::new() };
        door.install(&server(&door.authority));
        door
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn install(&self, leaf: &Leaf) {
        self.write("tls.crt", &leaf.pem);
        self.write("tls.key", &leaf.key.serialize_pem());
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.folder.path().join("tls.crt"),
            key: self.folder.path().join("tls.key"),
            client_ca: None,
            client_names: Vec::new(),
        }
    }

    fn files_for_clients(&self, of: &[&Authority], names: &[&str]) -> TlsFiles {
        self.write("ca.pem", &of.iter().map(|authority| authority.pem()).collect::<String>());
        let client_names = names.iter().map(|&name| name.to_owned()).collect();
        TlsFiles { client_ca: Some(self.folder.path().join("ca.pem")), client_names, ..self.files() }
    }

    /// Answers what it is sent, to everybody who comes in.
    async fn serve(&self, tls: &Tls) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls.server_config()));
        let tasks = self.tasks.clone();
        self.tasks.spawn("door", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tasks.spawn("connection", async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut word = [0; 4];
                    while stream.read_exact(&mut word).await.is_ok() && stream.write_all(&word).await.is_ok() {}
                });
            }
        });
        address
    }

    fn visitor(
        &self,
        identity: Option<&Leaf>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(leaf) => {
                let key = PrivateKeyDer::from_pem_slice(leaf.key.serialize_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(leaf.chain.clone(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

async fn connect(address: SocketAddr, visitor: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let mut stream =
        TlsConnector::from(visitor.clone()).connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    // In TLS 1.3 a client learns that it is refused after its side of the handshake is done.
    ping(&mut stream).await?;
    Ok(stream)
}

async fn ping(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    stream.write_all(b"ping").await?;
    let mut word = [0; 4];
    stream.read_exact(&mut word).await?;
    assert_eq!(&word, b"ping");
    Ok(())
}

fn presented(stream: &TlsStream<TcpStream>) -> Vec<CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates().unwrap().to_vec()
}

#[tokio::test]
async fn speaks_both_versions_and_only_http_1_1() {
    let door = Door::new();
    let tls = Tls::start(door.files(), &door.tasks).unwrap();
    let address = door.serve(&tls).await;
    for version in [&TLS12, &TLS13] {
        let stream = connect(address, &door.visitor(None, version)).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

#[tokio::test]
async fn new_connections_get_the_renewed_certificate_and_old_ones_go_on() {
    let door = Door::new();
    let first = server(&door.authority);
    door.install(&first);
    let tls = Tls::start(door.files(), &door.tasks).unwrap();
    let address = door.serve(&tls).await;
    let visitor = door.visitor(None, &TLS13);
    let mut old = connect(address, &visitor).await.unwrap();
    assert_eq!(presented(&old), first.chain);
    assert!(!tls.look().await.unwrap());

    // The new one comes with an intermediate, as those of public authorities do.
    let between = intermediate("between", &door.authority);
    let mut second = server(&between);
    second.pem.push_str(&between.pem());
    door.install(&second);
    assert!(tls.look().await.unwrap());
    let new = connect(address, &door.visitor(None, &TLS13)).await.unwrap();
    assert_eq!(presented(&new), [second.chain[0].clone(), between.der().clone()]);
    ping(&mut old).await.unwrap();
}

#[tokio::test]
async fn a_broken_renewal_is_told_once_and_the_old_certificate_stays() {
    let door = Door::new();
    let first = server(&door.authority);
    door.install(&first);
    let tls = Tls::start(door.files(), &door.tasks).unwrap();
    let address = door.serve(&tls).await;
    let second = server(&door.authority);

    door.write("tls.crt", "half a certi");
    assert!(matches!(tls.look().await, Err(TlsError::NotPem { .. })));
    assert!(!tls.look().await.unwrap(), "it is told once");
    door.write("tls.crt", &second.pem);
    assert!(matches!(tls.look().await, Err(TlsError::Mismatch { .. })), "the key is not there yet");
    std::fs::remove_file(door.folder.path().join("tls.key")).unwrap();
    assert!(matches!(tls.look().await, Err(TlsError::Unreadable(_))));
    let stream = connect(address, &door.visitor(None, &TLS13)).await.unwrap();
    assert_eq!(presented(&stream), first.chain);

    door.write("tls.key", &second.key.serialize_pem());
    assert!(tls.look().await.unwrap());
    let stream = connect(address, &door.visitor(None, &TLS13)).await.unwrap();
    assert_eq!(presented(&stream), second.chain);
}

#[tokio::test]
async fn a_process_does_not_start_on_files_that_cannot_be_used() {
    let door = Door::new();
    let good = server(&door.authority);
    let key = good.key.serialize_pem();
    let other = KeyPair::generate().unwrap().serialize_pem();
    let one_line = key.replace('\n', " ");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let chain_with_garbage = format!("{}{garbage}", good.pem);
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (certificate, secret, message) in [
        ("", &*key, "tls.crt is not PEM"),
        ("hello", &key, "tls.crt is not PEM"),
        (&good.pem[..good.pem.len() / 2], &key, "tls.crt is not PEM"),
        (&key, &key, "there is no certificate in"),
        (garbage, &key, "certificate 1 in"),
        (&chain_with_garbage, &key, "certificate 2 in"),
        (&good.pem, "", "tls.key is not PEM"),
        (&good.pem, &one_line, "tls.key"),
        (&good.pem, &good.pem, "there is no private key in"),
        (&good.pem, encrypted, "there is no private key in"),
        (&good.pem, no_key, "the private key in"),
        (&good.pem, &other, "does not belong to the first certificate in"),
    ] {
        door.write("tls.crt", certificate);
        door.write("tls.key", secret);
        let error = Tls::start(door.files(), &door.tasks).unwrap_err();
        let shown = format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(shown.contains(message), "{shown} instead of {message}");
        let inside = key.lines().nth(1).unwrap();
        assert!(!shown.contains(inside) && !format!("{error:?}").contains(inside), "the key is in {error:?}");
    }

    door.install(&good);
    assert!(Tls::start(door.files(), &door.tasks).is_ok());
    let ca = Some(door.folder.path().join("ca.pem"));
    let files = || TlsFiles { client_ca: ca.clone(), ..door.files() };
    assert!(matches!(Tls::start(files(), &door.tasks), Err(TlsError::Unreadable(_))));
    for (bundle, message) in
        [("", "ca.pem is not PEM"), (&key, "there is no certificate in"), (garbage, "certificate 1 in")]
    {
        door.write("ca.pem", bundle);
        let error = Tls::start(files(), &door.tasks).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("ca.pem"), "{error}");
    }
    let names_alone = TlsFiles { client_names: vec![META.to_owned()], ..door.files() };
    assert!(matches!(Tls::start(names_alone, &door.tasks), Err(TlsError::NamesWithoutCa)));
}

#[tokio::test]
async fn takes_only_clients_of_the_bundle_with_one_of_the_names() {
    let door = Door::new();
    let (ours, foreign) = (authority("clients"), authority("others"));
    // The bundle is a root; clients bring what is between.
    let between = intermediate("between", &ours);
    let below = intermediate("below", &between);
    let mut deep = client(&below, META, &[]);
    deep.chain.extend([below.der().clone(), between.der().clone()]);
    let mut without_intermediates = client(&below, META, &[]);
    without_intermediates.chain.truncate(1);
    // The name is on the authority, not on the leaf.
    let named_authority = intermediate(META, &ours);
    let mut under_a_named_authority = client(&named_authority, "someone", &[]);
    under_a_named_authority.chain.push(named_authority.der().clone());

    let tls = Tls::start(door.files_for_clients(&[&ours], &["partner.example", META]), &door.tasks).unwrap();
    let address = door.serve(&tls).await;
    let printable = DnValue::PrintableString(META.try_into().unwrap());
    let cases = [
        ("nobody", None, false),
        ("common name", Some(client(&ours, META, &[])), true),
        ("printable common name", Some(client(&ours, printable, &[])), true),
        ("DNS name", Some(client(&ours, "someone", &["a.example", META])), true),
        ("other letters", Some(client(&ours, "CLIENT.Webhooks.FBclientcerts.com", &[])), true),
        ("the second name", Some(client(&ours, "someone", &["Partner.Example"])), true),
        ("two intermediates", Some(deep), true),
        ("missing intermediates", Some(without_intermediates), false),
        ("foreign authority", Some(client(&foreign, META, &[META])), false),
        ("other name", Some(client(&ours, "someone", &["a.example"])), false),
        ("a name around it", Some(client(&ours, format!("x{META}"), &[&format!("{META}.example")])), false),
        ("a wildcard", Some(client(&ours, "*.webhooks.fbclientcerts.com", &["*.webhooks.fbclientcerts.com"])), false),
        ("name of the authority", Some(under_a_named_authority), false),
        ("a server's certificate", Some(leaf(&ours, META, &[META], ExtendedKeyUsagePurpose::ServerAuth)), false),
    ];
    for version in [&TLS12, &TLS13] {
        for (what, identity, taken) in &cases {
            let result = connect(address, &door.visitor(identity.as_ref(), version)).await;
            assert_eq!(result.is_ok(), *taken, "{what}: {result:?}");
        }
    }
}

#[tokio::test]
async fn without_names_the_bundle_alone_decides() {
    let door = Door::new();
    let (ours, foreign) = (authority("clients"), authority("others"));
    let tls = Tls::start(door.files_for_clients(&[&ours], &[]), &door.tasks).unwrap();
    let address = door.serve(&tls).await;
    connect(address, &door.visitor(Some(&client(&ours, "someone", &[])), &TLS13)).await.unwrap();
    connect(address, &door.visitor(Some(&client(&foreign, "someone", &[])), &TLS13)).await.unwrap_err();
    connect(address, &door.visitor(None, &TLS13)).await.unwrap_err();
}

#[tokio::test]
async fn a_changed_bundle_counts_for_new_connections_even_of_clients_that_were_here() {
    for version in [&TLS12, &TLS13] {
        let door = Door::new();
        let (before, after) = (authority("before"), authority("after"));
        let tls = Tls::start(door.files_for_clients(&[&before], &[META]), &door.tasks).unwrap();
        let address = door.serve(&tls).await;
        // Each remembers its sessions, and would resume them if it could.
        let old = door.visitor(Some(&client(&before, META, &[])), version);
        let new = door.visitor(Some(&client(&after, META, &[])), version);
        let mut open = connect(address, &old).await.unwrap();
        connect(address, &old).await.unwrap();
        connect(address, &new).await.unwrap_err();

        door.write("ca.pem", "nothing");
        tls.look().await.unwrap_err();
        assert!(!tls.look().await.unwrap());
        connect(address, &old).await.unwrap();

        // What is wrong with the certificate does not keep the bundle from being renewed.
        door.write("tls.crt", "nothing");
        door.files_for_clients(&[&after], &[]);
        assert!(matches!(tls.look().await, Err(TlsError::NotPem { .. })));
        connect(address, &new).await.unwrap();
        connect(address, &old).await.unwrap_err();
        ping(&mut open).await.unwrap();
    }
}
