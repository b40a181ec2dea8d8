//! Compiles `proto/` into Rust, without a protoc on the machine. Beside the messages it
//! generates what the contract declares for every RPC and request, so that no Rust code lists
//! them by hand:
//! - `proto::Rpc`, an enum over all RPCs, with the path and the role of each;
//! - `proto::TenantRequest` for every request with a field `namespace`, which counts the items of
//!   batches (RPCs whose names begin with Batch);
//! - `proto::PagedRequest` for every request with `page_size` and `page_token`;
//! - `proto::Parts` for every message, which finds what a response can do without, and names the
//!   lists of a request.
//!
//! It also lists the migrations, with the text of their statements.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fmt::{self, Write},
    fs, io,
    path::{Path, PathBuf},
};

use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
    method_options::IdempotencyLevel,
};

/// The package of the contract; the other packages of the descriptors are Google's.
const PACKAGE: &str = "bridgebook.v1";

/// The message of the contract that `src/proto/watched_transitions.rs` implements.
const WATCHED: &str = "WatchedTransitions";

/// The services of the contract, in the order in which they are documented.
const FILES: &[&str] = &[
    "bridgebook/v1/workflow_service.proto",
    "bridgebook/v1/fsm_service.proto",
    "bridgebook/v1/bridge_state_service.proto",
    "bridgebook/v1/registry_service.proto",
    "bridgebook/v1/admin_service.proto",
    "bridgebook/v1/server_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=migrations");

    let mut compiler = protox::Compiler::new(["proto"])?;
    let descriptors = compiler
        // Reflection serves the comments: they are the documentation.
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?
        .file_descriptor_set();

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("rpc.rs"), rpc_enum(&descriptors)?)?;
    fs::write(out.join("requests.rs"), request_traits(&descriptors)?)?;
    fs::write(out.join("parts.rs"), part_traits(&descriptors)?)?;
    fs::write(out.join("migrations.rs"), migration_list()?)?;

    tonic_prost_build::configure()
        // A Struct that keeps its first decoding error, see src/domain/json.
        .extern_path(".google.protobuf.Struct", "crate::domain::json::Struct")
        .extern_path(".google.rpc", "::tonic_types::pb")
        // One whose transitions may be encoded already.
        .extern_path(
            format!(".{PACKAGE}.{WATCHED}"),
            format!("crate::proto::v1::{WATCHED}"),
        )
        // Malformed bytes are the caller's fault, see src/rpc/codec.rs.
        .codec_path("crate::rpc::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Returns the source of the list of all migrations, in their order.
fn migration_list() -> Result<String, Box<dyn Error>> {
    let root = env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?;
    let folders = fs::read_dir(Path::new(&root).join("migrations"))?;
    let folders: io::Result<BTreeSet<_>> = folders.map(|entry| Ok(entry?.path())).collect();
    let mut list = String::new();
    for folder in folders? {
        let name = folder.file_name().unwrap_or_default();
        let [up, down] = ["up.sql", "down.sql"].map(|file| folder.join(file));
        let runs_in_transaction = runs_in_transaction(&folder)?;
        write!(
            list,
            "Migration {{ name: {name:?}, up: include_str!({up:?}), down: include_str!({down:?}),
                runs_in_transaction: {runs_in_transaction} }},"
        )?;
    }
    Ok(format!("&[{list}]"))
}

