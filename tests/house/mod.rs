//! The floor plan of `src`: which group may import which, and how long a file may be.
//! docs/ARCHITECTURE.md explains it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bridgebook::proto::Rpc;

/// Maximum length of a file, in lines. A longer one does two things.
const MAX_LINES: usize = 400;

/// What the modules under a path may import of the crate beside themselves; the longest
/// matching path decides. `tests` is what only their unit tests import.
const RULES: &[(&str, &[&str])] = &[
    ("util", &[]),
    ("proto", &["domain", "rpc::codec"]),
    ("domain", &["util"]),
    ("client", &["domain", "proto", "util"]),
    ("ops::metrics", &["proto", "util"]),
    ("ops::spans", &["proto"]),
    ("ops::telemetry", &["ops::spans", "util"]),
    (
        "db",
        &["domain", "ops::metrics", "ops::spans", "proto", "util"],
    ),
    (
        "rpc",
        &[
            "db",
            "domain",
            "ops::metrics",
            "ops::spans",
            "proto",
            "util",
        ],
    ),
    ("rpc::context", &["domain", "util"]),
    (
        "services",
        &[
            "db",
            "domain",
            // AdminService manages tokens, retention policies and quotas; ServerService
            // describes the caller's token.
            "ops::retention::model",
            "ops::metrics",
            "proto",
            "rpc::admit",
            "rpc::auth",
            "rpc::batch_request",
            "rpc::page_token",
            "rpc::quota",
            "rpc::stream_call",
            "rpc::validate",
            "util",
        ],
    ),
    // What runs beside the calls uses the database, and the services' queries.
    ("ops", &["db", "domain", "proto", "services", "util"]),
    ("ops::retention::model", &["db", "domain"]),
    ("embedded", &["util"]),
    (
        "config",
        &[
            "db::address",
            "domain",
            "embedded",
            "ops",
            "rpc::limits",
            "rpc::transport",
            "util",
        ],
    ),
    (
        "server",
        &[
            "config", "db", "domain", "embedded", "ops", "proto", "rpc", "services", "util",
        ],
    ),
    (
        "cli",
        &[
            "client", "config", "db", "domain", "embedded", "ops", "proto", "rpc", "server",
            "services", "util",
        ],
    ),
];

