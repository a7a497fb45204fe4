//! Whom a broker connection trusts, and how it proves who we are.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::{Config, Tls};

/// The client side of a TLS connection: certificates of `ca_file`, or those of
/// the system, are trusted; host names are always checked.
///
/// # Errors
/// When a file cannot be read or holds nothing of use; the text names the field.
pub(super) fn client_config(tls: &Tls, config: &Config) -> anyhow::Result<Arc<ClientConfig>> {
    let roots = match &tls.ca_file {
        Some(path) => file_roots(&config.resolve(path)).context("tls.ca_file")?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot set up TLS")?
        .with_root_certificates(roots);
    let client = match (&tls.cert_file, &tls.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let certs = certificates(&config.resolve(cert)).context("tls.cert_file")?;
            let key = private_key(&config.resolve(key)).context("tls.key_file")?;
            builder
                .with_client_auth_cert(certs, key)
                .context("tls.cert_file and tls.key_file do not fit together")?
        }
        (Some(_), None) => anyhow::bail!("tls.key_file is missing beside tls.cert_file"),
        (None, Some(_)) => anyhow::bail!("tls.cert_file is missing beside tls.key_file"),
    };
    Ok(Arc::new(client))
}

/// Changes when the contents of the files or one of the secrets do.
pub(super) fn fingerprint(tls: &Tls, config: &Config, secrets: &[Option<&str>]) -> u64 {
    let files = [&tls.ca_file, &tls.cert_file, &tls.key_file];
    let contents = files
        .into_iter()
        .flatten()
        // A file that cannot be read was refused before.
        .map(|path| std::fs::read(config.resolve(path)).unwrap_or_default());
    let secrets = secrets
        .iter()
        .map(|secret| secret.unwrap_or_default().as_bytes().to_vec());
    contents
        .chain(secrets)
        .fold(0, |seed, bytes| xxh3_64_with_seed(&bytes, seed))
}

fn file_roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .with_context(|| format!("bad certificate in {}", path.display()))?;
    }
    Ok(roots)
}

fn system_roots() -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ensure!(
        !roots.is_empty(),
        "the system has no certificates to trust, set tls.ca_file"
    );
    Ok(roots)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || format!("cannot read certificates from {}", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .with_context(read)?
        .collect::<Result<Vec<_>, _>>()
        .with_context(read)?;
    ensure!(
        !certificates.is_empty(),
        "no certificate in {}",
        path.display()
    );
    Ok(certificates)
}

fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .with_context(|| format!("cannot read a private key from {}", path.display()))
}
