//! How a server is trusted, and how we prove who we are.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
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
    let mut roots = RootCertStore::empty();
    let mut named = Vec::new();
    match &pems.ca {
        Some(pem) => {
            named = pem.certificates()?;
            for certificate in &named {
                let added = roots.add(certificate.clone());
                added.with_context(|| pem.field.clone())?;
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
    let roots = Arc::new(roots);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .context("no protocol version")?
        .with_root_certificates(Arc::clone(&roots));
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
    } else if !named.is_empty() {
        let verifier = Arc::new(Named::new(named, roots, provider)?);
        client.dangerous().set_certificate_verifier(verifier);
    }
    Ok(client)
}

/// Trusts also a server whose own certificate is named in `ca_file`, as Go does: webpki
/// takes none that may sign others, as a self-signed one mostly says of itself, and none
/// whose issuer is not named too.
#[derive(Debug)]
struct Named {
    named: Vec<CertificateDer<'static>>,
    by_issuer: Arc<WebPkiServerVerifier>,
}

impl Named {
    fn new(
        named: Vec<CertificateDer<'static>>,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> anyhow::Result<Named> {
        let by_issuer = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        Ok(Named {
            named,
            by_issuer: by_issuer.context("ca_file")?,
        })
    }

    /// webpki looks at the time before either of these, and at the name only at the end.
    fn is_about_issuer(error: &rustls::Error) -> bool {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                other.to_string() == "CaUsedAsEndEntity"
            }
            _ => false,
        }
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let by_issuer = &self.by_issuer;
        match by_issuer.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(error) if Self::is_about_issuer(&error) && self.named.contains(end_entity) => {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&certificate, name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let by_issuer = &self.by_issuer;
        by_issuer.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let by_issuer = &self.by_issuer;
        by_issuer.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_issuer.supported_verify_schemes()
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Self-signed, a CA by its own words, for localhost, from 2026-11-21 for ten years.
    const OURS: &str = "-----BEGIN CERTIFICATE-----
MIIBlDCCATmgAwIBAgIUadtaXimbarv2T+fTLocdjSIYE/0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MB4XDTI2MTEyMTIwNDY1N1oXDTM2MTExODIw
NDY1N1owFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEzM4dtIAnU5Z39MOxO96DLGNXH4p8LG5yw+QdkkKVZTnOnWOWHWhypm6J
pHytnN5QYTtDqEB2lsXd31wW/ilCu6NpMGcwHQYDVR0OBBYEFCN2X3bK+gcHCLNO
3aFi05ibzYCsMB8GA1UdIwQYMBaAFCN2X3bK+gcHCLNO3aFi05ibzYCsMA8GA1Ud
EwEB/wQFMAMBAf8wFAYDVR0RBA0wC4IJbG9jYWxob3N0MAoGCCqGSM49BAMCA0kA
MEYCIQCMO0DFGHgFWEYIZKvcMqsXAskroGtJV/fEpXWetGP7PQIhALI3XXubxPXQ
ImVX5EANDMRSe+ZDeJpWDixflWZLXDz1
-----END CERTIFICATE-----
";
    /// The same of another key.
    const OTHER: &str = "-----BEGIN CERTIFICATE-----
MIIBkzCCATmgAwIBAgIUBP6bpZVLEKY9OphVgYhTI/b/mFMwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MB4XDTI2MTEyMTIwNDY1N1oXDTM2MTExODIw
NDY1N1owFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEbFaP3OBBzgrAwQtDjR8Ox/zjyWuDafzWU6N2asRuxMBbHR56iAjir69m
SS+WF5d9KDFwLvyQk+Z0h/WgZJ4bcaNpMGcwHQYDVR0OBBYEFGdo8N0YgDeScI3l
zfjiasgVRjCvMB8GA1UdIwQYMBaAFGdo8N0YgDeScI3lzfjiasgVRjCvMA8GA1Ud
EwEB/wQFMAMBAf8wFAYDVR0RBA0wC4IJbG9jYWxob3N0MAoGCCqGSM49BAMCA0gA
MEUCIC61UxlKGDwR7sfZQg1yc6Z1qeoYR5TrHhmVekDkvgGSAiEA9kPYPBco3WA2
NIP8b3vQLpJagT1vgmvHzjmDnEWp2HU=
-----END CERTIFICATE-----
";

    fn certificate(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    /// What is said of a server that shows `shown` at a time, while `OURS` is named.
    fn check(shown: &str, name: &'static str, at_secs: u64, want: Result<(), &str>) {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(OURS)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let named = Named::new(vec![certificate(OURS)], Arc::new(roots), provider).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at_secs));
        let name = ServerName::try_from(name).unwrap();
        let judged = named.verify_server_cert(&certificate(shown), &[], &name, &[], at);
        match (judged, want) {
            (Ok(_), Ok(())) => {}
            (Err(err), Err(want)) => assert!(err.to_string().contains(want), "{err}"),
            (judged, want) => panic!("{judged:?}, not {want:?}"),
        }
    }

    #[test]
    fn a_self_signed_certificate_that_is_named_is_trusted_for_its_name_and_time() {
        const WITHIN: u64 = 1_800_000_000;
        check(OURS, "localhost", WITHIN, Ok(()));
        check(OURS, "other", WITHIN, Err("not valid for name"));
        check(OURS, "localhost", 1_700_000_000, Err("not valid yet"));
        check(OURS, "localhost", 2_200_000_000, Err("expired"));
        check(OTHER, "localhost", WITHIN, Err("CaUsedAsEndEntity"));
    }
}
