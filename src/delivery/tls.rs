//! How a server is trusted, and how we prove who we are.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::config;

/// TLS 1.2 and 1.3 by ring; the system's certificates are read only when none are named.
///
/// # Errors
/// With the field that is wrong.
pub(super) fn client(
    tls: &config::Tls,
    base_dir: &Path,
    read: &mut Vec<Vec<u8>>,
) -> anyhow::Result<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            for certificate in certificates(&base_dir.join(path), read).context("ca_file")? {
                roots.add(certificate).context("ca_file")?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            ensure!(
                !roots.is_empty(),
                "ca_file: the system has no certificates, expected a file with those to trust"
            );
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("no protocol version")?
        .with_root_certificates(roots);
    match (&tls.cert_file, &tls.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates(&base_dir.join(cert), read).context("cert_file")?;
            let key = PrivateKeyDer::from_pem_slice(&file(&base_dir.join(key), read)?)
                .map_err(|err| anyhow!("key_file: no private key: {err}"))?;
            builder
                .with_client_auth_cert(chain, key)
                .context("cert_file and key_file")
        }
        _ => bail!("cert_file and key_file: expected both or none"),
    }
}

/// Bytes in both directions, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Encrypts a connection to a host.
///
/// # Errors
/// When the host is not who it should be.
pub(super) async fn encrypt(
    stream: Box<dyn Stream>,
    host: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<Box<dyn Stream>> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|err| io::Error::new(io::ErrorKind::InvalidInput, err))?;
    let connector = TlsConnector::from(Arc::clone(config));
    Ok(Box::new(connector.connect(name, stream).await?))
}

fn certificates(
    path: &Path,
    read: &mut Vec<Vec<u8>>,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = file(path, read)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|err| anyhow!("{}: {err}", path.display()))?;
    ensure!(
        !certificates.is_empty(),
        "{}: holds no certificate, expected PEM",
        path.display()
    );
    Ok(certificates)
}

fn file(path: &Path, read: &mut Vec<Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    read.push(bytes.clone());
    Ok(bytes)
}
