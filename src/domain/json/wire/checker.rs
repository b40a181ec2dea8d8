//! Checks the values of a `Struct`, and notes the first fault of the document with a pointer to it.

use std::fmt;

use prost::DecodeError;

use super::{
    super::{JsonError, MAX_BYTES, MAX_DEPTH, Pointer, Size},
    parse::{self, Kind},
};

/// Checks values without building them, because a value of two bytes on the wire takes up to a hundred
/// times as much memory. It stops at the first fault, and once the document is too large it only
/// counts.
#[derive(Debug, Clone)]
pub struct Checker {
    max_depth: usize,
    /// The first fault of the document, and where it is. The callers prepend to the pointer as
    /// they return.
    fault: Option<(Fault, Pointer)>,
    /// Lower bound of the size of the values so far, in bytes of JSON text. Equal keys count each.
    text_bytes: usize,
}

/// A fault of one value.
#[derive(Debug, Clone, Copy)]
enum Fault {
    TooDeep,
    NotFinite,
    Nul,
}

/// Minimum size of a value as JSON text, in bytes: a character and a separator.
const MIN_VALUE_BYTES: usize = 2;

impl Default for Checker {
    fn default() -> Self {
        Checker::to_depth(MAX_DEPTH)
    }
}

impl Checker {
    /// Makes a checker of documents with at most `max_depth` levels.
    pub fn to_depth(max_depth: usize) -> Self {
        Checker {
            max_depth,
            fault: None,
            text_bytes: 0,
        }
    }

    /// Returns the fault of the document, if it has one.
    pub fn error(&self) -> Option<JsonError> {
        match &self.fault {
            Some((fault, at)) => Some(fault.at(at.clone(), self.max_depth)),
            None => self.is_too_large().then_some(JsonError::TooLarge {
                max: MAX_BYTES,
                size: Size::AtLeast(self.text_bytes),
            }),
        }
    }

    /// Returns whether the document has a fault.
    pub fn has_fault(&self) -> bool {
        self.fault.is_some() || self.is_too_large()
    }

    fn is_too_large(&self) -> bool {
        // The last value has no separator.
        self.text_bytes > MAX_BYTES + MIN_VALUE_BYTES
    }

    fn note(&mut self, fault: Fault) {
        self.fault.get_or_insert((fault, Pointer::default()));
    }

    /// Prepends to the pointer of the fault, if there is one.
    fn prepend(&mut self, token: impl fmt::Display) {
        if let Some((_, at)) = &mut self.fault {
            at.prepend(token);
        }
    }

    /// Checks the entries of an object at level `depth`.
    ///
    /// # Errors
    /// If the bytes are not a valid message.
    pub fn object(&mut self, mut bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
        while self.fault.is_none()
            && let Some(entry) = parse::next(&mut bytes)?
        {
            self.entry(entry, depth)?;
        }
        Ok(())
    }

    /// Checks an entry of an object at level `depth`, unless the document has a fault already.
    ///
    /// # Errors
    /// If the bytes are not a valid entry.
    pub fn entry(&mut self, bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
        if self.fault.is_some() {
            return Ok(());
        }
        let (key, value) = parse::entry(bytes)?;
        self.text(key);
        self.value(value, depth)?;
        self.prepend(key);
        Ok(())
    }

    fn array(&mut self, mut bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
        let mut index: usize = 0;
        while self.fault.is_none()
            && let Some(value) = parse::next(&mut bytes)?
        {
            self.value(value, depth)?;
            self.prepend(index);
            index += 1;
        }
        Ok(())
    }

    fn value(&mut self, bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
        if self.fault.is_some() {
            return Ok(());
        }
        self.text_bytes += MIN_VALUE_BYTES;
        match parse::kind(bytes)? {
            Kind::Null | Kind::Bool(_) => {}
            Kind::Number(number) if number.is_finite() => {}
            Kind::Number(_) => self.note(Fault::NotFinite),
            Kind::Text(text) => self.text(text),
            Kind::Object(_) | Kind::Array(_) if depth >= self.max_depth => {
                self.note(Fault::TooDeep);
            }
            Kind::Object(entries) => self.object(entries, depth + 1)?,
            Kind::Array(values) => self.array(values, depth + 1)?,
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.text_bytes += text.len();
        if text.contains('\0') {
            self.note(Fault::Nul);
        }
    }
}

impl Fault {
    fn at(self, at: Pointer, max_depth: usize) -> JsonError {
        match self {
            Fault::TooDeep => JsonError::TooDeep { max: max_depth, at },
            Fault::NotFinite => JsonError::NotFinite(at),
            Fault::Nul => JsonError::Nul(at),
        }
    }
}
