//! Which token the certificate of a client stands for.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use uuid::Uuid;

use crate::{
    domain::id::TokenId,
    util::file_watch::{self, ReadError},
};

/// Why certificates stand for nobody.
#[derive(Debug, thiserror::Error)]
pub enum CertificateMappingError {
    /// The file can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A line is not as it must be.
    #[error(
        "{}:{line}: must be the id of a token, a space, and the subject of a certificate, \
         like 0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11 CN=node-7,O=Team A",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// Two lines have the same subject.
    #[error("{}:{line}: a line before it has the same subject", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The second line, counted from 1.
        line: usize,
    },
}

/// The tokens of subjects, as a file has them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CertificateMapping(Arc<RwLock<HashMap<String, TokenId>>>);

impl CertificateMapping {
    /// Reads a file: a line for each subject.
    ///
    /// # Errors
    /// Every [`CertificateMappingError`].
    pub fn load(path: &Path) -> Result<Self, CertificateMappingError> {
        let identities = parse(path, &file_watch::read(path)?)?;
        Ok(CertificateMapping(Arc::new(RwLock::new(identities))))
    }

    /// Reads the file again and again, for ever.
    pub async fn watch(&self, path: &Path) {
        let file = path.to_owned();
        let read = move || Ok(file_watch::read(&file)?);
        let apply = |contents: &Vec<u8>| {
            let identities = parse(path, contents)?;
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = identities;
            Ok::<_, CertificateMappingError>(())
        };
        file_watch::watch("the tokens of certificates", read, apply).await;
    }

    /// The token that a subject stands for.
    #[must_use]
    pub fn token_of(&self, subject: &str) -> Option<TokenId> {
        let identities = self.0.read().unwrap_or_else(PoisonError::into_inner);
        identities.get(subject).copied()
    }
}

fn parse(
    path: &Path,
    contents: &[u8],
) -> Result<HashMap<String, TokenId>, CertificateMappingError> {
    let mut identities = HashMap::new();
    for (contents, line) in contents.split(|byte| *byte == b'\n').zip(1..) {
        let path = || path.to_owned();
        let bad = || CertificateMappingError::Line { path: path(), line };
        let text = str::from_utf8(contents).map_err(|_| bad())?.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (subject, id) = parse_line(text).ok_or_else(bad)?;
        if identities.insert(subject, id).is_some() {
            return Err(CertificateMappingError::Duplicate { path: path(), line });
        }
    }
    Ok(identities)
}

fn parse_line(text: &str) -> Option<(String, TokenId)> {
    let (id, subject) = text.split_once(char::is_whitespace)?;
    let id = Uuid::try_parse(id).ok()?;
    // As openssl prints it.
    let subject = subject.trim();
    let subject = subject.strip_prefix("subject=").unwrap_or(subject);
    // A subject without an attribute stands for nobody.
    subject
        .contains('=')
        .then(|| (subject.to_owned(), TokenId(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11";

    fn identities(text: &str) -> Result<HashMap<String, TokenId>, CertificateMappingError> {
        parse(Path::new("file"), text.as_bytes())
    }

    #[test]
    fn a_line_has_an_id_and_a_subject() {
        let text = format!("# nodes\n\n  {ID}  CN=node 7,O=Team A \n{ID}\tsubject=CN=b\n");
        let found = identities(&text).unwrap();
        let id = TokenId(Uuid::try_parse(ID).unwrap());
        assert_eq!(
            found,
            [("CN=node 7,O=Team A".into(), id), ("CN=b".into(), id)].into()
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        for text in [
            format!("#\n{ID}"),
            "#\nCN=a 7".to_owned(),
            format!("#\n{ID} node-7"),
            format!("{ID} CN=a\n{ID} subject=CN=a"),
        ] {
            let error = identities(&text).unwrap_err().to_string();
            assert!(error.starts_with("file:2:"), "{error}");
        }
    }
}
