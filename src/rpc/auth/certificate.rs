//! The mapping of client certificates to tokens, from the file `--tls-client-tokens`.

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

/// Why the mapping cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CertificateMappingError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A line is malformed.
    #[error(
        "{}:{line}: expected a token id, a space and a certificate subject, for example \
         0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11 CN=node-7,O=Team A",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
    },
    /// Two lines have the same subject.
    #[error("{}:{line}: an earlier line has the same subject; remove one of them", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The line number of the second one, from 1.
        line: usize,
    },
}

/// The tokens of certificate subjects. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CertificateMapping(Arc<RwLock<HashMap<String, TokenId>>>);

impl CertificateMapping {
    /// Loads a file with one line for each subject.
    ///
    /// # Errors
    /// Every [`CertificateMappingError`].
    pub fn load(path: &Path) -> Result<Self, CertificateMappingError> {
        let tokens = parse(path, &file_watch::read(path)?)?;
        Ok(CertificateMapping(Arc::new(RwLock::new(tokens))))
    }

    /// Polls the file and applies its changes. Never completes.
    pub async fn watch(&self, path: &Path) {
        let file = path.to_owned();
        let read = move || parse(&file, &file_watch::read(&file)?);
        let apply = |tokens: &HashMap<String, TokenId>| {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens.clone();
            Ok::<_, CertificateMappingError>(())
        };
        let loaded = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        file_watch::watch("certificate mapping", loaded, read, apply).await;
    }

    /// Returns the token that a subject is mapped to.
    #[must_use]
    pub fn token_of(&self, subject: &str) -> Option<TokenId> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(subject).copied()
    }
}

fn parse(
    path: &Path,
    contents: &[u8],
) -> Result<HashMap<String, TokenId>, CertificateMappingError> {
    let mut tokens = HashMap::new();
    for (contents, line) in contents.split(|byte| *byte == b'\n').zip(1..) {
        let path = || path.to_owned();
        let bad = || CertificateMappingError::Line { path: path(), line };
        let text = str::from_utf8(contents).map_err(|_| bad())?.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (subject, id) = parse_line(text).ok_or_else(bad)?;
        if tokens.insert(subject, id).is_some() {
            return Err(CertificateMappingError::Duplicate { path: path(), line });
        }
    }
    Ok(tokens)
}

fn parse_line(text: &str) -> Option<(String, TokenId)> {
    let (id, subject) = text.split_once(char::is_whitespace)?;
    let id = Uuid::try_parse(id).ok()?;
    // `openssl x509 -subject` prints this prefix.
    let subject = subject.trim();
    let subject = subject.strip_prefix("subject=").unwrap_or(subject);
    // A subject has at least one attribute.
    subject
        .contains('=')
        .then(|| (subject.to_owned(), TokenId(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11";

    fn parse_text(text: &str) -> Result<HashMap<String, TokenId>, CertificateMappingError> {
        parse(Path::new("file"), text.as_bytes())
    }

    #[test]
    fn a_line_maps_a_subject_to_a_token() {
        let text = format!("# nodes\n\n  {ID}  CN=node 7,O=Team A \n{ID}\tsubject=CN=b\n");
        let found = parse_text(&text).unwrap();
        let id = TokenId(Uuid::try_parse(ID).unwrap());
        assert_eq!(
            found,
            [("CN=node 7,O=Team A".into(), id), ("CN=b".into(), id)].into()
        );
    }

    #[test]
    fn an_error_has_the_line_number() {
        for text in [
            format!("#\n{ID}"),
            "#\nCN=a 7".to_owned(),
            format!("#\n{ID} node-7"),
            format!("{ID} CN=a\n{ID} subject=CN=a"),
        ] {
            let error = parse_text(&text).unwrap_err().to_string();
            assert!(error.starts_with("file:2:"), "{error}");
        }
    }
}
