//! The fields of samples that name rows.

use bridgebook::proto::Rpc;
use serde_json::Value;

use super::{Rows, mark, sample};

/// The outcome of a request that names a row of another tenant.
#[derive(Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The same as that of an id which no row has.
    Unused,
    /// A conflict with this reason, because the id is unique across all tenants.
    Taken(&'static str),
    /// The row, which every tenant may read.
    Public,
}

/// A field of a request that names a row, an entity type or a page.
#[derive(Debug)]
pub struct Field {
    /// The variant of the sample that has the field.
    bits: u8,
    /// Where the field is, as a JSON pointer.
    pointer: String,
    mark: char,
    pub kind: String,
}

impl Field {
    /// Returns the field's path without indexes of lists.
    pub fn path(&self) -> String {
        let parts = self.pointer.split('/').filter(|part| !part.is_empty());
        let names = parts.filter(|part| part.parse::<usize>().is_err());
        names.collect::<Vec<_>>().join(".")
    }

    pub fn foreign(&self) -> Foreign {
        match (self.mark, self.kind.as_str()) {
            ('@', _) => Foreign::Public,
            ('+', "node") => Foreign::Taken("NODE_OWNED"),
            ('+', _) => Foreign::Taken("ID_CONFLICT"),
            _ => Foreign::Unused,
        }
    }

    /// Returns whether the request stores a row under the field's id.
    pub fn is_new(&self) -> bool {
        matches!(self.mark, '+' | '&')
    }

    /// Returns the request of a tenant with this value in the field.
    pub fn request(&self, rpc: Rpc, of: &Rows, value: &str) -> Value {
        let mut request = of.fill(&sample(rpc).request(self.bits));
        *request.pointer_mut(&self.pointer).unwrap() = value.into();
        request
    }
}

/// Returns the fields of an RPC's request that name rows, each once.
pub fn fields(rpc: Rpc) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for field in fields_of_variants(rpc) {
        if fields.iter().all(|known| known.pointer != field.pointer) {
            fields.push(field);
        }
    }
    fields
}

/// Returns the fields of each variant of an RPC's request that name rows.
pub fn fields_of_variants(rpc: Rpc) -> Vec<Field> {
    let sample = sample(rpc);
    let mut fields = Vec::new();
    for bits in sample.each_variant() {
        collect(&sample.request(bits), String::new(), bits, &mut fields);
    }
    fields
}

fn collect(value: &Value, pointer: String, bits: u8, fields: &mut Vec<Field>) {
    match value {
        Value::String(text) => match mark(text) {
            None | Some(('~', _)) | Some((_, "namespace")) => {}
            Some((mark, kind)) => fields.push(Field {
                bits,
                pointer,
                mark,
                kind: kind.to_owned(),
            }),
        },
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                collect(item, format!("{pointer}/{place}"), bits, fields);
            }
        }
        Value::Object(entries) => {
            for (name, entry) in entries {
                collect(entry, format!("{pointer}/{name}"), bits, fields);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
