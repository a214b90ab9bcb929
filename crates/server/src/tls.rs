//! TLS, for a server without a TLS-terminating proxy in front.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

/// The paths of a certificate chain and its private key, both in PEM format.
#[derive(Debug, Clone, Deserialize)]
pub struct Tls {
    /// Path of the certificate chain: the server's certificate first, then the intermediate ones.
    pub certificate: PathBuf,
    /// Path of the private key.
    pub key: PathBuf,
}

impl Tls {
    /// Reads the files and returns a TLS acceptor for HTTP/1.1.
    ///
    /// # Errors
    /// A message that names the file and the fault.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let in_file = |path: &PathBuf, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let certificates = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| in_file(&self.certificate, &error))?;
        if certificates.is_empty() {
            return Err(in_file(&self.certificate, &"the file contains no certificate"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| in_file(&self.key, &error))?;
        let mut configuration = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
            .map_err(|error| in_file(&self.certificate, &error))?;
        configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(configuration)))
    }
}
