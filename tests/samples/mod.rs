//! One valid request of every RPC. Each test that walks over all RPCs derives its
//! requests from this table, so a new RPC needs one entry here and no other.
//!
//! A request is JSON. A string that begins with a mark stands for a value that the walk
//! chooses:
//!
//! | mark    | value                                                                   |
//! |---------|-------------------------------------------------------------------------|
//! | `$kind` | id of a row that exists; an id of another tenant looks like an unused id |
//! | `$position`, `$origin` | position of a row of the journal, or before all rows        |
//! | `@kind` | id of a row that exists and that every tenant may read                  |
//! | `+kind` | id of a new row, unique across all tenants                              |
//! | `&kind` | id of a new row, unique within the tenant                               |
//! | `~text` | text or name of the caller's choice                                     |
//!
//! `null` marks a field that stays unset in the random requests of `rpc::mutations`,
//! because the request is valid with it only in one of its variants. A namespace and a
//! page token need no entry: [`sample`] adds `$namespace` and `$page`. A quota has one, so
//! that it limits none of the tenants of the walks.

mod admin;
mod bridge_state;
mod field;
mod fsm;
mod registry;
mod rows;
mod server_info;
mod workflow;

pub use field::{Field, Foreign, fields, fields_of_variants};
pub use rows::{Rows, call, origin, position, unused};

use bridgebook::proto::Rpc;
use serde_json::Value;

use crate::support::contract;

/// A valid request of an RPC, its variants, and the facts that walks need.
pub struct Sample {
    request: Value,
    variants: Vec<Variant>,
    /// The kinds of rows that a test makes by this RPC when it sets up a tenant.
    pub makes: &'static [&'static str],
    /// The reason of the error if a `$kind` names no row of the caller. Without one, the
    /// RPC answers with nothing of that row.
    pub missing: Option<&'static str>,
    /// Whether the response has rows of every tenant.
    pub is_public: bool,
    /// Whether callers may name a reserved namespace.
    pub reads_reserved: bool,
}

struct Variant {
    patch: Value,
    /// Whether the variant is valid although no machine exists.
    is_always_valid: bool,
}

impl Sample {
    fn new(request: Value) -> Sample {
        Sample {
            request,
            variants: Vec::new(),
            makes: &[],
            missing: None,
            is_public: false,
            reads_reserved: false,
        }
    }

    /// Adds a variant: the request with these fields instead.
    fn or(self, patch: Value) -> Sample {
        self.or_if(patch, true)
    }

    /// Adds a variant that is valid only where a machine exists.
    fn or_with_machine(self, patch: Value) -> Sample {
        self.or_if(patch, false)
    }

    fn or_if(mut self, patch: Value, is_always_valid: bool) -> Sample {
        self.variants.push(Variant {
            patch,
            is_always_valid,
        });
        self
    }

    fn makes(self, makes: &'static [&'static str]) -> Sample {
        Sample { makes, ..self }
    }

    fn missing(self, reason: &'static str) -> Sample {
        let missing = Some(reason);
        Sample { missing, ..self }
    }

    fn public(self) -> Sample {
        let is_public = true;
        Sample { is_public, ..self }
    }

    fn reads_reserved(self) -> Sample {
        let reads_reserved = true;
        Sample {
            reads_reserved,
            ..self
        }
    }

    /// Returns the request with the variants whose bits are set; a later variant wins.
    pub fn request(&self, bits: u8) -> Value {
        let mut request = self.request.clone();
        for (bit, variant) in self.variants.iter().enumerate() {
            if bits & (1 << bit) != 0 {
                patch(&mut request, &variant.patch);
            }
        }
        request
    }

    /// Returns the bits of the plain request and of each variant by itself.
    pub fn each_variant(&self) -> impl Iterator<Item = u8> + use<> {
        let count = self.variants.len();
        std::iter::once(0).chain((0..count).map(|bit| 1 << bit))
    }

    /// Clears the bits of variants that need a machine.
    pub fn always_valid(&self, bits: u8) -> u8 {
        let variants = self.variants.iter().enumerate();
        let needs_machine = variants.filter(|(_, variant)| !variant.is_always_valid);
        needs_machine.fold(bits, |bits, (bit, _)| bits & !(1 << bit))
    }
}

/// Returns the sample of an RPC.
pub fn sample(rpc: Rpc) -> Sample {
    let sample = workflow::sample(rpc)
        .or_else(|| fsm::sample(rpc))
        .or_else(|| bridge_state::sample(rpc))
        .or_else(|| registry::sample(rpc))
        .or_else(|| admin::sample(rpc))
        .or_else(|| server_info::sample(rpc));
    let mut sample = sample.unwrap_or_else(|| panic!("{rpc:?} has no sample in tests/samples"));
    for (field, mark) in [("namespace", "$namespace"), ("page_token", "$page")] {
        if contract::has_field(rpc, field) && sample.request.get(field).is_none() {
            sample.request[field] = mark.into();
        }
    }
    sample
}

/// Sets fields. A patch of one object for a list changes every item of the list.
fn patch(target: &mut Value, by: &Value) {
    match (target, by) {
        (Value::Object(target), Value::Object(by)) => {
            for (name, by) in by {
                patch(target.entry(name).or_insert(Value::Null), by);
            }
        }
        (Value::Array(items), Value::Object(_)) => {
            items.iter_mut().for_each(|item| patch(item, by));
        }
        (target, by) => *target = by.clone(),
    }
}

/// Returns the mark of a string, and the kind or text behind it.
pub fn mark(text: &str) -> Option<(char, &str)> {
    let mark = text.chars().next()?;
    "$@+&~".contains(mark).then(|| (mark, &text[1..]))
}

/// Returns a request with a value in place of each mark.
pub fn fill(request: &Value, value: &mut impl FnMut(char, &str) -> String) -> Value {
    match request {
        Value::String(text) => match mark(text) {
            Some((mark, kind)) => value(mark, kind).into(),
            None => request.clone(),
        },
        Value::Array(items) => items.iter().map(|item| fill(item, value)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(name, field)| (name.clone(), fill(field, value)));
            Value::Object(fields.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => request.clone(),
    }
}

#[test]
fn every_rpc_has_a_sample_that_encodes() {
    for rpc in Rpc::ALL {
        let sample = sample(*rpc);
        for bits in sample.each_variant() {
            let request = fill(&sample.request(bits), &mut |_, kind| kind.to_owned());
            contract::encode(*rpc, &request);
        }
    }
}