/// Returns whether a migration runs in a transaction. If not, it says so in its metadata.toml, as for
/// the Diesel CLI.
fn runs_in_transaction(folder: &Path) -> Result<bool, Box<dyn Error>> {
    let file = folder.join("metadata.toml");
    match fs::read_to_string(&file) {
        Ok(text) if text.trim() == "run_in_transaction = false" => Ok(false),
        Ok(_) => Err(format!("{}: expected run_in_transaction = false", file.display()).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn our_files(descriptors: &FileDescriptorSet) -> impl Iterator<Item = &FileDescriptorProto> {
    let files = descriptors.file.iter();
    files.filter(|file| file.package() == PACKAGE)
}

/// Returns the source of `proto::Rpc`.
fn rpc_enum(descriptors: &FileDescriptorSet) -> Result<String, fmt::Error> {
    let services: Vec<_> = our_files(descriptors)
        .flat_map(|file| &file.service)
        .collect();
    let (mut variants, mut all, mut paths, mut parses, mut roles) = Default::default();
    let mut streams = String::new();
    for service in services {
        let lists = [
            &mut variants,
            &mut all,
            &mut paths,
            &mut parses,
            &mut roles,
            &mut streams,
        ];
        write_methods(service, lists)?;
    }
    Ok(format!(
        "/// An RPC of the contract; the variants are named by service and method.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rpc {{ {variants} }}

        impl Rpc {{
            /// All RPCs, in the order of the contract.
            pub const ALL: &'static [Self] = &[ {all} ];

            /// Returns the path under which the RPC is called: `/{PACKAGE}.Service/Method`.
            #[must_use]
            pub const fn path(self) -> &'static str {{
                match self {{ {paths} }}
            }}

            /// Returns the RPC that is called under a path. Cheap enough for every call.
            #[must_use]
            pub fn from_path(path: &str) -> Option<Self> {{
                let (service, method) = path.strip_prefix(\"/{PACKAGE}.\")?.split_once('/')?;
                match service {{ {parses} _ => None }}
            }}

            /// Returns the role that the RPC requires. In AdminService that is ADMIN;
            /// elsewhere READER for an RPC whose `idempotency_level` is NO_SIDE_EFFECTS,
            /// and WRITER for every other.
            #[must_use]
            pub const fn role(self) -> crate::domain::role::Role {{
                match self {{ {roles} }}
            }}

            /// Returns whether the RPC answers with a stream, which may have no end.
            #[must_use]
            pub const fn is_stream(self) -> bool {{
                match self {{ {streams} }}
            }}
        }}\n"
    ))
}

/// Writes one service's part of each list of [`rpc_enum`].
fn write_methods(
    service: &ServiceDescriptorProto,
    [variants, all, paths, parses, roles, streams]: [&mut String; 6],
) -> fmt::Result {
    let name = service.name();
    write!(parses, "{name:?} => match method {{")?;
    for method in &service.method {
        let role = role(name, method);
        let is_stream = method.server_streaming();
        let method = method.name();
        let path = format!("{PACKAGE}.{name}/{method}");
        write!(variants, "/// `{path}`.\n{name}{method},")?;
        write!(all, "Self::{name}{method},")?;
        write!(paths, "Self::{name}{method} => \"/{path}\",")?;
        write!(parses, "{method:?} => Some(Self::{name}{method}),")?;
        write!(
            roles,
            "Self::{name}{method} => crate::domain::role::Role::{role},"
        )?;
        write!(streams, "Self::{name}{method} => {is_stream},")?;
    }
    write!(parses, "_ => None }},")
}

fn role(service: &str, method: &MethodDescriptorProto) -> &'static str {
    let options = method.options.clone().unwrap_or_default();
    match (service, options.idempotency_level()) {
        ("AdminService", _) => "Admin",
        (_, IdempotencyLevel::NoSideEffects) => "Reader",
        _ => "Writer",
    }
}

/// Returns the implementations of `proto::TenantRequest` and `proto::PagedRequest`.
fn request_traits(descriptors: &FileDescriptorSet) -> Result<String, fmt::Error> {
    let mut source = String::new();
    for message in our_files(descriptors).flat_map(|file| &file.message_type) {
        let Some(rpc) = message.name().strip_suffix("Request") else {
            continue;
        };
        if has_plain_field(message, "namespace") {
            write_tenant_request(&mut source, message)?;
        }
        if has_field(message, "page_size") && has_field(message, "page_token") {
            write_paged_request(&mut source, message, rpc)?;
        }
    }
    Ok(source)
}

fn has_field(message: &DescriptorProto, name: &str) -> bool {
    message.field.iter().any(|field| field.name() == name)
}

/// A field of a `oneof` does not count: it names a row, not the call.
fn has_plain_field(message: &DescriptorProto, name: &str) -> bool {
    let mut fields = message.field.iter();
    fields.any(|field| field.name() == name && field.oneof_index.is_none())
}

fn write_tenant_request(source: &mut String, message: &DescriptorProto) -> fmt::Result {
    let name = message.name();
    write!(
        source,
        "impl TenantRequest for v1::{name} {{ fn namespace(&self) -> &str {{ &self.namespace }}"
    )?;
    if has_plain_field(message, "correlation_id") {
        write!(
            source,
            "fn correlation_id(&self) -> Option<&str> {{ Some(&self.correlation_id) }}"
        )?;
    }
    if name.starts_with("Batch") {
        let mut fields = message.field.iter();
        let items = fields.find(|field| field.label() == Label::Repeated);
        let items = items.map(FieldDescriptorProto::name).unwrap_or_default();
        write!(
            source,
            "fn item_count(&self) -> usize {{ self.{items}.len() }}"
        )?;
    }
    writeln!(source, "}}")
}

fn write_paged_request(source: &mut String, message: &DescriptorProto, rpc: &str) -> fmt::Result {
    let name = message.name();
    writeln!(
        source,
        "impl PagedRequest for v1::{name} {{
            const RPC: &'static str = {rpc:?};
            fn take_page(&mut self) -> (i32, String) {{
                (std::mem::take(&mut self.page_size), std::mem::take(&mut self.page_token))
            }}
        }}"
    )
}

