//! How a server is trusted, and how we prove who we are.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::config;

/// Certificates and keys as they are configured.
#[derive(Default)]
pub(super) struct Pems {
    /// Whom to trust; the system's certificates are read only when none are named.
    pub(super) ca: Option<Pem>,
    pub(super) cert: Option<Pem>,
    pub(super) key: Option<Pem>,
    /// Whoever answers is taken for the server.
    pub(super) trusts_anybody: bool,
    /// The versions that are spoken; none named: 1.2 and 1.3.
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
}

/// A PEM text, with the field that says it.
pub(super) struct Pem {
    pub(super) field: String,
    pub(super) bytes: Vec<u8>,
}

impl Pem {
    /// Reads a file; its contents go to `read` as well.
    ///
    /// # Errors
    /// With the field and the path.
    pub(super) fn of_file(
        field: &str,
        path: &Path,
        read: &mut Vec<Vec<u8>>,
    ) -> anyhow::Result<Pem> {
        let shown = path.display();
        let bytes = std::fs::read(path).with_context(|| format!("{field}: cannot read {shown}"))?;
        read.push(bytes.clone());
        Ok(Pem {
            field: format!("{field}: {shown}"),
            bytes,
        })
    }

    fn certificates(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let certificates = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|err| anyhow!("{}: {err}", self.field))?;
        let what = "holds no certificate, expected PEM";
        ensure!(!certificates.is_empty(), "{}: {what}", self.field);
        Ok(certificates)
    }
}

/// The files of `[[destination.webhook]]`.
///
/// # Errors
/// With the field that is wrong.
pub(super) fn files(
    tls: &config::Tls,
    base_dir: &Path,
    read: &mut Vec<Vec<u8>>,
) -> anyhow::Result<Pems> {
    let mut pem = |field: &str, path: &Option<PathBuf>| {
        let path = path.as_ref().map(|path| base_dir.join(path));
        path.map(|path| Pem::of_file(field, &path, read))
            .transpose()
    };
    Ok(Pems {
        ca: pem("ca_file", &tls.ca_file)?,
        cert: pem("cert_file", &tls.cert_file)?,
        key: pem("key_file", &tls.key_file)?,
        ..Pems::default()
    })
}

/// TLS 1.2 and 1.3 by ring.
///
/// # Errors
/// With the field that is wrong.
pub(super) fn client(pems: &Pems) -> anyhow::Result<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    match &pems.ca {
        Some(pem) => {
            for certificate in pem.certificates()? {
                roots.add(certificate).with_context(|| pem.field.clone())?;
            }
        }
        None if pems.trusts_anybody => {}
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            ensure!(
                !roots.is_empty(),
                "ca_file: the system has no certificates, expected a file with those to trust"
            );
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = match pems.versions {
        [] => rustls::DEFAULT_VERSIONS,
        some => some,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .context("no protocol version")?
        .with_root_certificates(roots);
    let mut client = match (&pems.cert, &pems.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = cert.certificates()?;
            let key = PrivateKeyDer::from_pem_slice(&key.bytes)
                .map_err(|err| anyhow!("{}: no private key: {err}", key.field))?;
            builder
                .with_client_auth_cert(chain, key)
                .context("cert_file and key_file")?
        }
        _ => bail!("cert_file and key_file: expected both or none"),
    };
    if pems.trusts_anybody {
        let anybody = Arc::new(Anybody(provider));
        client.dangerous().set_certificate_verifier(anybody);
    }
    Ok(client)
}

/// Takes any certificate, also of forms that cannot be read, as X.509 version 1. Whether
/// who shows it has its key says nothing: any other one would be taken as well.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Bytes in both directions, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Encrypts a connection to a host, which is known by `name` or else by its own.
///
/// # Errors
/// When the host is not who it should be.
pub(super) async fn encrypt(
    stream: Box<dyn Stream>,
    host: &str,
    name: Option<ServerName<'static>>,
    config: &Arc<ClientConfig>,
) -> io::Result<Box<dyn Stream>> {
    let name = match name {
        Some(name) => name,
        None => ServerName::try_from(host.to_owned())
            .map_err(|err| io::Error::new(io::ErrorKind::InvalidInput, err))?,
    };
    let connector = TlsConnector::from(Arc::clone(config));
    Ok(Box::new(connector.connect(name, stream).await?))
}
