//! TLS of a listener: its certificate, and which clients it takes, from files that may change while it runs.
//!
//! With a CA bundle a client must present a certificate that leads to it, over any intermediates that it sends along. With
//! names, the certificate's subject must have one of them as common name or DNS name. Meta signs the certificates that
//! it presents with a CA of its own, and who may call is told by the name alone.
//!
//! A renewed certificate or bundle counts for new connections; those that are open go on. If it cannot be used, that is
//! reported once and the old one stays. The certificate with its key and the bundle are looked at apart: what is wrong
//! with one does not keep the other from being renewed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::Tasks;
use crate::reload::{Reloaded, Unreadable};

/// Where TLS comes from. All files are PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// The certificate's private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// With it, clients must present a certificate that leads to one of these.
    pub client_ca: Option<PathBuf>,
    /// One of these must be a common name or a DNS name of the client's certificate. Without any, each is good.
    pub client_names: Vec<String>,
}

/// Files that TLS cannot be made from.
///
/// No message holds anything from inside a file: it might be the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A file is not PEM, or breaks off.
    #[error("{path} is not PEM")]
    NotPem {
        /// The file.
        path: PathBuf,
    },
    /// No certificate is in a file that should hold some.
    #[error("there is no certificate in {path}")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be read.
    #[error("certificate {position} in {path} is not usable")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        position: usize,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No private key is in the file.
    #[error("there is no private key in {path} (one with a passphrase cannot be used)")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is of no kind that can be used.
    #[error("the private key in {path} is not usable")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The key belongs to another certificate.
    #[error("the private key in {key} does not belong to the first certificate in {certificate}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Names were given, but nothing that says who may vouch for them.
    #[error("names of clients need a CA bundle that their certificates are checked against")]
    NamesWithoutCa,
    /// The TLS library refuses what it was given.
    #[error("cannot set up TLS")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Tls {
    identity: Arc<Identity>,
    clients: Option<Arc<Clients>>,
    config: ServerConfig,
}

impl Tls {
    /// Reads the files and begins to watch them.
    pub fn start(files: TlsFiles, tasks: &Tasks) -> Result<Arc<Self>, TlsError> {
        let tls = Self::open(files)?;
        tls.identity.reloaded.watch("TLS certificate", tasks);
        if let Some(clients) = &tls.clients {
            clients.reloaded.watch("TLS client CA", tasks);
        }
        Ok(Arc::new(tls))
    }

    /// What a listener needs. It follows the files by itself; it need not be asked for again.
    ///
    /// With client certificates no session is resumed: a resumed one would not be checked again.
    pub fn server_config(&self) -> ServerConfig {
        self.config.clone()
    }

    /// Looks at the files now, not only at the next turn. True if some had changed.
    pub async fn look(&self) -> Result<bool, TlsError> {
        let identity = self.identity.reloaded.look().await;
        let clients = match &self.clients {
            Some(clients) => clients.reloaded.look().await,
            None => Ok(false),
        };
        Ok(identity? | clients?)
    }

    fn open(files: TlsFiles) -> Result<Self, TlsError> {
        if files.client_ca.is_none() && !files.client_names.is_empty() {
            return Err(TlsError::NamesWithoutCa);
        }
        let provider = Arc::new(ring::default_provider());
        let identity = Arc::new(Identity::open(files.certificate, files.key, provider.clone())?);
        let names = files.client_names;
        let clients = match files.client_ca {
            Some(bundle) => Some(Arc::new(Clients::open(bundle, names, provider.clone())?)),
            None => None,
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Setup(error.into()))?;
        let mut config = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.clone()),
            None => builder.with_no_client_auth(),
        }
        .with_cert_resolver(identity.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if clients.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self { identity, clients, config })
    }
}

/// The certificate with its key.
#[derive(Debug)]
struct Identity {
    reloaded: Arc<Reloaded<CertifiedKey, TlsError>>,
}

impl Identity {
    fn open(certificate: PathBuf, key: PathBuf, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let paths = (certificate.clone(), key.clone());
        let reloaded = Reloaded::open(&[&paths.0, &paths.1], move |contents| match contents {
            [chain, secret] => certified_key((&certificate, chain), (&key, secret), &provider),
            _ => Err(TlsError::NoCertificate { path: certificate.clone() }),
        })?;
        Ok(Self { reloaded: Arc::new(reloaded) })
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.reloaded.current())
    }
}

/// Which clients are taken.
#[derive(Debug)]
struct Clients {
    reloaded: Arc<Reloaded<Arc<dyn ClientCertVerifier>, TlsError>>,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl Clients {
    fn open(bundle: PathBuf, names: Vec<String>, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let (path, own) = (bundle.clone(), provider.clone());
        let reloaded = Reloaded::open(&[&path], move |contents| {
            verifier(&bundle, contents.first().map_or(&[], Vec::as_slice), &own)
        })?;
        Ok(Self { reloaded: Arc::new(reloaded), names, provider })
    }
}

impl ClientCertVerifier for Clients {
    /// None: they would have to stay what they were at the start. A client with one certificate needs no hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.reloaded.current().verify_client_cert(leaf, intermediates, now).inspect_err(|error| {
            tracing::debug!(error = error as &dyn std::error::Error, "a client's certificate was refused");
        })?;
        if self.names.is_empty() {
            return Ok(verified);
        }
        let names = names(leaf);
        if names.iter().any(|name| self.names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))) {
            return Ok(verified);
        }
        tracing::warn!(?names, "a client's certificate leads to the CA bundle, but has none of the names wanted");
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certified_key(
    (certificate, chain): (&Path, &[u8]),
    (key, secret): (&Path, &[u8]),
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate, chain)?;
    let secret = sections(key, secret)?
        .into_iter()
        .find_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der))
        .ok_or_else(|| TlsError::NoKey { path: key.to_owned() })?;
    let signing = provider
        .key_provider
        .load_private_key(secret)
        .map_err(|error| TlsError::Key { path: key.to_owned(), source: error.into() })?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() })
        }
        Err(error) => Err(TlsError::Certificate { path: certificate.to_owned(), position: 1, source: error.into() }),
    }
}

fn verifier(
    bundle: &Path,
    contents: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for (position, certificate) in (1..).zip(certificates(bundle, contents)?) {
        roots.add(certificate).map_err(|error| TlsError::Certificate {
            path: bundle.to_owned(),
            position,
            source: error.into(),
        })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    verifier.map_err(|error| TlsError::Setup(error.into()))
}

/// The certificates in a file: at least one, each readable.
fn certificates(path: &Path, contents: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let sections = sections(path, contents)?;
    let certificates: Vec<_> =
        sections.into_iter().filter_map(|(kind, der)| CertificateDer::from_pem(kind, der)).collect();
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    for (position, certificate) in (1..).zip(&certificates) {
        X509Certificate::from_der(certificate).map_err(|error| TlsError::Certificate {
            path: path.to_owned(),
            position,
            source: error.to_string().into(),
        })?;
    }
    Ok(certificates)
}

/// The PEM sections of a file: at least one of a kind that is known.
fn sections(path: &Path, contents: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, TlsError> {
    // The parser's errors quote the file, so they are dropped.
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(contents).collect::<Result<Vec<_>, _>>();
    let begins = contents.windows(11).any(|window| window == b"-----BEGIN ");
    sections.ok().filter(|_| begins).ok_or_else(|| TlsError::NotPem { path: path.to_owned() })
}

/// The common names and DNS names of a certificate; none if it cannot be read. A wildcard is a name like any other.
fn names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    let dns = alternatives.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).chain(dns).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