/// Returns the implementations of `proto::Parts`.
fn part_traits(descriptors: &FileDescriptorSet) -> Result<String, fmt::Error> {
    let messages: Vec<_> = our_files(descriptors)
        .flat_map(|file| &file.message_type)
        .collect();
    let with_parts = messages_with_parts(&messages);
    let mut source = String::new();
    for message in messages {
        let name = message.name();
        if name == WATCHED {
            continue;
        }
        let is_response = name.ends_with("Response");
        write!(
            source,
            "impl Parts for v1::{name} {{ const IS_RESPONSE: bool = {is_response};"
        )?;
        if name.ends_with("Request") {
            write_lists(&mut source, message)?;
        }
        if with_parts.contains(name) {
            write!(
                source,
                "fn visit_parts(&mut self, visit: &mut dyn FnMut(Part<'_>)) {{"
            )?;
            let mut fields: Vec<_> = message.field.iter().collect();
            fields.sort_by_key(|field| field.number());
            for field in fields {
                write_part(&mut source, message, field, &with_parts)?;
            }
            write!(source, "}}")?;
        }
        writeln!(source, "}}")?;
    }
    Ok(source)
}

/// Writes the lists of a request whose items are messages, texts or enums.
fn write_lists(source: &mut String, message: &DescriptorProto) -> fmt::Result {
    let is_list = |field: &&FieldDescriptorProto| {
        let items = matches!(field.r#type(), Type::Message | Type::String | Type::Enum);
        field.label() == Label::Repeated && items
    };
    write!(source, "const LISTS: &'static [List] = &[")?;
    for field in message.field.iter().filter(is_list) {
        let (number, name) = (field.number(), field.name());
        let is_packable = field.r#type() == Type::Enum;
        write!(
            source,
            "List {{ number: {number}, name: {name:?}, is_packable: {is_packable} }},"
        )?;
    }
    write!(source, "];")
}

/// Returns the names of the messages that have parts, or a message within that has.
fn messages_with_parts<'a>(messages: &[&'a DescriptorProto]) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    loop {
        let has_parts = |message: &&&DescriptorProto| {
            has_field(message, "omitted_fields")
                || message.field.iter().any(|field| {
                    field.type_name() == ERROR || found.contains(our_type(field).unwrap_or(""))
                })
        };
        let more = messages.iter().filter(has_parts);
        let more: BTreeSet<_> = more.map(|message| message.name()).collect();
        if more == found {
            return found;
        }
        found = more;
    }
}

const DOCUMENT: &str = ".google.protobuf.Struct";
const ERROR: &str = ".google.rpc.Status";

/// Returns the name of the field's message, if it is one of ours.
fn our_type(field: &FieldDescriptorProto) -> Option<&str> {
    let name = field.type_name().strip_prefix('.')?;
    name.strip_prefix(PACKAGE)?.strip_prefix('.')
}

fn write_part(
    source: &mut String,
    message: &DescriptorProto,
    field: &FieldDescriptorProto,
    with_parts: &BTreeSet<&str>,
) -> fmt::Result {
    let name = field.name();
    let has_omitted = has_field(message, "omitted_fields");
    let is_error = field.type_name() == ERROR;
    let variant = match field.type_name() {
        DOCUMENT if has_omitted => "Document",
        "" if has_omitted && name == "error_message" => "Text",
        _ if is_error || our_type(field).is_some_and(|it| with_parts.contains(it)) => {
            let visit = match is_error {
                true => "visit(Part::Error(it))",
                false => "it.visit_parts(visit)",
            };
            return match (field.oneof_index, field.label()) {
                (Some(index), _) => {
                    let oneof = message.oneof_decl.get(index as usize);
                    let oneof = oneof.map(|it| it.name()).unwrap_or_default();
                    let (module, oneof_type) = (snake(message.name()), camel(oneof));
                    let variant = camel(name);
                    writeln!(
                        source,
                        "if let Some(v1::{module}::{oneof_type}::{variant}(it)) = &mut self.{oneof} {{ {visit} }}"
                    )
                }
                (None, Label::Repeated) => {
                    writeln!(source, "for it in &mut self.{name} {{ {visit} }}")
                }
                (None, _) => writeln!(source, "if let Some(it) = &mut self.{name} {{ {visit} }}"),
            };
        }
        _ => return Ok(()),
    };
    writeln!(
        source,
        "visit(Part::{variant} {{ name: {name:?}, value: &mut self.{name}, omitted: &mut self.omitted_fields }});"
    )
}

/// Converts `RecordStepResult` to `record_step_result`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Converts `some_name` to `SomeName`.
fn camel(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect()
}
