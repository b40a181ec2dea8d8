//! Adds a credential to every call.

use std::fmt;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
    service::Interceptor,
};

/// Adds the header `authorization: Bearer …` to every call if there is a credential.
#[derive(Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

/// Hides the credential, which must not get into a log.
impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Bearer(…)"
        } else {
            "Bearer(none)"
        })
    }
}

impl Bearer {
    /// Creates the interceptor for a credential, `bb_<id>_<secret>`.
    ///
    /// # Errors
    /// If the credential contains characters that are invalid in a header.
    pub fn new(credential: &str) -> Result<Self, InvalidMetadataValue> {
        let mut header: MetadataValue<Ascii> = format!("Bearer {credential}").parse()?;
        header.set_sensitive(true);
        Ok(Bearer(Some(header)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", header.clone());
        }
        Ok(request)
    }
}
