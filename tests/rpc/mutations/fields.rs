//! Mutations of a request's fields to unexpected values.

use fastrand::Rng;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

/// Changes some fields, at any depth.
pub fn mutate(request: &mut DynamicMessage, rng: &mut Rng) {
    for _ in 0..rng.usize(1..=2) {
        mutate_one(request, rng);
    }
}

fn mutate_one(message: &mut DynamicMessage, rng: &mut Rng) {
    let fields: Vec<_> = message.descriptor().fields().collect();
    let Some(field) = rng.choice(&fields) else {
        return;
    };
    // Rows of other namespaces would use up the ids of the seeds.
    if field.name() == "namespace" && rng.u32(0..4) > 0 {
        return;
    }
    if message.has_field(field) {
        match rng.u32(0..8) {
            0 => return message.clear_field(field),
            // Mostly a part of the field, sometimes the field itself.
            1 => {}
            _ if descend(message.get_field_mut(field), rng) => return,
            _ => {}
        }
    }
    message.set_field(field, odd(field, rng));
}

/// Changes a part of a value. Returns false if the value has no parts.
fn descend(value: &mut Value, rng: &mut Rng) -> bool {
    let inner = match value {
        Value::Message(_) => Some(value),
        Value::List(items) => {
            vary_length(items, rng);
            rng.choice(items)
        }
        Value::Map(entries) => {
            if rng.u32(0..4) == 0
                && let Some(entry) = entries.values().next().cloned()
            {
                entries.insert(MapKey::String(text(rng)), entry);
            }
            rng.choice(entries.values_mut().collect::<Vec<_>>())
        }
        _ => None,
    };
    match inner {
        Some(Value::Message(message)) => {
            mutate_one(message, rng);
            true
        }
        _ => false,
    }
}

/// Changes the length of a list. A batch has at most 1000 items.
fn vary_length(items: &mut Vec<Value>, rng: &mut Rng) {
    let Some(first) = items.first().cloned() else {
        return;
    };
    match rng.u32(0..512) {
        0 => items.resize(rng.usize(990..=1010), first),
        1..64 => items.push(first),
        64..96 => items.clear(),
        _ => {}
    }
}

/// Returns an unusual value of a field's type.
fn odd(field: &FieldDescriptor, rng: &mut Rng) -> Value {
    if field.is_map() {
        return Value::default_value_for_field(field);
    }
    if field.is_list() {
        let items = (0..rng.usize(0..4)).map(|_| odd_single(field, rng));
        return Value::List(items.collect());
    }
    odd_single(field, rng)
}

fn odd_single(field: &FieldDescriptor, rng: &mut Rng) -> Value {
    match field.kind() {
        Kind::String => Value::String(text(rng)),
        Kind::Bool => Value::Bool(rng.bool()),
        Kind::Int32 => Value::I32(*rng.choice(&[i32::MIN, -1, 0, 1, 1001, i32::MAX]).unwrap()),
        Kind::Int64 => Value::I64(int64(rng)),
        Kind::Double => Value::F64(float(rng)),
        Kind::Enum(_) => {
            let numbers = [i32::MIN, -1, 0, 1, 2, 3, 6, 99, i32::MAX];
            Value::EnumNumber(*rng.choice(&numbers).unwrap())
        }
        Kind::Message(kind) => {
            let mut message = DynamicMessage::new(kind.clone());
            match kind.full_name() {
                "google.protobuf.Struct"
                | "google.protobuf.Value"
                | "google.protobuf.ListValue" => nest(&mut message, depth(rng), rng),
                _ => mutate_one(&mut message, rng),
            }
            Value::Message(message)
        }
        kind => panic!("no field of the contract was a {kind:?} so far"),
    }
}

/// Returns a depth near a limit: 32 for nodes, 64 for documents, 100 for protobuf libraries.
fn depth(rng: &mut Rng) -> u32 {
    *rng.choice(&[0, 0, 1, 31, 32, 63, 64, 65, 100, 200])
        .unwrap()
}

/// Fills a document, a value or a list with `levels` levels.
fn nest(message: &mut DynamicMessage, levels: u32, rng: &mut Rng) {
    let kind = message.descriptor();
    let fields: Vec<_> = kind.fields().collect();
    let is_deep = |field: &&FieldDescriptor| field.kind().as_message().is_some();
    let field = fields.iter().filter(is_deep);
    let field = rng.choice(field.collect::<Vec<_>>());
    let Some(field) = field.filter(|_| levels > 0) else {
        return mutate_one_flat(message, rng);
    };
    let of = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    let Kind::Message(of) = of else { return };
    let mut inner = DynamicMessage::new(of);
    nest(&mut inner, levels - 1, rng);
    let inner = Value::Message(inner);
    let value = if field.is_map() {
        Value::Map([(MapKey::String(text(rng)), inner)].into())
    } else if field.is_list() {
        Value::List(vec![inner])
    } else {
        inner
    };
    message.set_field(field, value);
}

/// Sets a field that is not a message, if the message has one.
fn mutate_one_flat(message: &mut DynamicMessage, rng: &mut Rng) {
    let fields: Vec<_> = message.descriptor().fields().collect();
    let flat = fields
        .iter()
        .filter(|field| field.kind().as_message().is_none());
    if let Some(field) = rng.choice(flat.collect::<Vec<_>>()) {
        message.set_field(field, odd(field, rng));
    }
}

fn int64(rng: &mut Rng) -> i64 {
    let numbers = [
        i64::MIN,
        i64::MIN + 1,
        i32::MIN.into(),
        -1,
        0,
        1,
        i32::MAX.into(),
        u32::MAX.into(),
        // The first second of year 1, the last one of year 9999, and their neighbours.
        -62_135_596_801,
        -62_135_596_800,
        253_402_300_799,
        253_402_300_800,
        // 10000 years, and one second more.
        315_576_000_000,
        315_576_000_001,
        i64::MAX - 1,
        i64::MAX,
    ];
    *rng.choice(&numbers).unwrap()
}

fn float(rng: &mut Rng) -> f64 {
    let numbers = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        -0.0,
        0.0,
        1e308,
        9_007_199_254_740_993.0,
        0.1,
    ];
    *rng.choice(&numbers).unwrap()
}

/// Returns text that is hard to store, to compare or to display.
fn text(rng: &mut Rng) -> String {
    let texts = [
        "",
        "\0",
        "a\0b",
        " ",
        "\n",
        "\u{7f}",
        "\u{202e}\u{feff}",
        "\u{10ffff}",
        "Ω\u{301}\u{301}\u{301}",
        "%s%n'; DROP TABLE fsm_machines; --",
        "\\",
        "{}",
        "null",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "FFFFFFFF-FFFF-4FFF-8FFF-FFFFFFFFFFFF",
        "00000000-0000-4000-8000-00000000000ß",
        "bridgebook.registry",
        "workflow",
        "bridge",
        "node",
    ];
    match rng.u32(0..256) {
        // Over PostgreSQL's limit for an index entry.
        0 => "a".repeat(rng.usize(2000..10_000)),
        // Over the limit of error messages.
        1 => "ü".repeat(65_537),
        2 => noise(20_000, rng),
        3..32 => "a".repeat(*rng.choice(&[50, 51, 100, 101, 128, 129, 255, 256]).unwrap()),
        32..64 => noise(40, rng),
        _ => (*rng.choice(&texts).unwrap()).into(),
    }
}

/// Returns random characters.
fn noise(most: usize, rng: &mut Rng) -> String {
    (0..rng.usize(0..most)).map(|_| rng.char(..)).collect()
}
