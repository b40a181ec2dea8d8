//! Certificates for one test.

use std::{fs, net::SocketAddr, path::PathBuf};

use bridgebook::{config::TlsConfig, rpc::transport::tls::TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{cluster::TempDir, temp_dir};

/// A root certificate, and the certificates that it has signed.
pub struct Pki {
    dir: TempDir,
    root: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// Creates a root certificate and a certificate of the service.
    pub fn new() -> Pki {
        let mut params = CertificateParams::default();
        // Another name than that of the certificates, which OpenSSL would take for self-signed.
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = temp_dir();
        fs::create_dir_all(&dir.0).unwrap();
        let pki = Pki { dir, root };
        fs::write(pki.path("root.pem"), pki.root.pem()).unwrap();
        fs::write(pki.path("tokens"), "").unwrap();
        pki.renew();
        pki
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.0.join(name)
    }

    /// Replaces the certificate of the service. Returns the new one as DER.
    pub fn renew(&self) -> Vec<u8> {
        self.renew_until(4096)
    }

    /// The same, with a certificate that expires at the beginning of this year.
    pub fn renew_until(&self, year: i32) -> Vec<u8> {
        let names = vec!["localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.root).unwrap();
        fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        fs::write(self.path("certificate.pem"), certificate.pem()).unwrap();
        certificate.der().to_vec()
    }

    /// Maps the certificates of subjects to tokens.
    pub fn map(&self, tokens: &[(&str, &str)]) {
        let lines = tokens.iter();
        let lines = lines.map(|(subject, id)| format!("{id} {subject}\n"));
        fs::write(self.path("tokens"), lines.collect::<String>()).unwrap();
    }

    /// Returns the settings of the service.
    pub fn config(&self) -> TlsConfig {
        TlsConfig {
            files: TlsFiles {
                certificate: self.path("certificate.pem"),
                key: self.path("key.pem"),
                client_ca: Some(self.path("root.pem")),
            },
            client_tokens: Some(self.path("tokens")),
        }
    }

    /// Returns the client settings that trust the root.
    pub fn trust(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(self.root.pem()))
    }

    /// Returns a client certificate with this common name and organization.
    pub fn identity(&self, common_name: &str, organization: &str) -> Identity {
        let mut params = CertificateParams::default();
        let subject = &mut params.distinguished_name;
        *subject = rcgen::DistinguishedName::new();
        subject.push(DnType::OrganizationName, organization);
        subject.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.root).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }

    pub fn connect(&self, address: SocketAddr) -> Channel {
        self.connect_with(address, self.trust())
    }

    pub fn connect_with(&self, address: SocketAddr, tls: ClientTlsConfig) -> Channel {
        Endpoint::from_shared(format!("https://{address}"))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect_lazy()
    }
}
