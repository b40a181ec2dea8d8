//! TLS: the server's certificate, and the mapping of client certificates to tokens.

use super::ServeError;
use crate::{
    config::Config,
    rpc::{auth::certificate::CertificateMapping, transport::tls::Tls},
};

/// The state of TLS that the settings name.
pub struct TlsState {
    /// Accepts TLS connections; `None` if TLS is off.
    pub(super) tls: Option<Tls>,
    /// Maps client certificates to tokens.
    pub(super) certificate_mapping: CertificateMapping,
}

impl TlsState {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`ServeError::Tls`] and [`ServeError::CertificateMapping`].
    pub fn load(config: &Config) -> Result<Self, ServeError> {
        let Some(settings) = &config.tls else {
            return Ok(TlsState {
                tls: None,
                certificate_mapping: CertificateMapping::default(),
            });
        };
        let certificate_mapping = settings
            .client_tokens
            .as_deref()
            .map(CertificateMapping::load);
        Ok(TlsState {
            tls: Some(Tls::load(&settings.files)?),
            certificate_mapping: certificate_mapping.transpose()?.unwrap_or_default(),
        })
    }

    /// Reloads the files when they change. Never returns.
    pub(super) async fn watch(&self, config: &Config) {
        let settings = config.tls.as_ref();
        let certificates = async {
            if let (Some(tls), Some(settings)) = (&self.tls, settings) {
                tls.watch(&settings.files).await;
            }
        };
        let client_tokens = async {
            if let Some(path) = settings.and_then(|it| it.client_tokens.as_deref()) {
                self.certificate_mapping.watch(path).await;
            }
        };
        tokio::join!(certificates, client_tokens, std::future::pending::<()>());
    }
}