#[test]
fn every_import_follows_the_floor_plan() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let module = module_of(&file);
        if module.is_empty() {
            continue;
        }
        let (own, allowed) = rule(&module);
        for import in imports(&module, &fs::read_to_string(&file).unwrap()) {
            let is_within = |prefix: &&str| starts_with(&import, prefix);
            if !starts_with(&import, own) && !allowed.iter().any(is_within) {
                wrong.push(format!("{module} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_module_imports_itself_through_others() {
    let files = rust_files("src");
    let modules: BTreeSet<_> = files.iter().map(|file| module_of(file)).collect();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &files {
        let module = module_of(file);
        let imports = imports(&module, &fs::read_to_string(file).unwrap());
        let targets = imports.iter().filter_map(|path| enclosing(path, &modules));
        // A module and what it contains are one.
        let is_other = |it: &String| !starts_with(it, &module) && !starts_with(&module, it);
        arrows.insert(module.clone(), targets.filter(is_other).collect());
    }
    for module in &modules {
        let mut reached = BTreeSet::new();
        let mut next: Vec<_> = arrows[module].iter().collect();
        while let Some(target) = next.pop() {
            if reached.insert(target) {
                next.extend(&arrows[target]);
            }
        }
        assert!(
            !reached.contains(module),
            "{module} is in a cycle of imports"
        );
    }
}

/// Returns the module that defines a path.
fn enclosing(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut path = path;
    while !modules.contains(path) {
        (path, _) = path.rsplit_once("::")?;
    }
    Some(path.to_owned())
}

#[test]
fn every_rpc_has_a_test_of_its_own() {
    for rpc in Rpc::ALL {
        let (service, method) = rpc.path().rsplit_once('/').unwrap();
        let service = service.rsplit_once('.').unwrap().1;
        let folder = match service {
            // Beside tests/server, of the process.
            "ServerService" => "server_info".to_owned(),
            service => snake_case(service.trim_end_matches("Service")),
        };
        let test = format!("tests/{folder}/{}", snake_case(method));
        let files = [format!("{test}.rs"), format!("{test}/mod.rs")];
        let exists = files.iter().any(|file| root().join(file).exists());
        assert!(exists, "{} is missing", files[0]);
    }
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[test]
fn no_file_is_longer_than_400_lines() {
    let is_generated = |file: &Path| file.ends_with("src/db/schema.rs");
    let files = rust_files("src")
        .into_iter()
        .filter(|file| !is_generated(file));
    let long = files.filter(|file| fs::read_to_string(file).unwrap().lines().count() > MAX_LINES);
    assert_eq!(long.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

/// The store functions trust a `Namespace`, because only the gate makes one.
#[test]
fn only_the_gate_makes_a_namespace() {
    let makes_one = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        without_unit_tests(&text).contains("Namespace::admitted(")
    };
    let files: Vec<_> = rust_files("src").into_iter().filter(makes_one).collect();
    assert_eq!(files, [root().join("src/rpc/admit.rs")]);
}

/// Returns the longest path of [`RULES`] that a module is under, and what it may import.
fn rule(module: &str) -> (&'static str, &'static [&'static str]) {
    let rules = RULES.iter().filter(|(path, _)| starts_with(module, path));
    let rule = rules.max_by_key(|(path, _)| path.len());
    *rule.unwrap_or_else(|| panic!("{module} is in no group of the floor plan"))
}

fn starts_with(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns the paths that a module imports by `use`, or names in full, outside of its
/// unit tests. `super::` is resolved.
fn imports(module: &str, text: &str) -> BTreeSet<String> {
    let text = without_unit_tests(text);
    let mut paths = BTreeSet::new();
    for part in text.split("crate::").skip(1) {
        let end = part.find([';', '(', ' ', '!']).unwrap_or(part.len());
        let is_tree = part[..end].contains('{');
        let end = if is_tree {
            part.find(';').unwrap_or(end)
        } else {
            end
        };
        flatten("", &part[..end], &mut paths);
    }
    let parents = text.split("use super::").skip(1);
    for tree in parents.filter_map(|part| part.split(';').next()) {
        let (parent, _) = module.rsplit_once("::").unwrap_or(("", module));
        let prefix = if parent.is_empty() {
            String::new()
        } else {
            format!("{parent}::")
        };
        flatten(&prefix, tree, &mut paths);
    }
    paths
}

/// Flattens a use tree: `a::{b, c::{d}}` to `a::b` and `a::c::d`.
fn flatten(prefix: &str, tree: &str, paths: &mut BTreeSet<String>) {
    let tree = tree.trim();
    if let Some(list) = tree.strip_prefix('{') {
        let list = list.strip_suffix('}').unwrap_or(list);
        let mut depth = 0;
        let is_comma = |c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        };
        for part in list.split(is_comma) {
            flatten(prefix, part, paths);
        }
    } else if let Some(at) = tree.find("::{") {
        let (head, list) = tree.split_at(at);
        flatten(&format!("{prefix}{head}::"), &list[2..], paths);
    } else if !tree.is_empty() {
        paths.insert(format!("{prefix}{tree}"));
    }
}

pub fn without_unit_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

/// Returns the module of a file: `rpc::auth` for src/rpc/auth/mod.rs.
fn module_of(file: &Path) -> String {
    let path = file
        .strip_prefix(root().join("src"))
        .unwrap()
        .with_extension("");
    let parts = path.iter().map(|part| part.to_str().unwrap());
    let parts = parts.filter(|part| !["mod", "lib", "main"].contains(part));
    parts.collect::<Vec<_>>().join("::")
}

pub fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
