//! The house's arrows, sizes and names, checked from `cargo metadata` and from the sources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate_tests::sandbox::root;

/// The most lines of a file before its tests.
const MAX_LINES: usize = 450;
/// Which rooms each room may see.
const ARROWS: [(&str, &[&str]); 8] = [
    ("tidegate-common", &[]),
    ("tidegate-proto", &["tidegate-common"]),
    ("tidegate-coordinator", &["tidegate-common", "tidegate-proto"]),
    ("tidegate-worker", &["tidegate-common", "tidegate-proto"]),
    ("tidegate", &["tidegate-common", "tidegate-proto", "tidegate-coordinator", "tidegate-worker"]),
    ("tidegate-tests", &["tidegate-common", "tidegate-proto", "tidegate-coordinator", "tidegate-worker", "tidegate"]),
    ("tidegate-bench", &["tidegate-common", "tidegate-proto", "tidegate-coordinator", "tidegate-worker"]),
    ("xtask", &[]),
];
/// Modules of one kind, side by side in a folder, that must not know of each other.
const PEERS: [(&str, &[&str]); 4] = [
    ("coordinator/src/store", &["blobs", "etcd", "memory", "redb"]),
    ("worker/src/source", &["files", "generate", "hybrid", "iceberg", "kafka"]),
    ("worker/src/source", &["csv", "json", "parquet", "text"]),
    ("worker/src/sink", &["rest", "sqlite"]),
];
/// Folders, and the modules of their crate that only the driver may see together with them.
const STRANGERS: [(&str, &[&str]); 6] = [
    ("coordinator/src/core", &["service", "store", "web"]),
    ("coordinator/src/store", &["core", "service", "web"]),
    ("worker/src/source", &["session", "sink", "task", "transform"]),
    ("worker/src/sink", &["session", "source", "task", "transform"]),
    ("worker/src/storage", &["session", "sink", "source", "task", "transform"]),
    ("worker/src/access", &["session", "sink", "source", "storage", "task", "transform"]),
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each member and what it depends on.
fn members() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let name = |of: &serde_json::Value| of["name"].as_str().unwrap().to_owned();
    packages
        .map(|package| (name(package), package["dependencies"].as_array().unwrap().iter().map(name).collect()))
        .collect()
}

/// Every source file of the workspace, with its path from the root.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = metadata()["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_path_buf())
        .collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let place = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((place, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 20, "the walk must find the house");
    found
}

/// The lines before the tests at the end of a file.
fn before_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

fn is_test(place: &str) -> bool {
    place.starts_with("tests/")
        || place.contains("/tests/")
        || place.contains("/benches/")
        || place.ends_with("/tests.rs")
}

#[test]
fn every_room_sees_only_the_rooms_it_may() {
    let members = members();
    let rooms: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    assert_eq!(members.keys().map(String::as_str).collect::<BTreeSet<_>>(), rooms, "a new room needs its arrows here");
    for (room, may_see) in ARROWS {
        for seen in members[room].iter().filter(|seen| rooms.contains(seen.as_str())) {
            assert!(may_see.contains(&seen.as_str()), "{room} must not depend on {seen}");
        }
    }
    assert!(members["xtask"].is_empty(), "xtask is compiled before all others: {:?}", members["xtask"]);
}

#[test]
fn the_vocabulary_knows_no_runtime_no_wire_and_no_rows() {
    let banned = ["tokio", "tonic", "prost", "arrow", "parquet", "datafusion", "object_store", "redb", "iceberg"];
    let found: Vec<_> =
        members()["tidegate-common"].iter().filter(|name| banned.contains(&name.as_str())).cloned().collect();
    assert_eq!(found, [""; 0]);
    let touches: Vec<_> = sources()
        .into_iter()
        // A failpoint notes that it fired, in debug builds: every room has failpoints, and this is below all of them.
        .filter(|(place, _)| place.starts_with("common/src") && !place.ends_with("failpoint.rs"))
        .filter(|(_, text)| {
            ["std::fs", "std::net", "std::process"].iter().any(|word| before_tests(text).contains(word))
        })
        .map(|(place, _)| place)
        .collect();
    assert_eq!(touches, [""; 0], "the vocabulary does no I/O");
}

#[test]
fn the_coordinator_holds_no_rows_and_no_tables() {
    let banned = ["arrow", "parquet", "datafusion", "iceberg"];
    let members = members();
    let found: Vec<_> = members["tidegate-coordinator"].iter().filter(|name| banned.contains(&name.as_str())).collect();
    assert_eq!(found, [""; 0]);
}

/// Which of `modules` the code names right after `prefix`, alone or in a group.
fn named<'m>(text: &str, prefix: &str, modules: &[&'m str]) -> BTreeSet<&'m str> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix).filter(|(at, _)| !code[..*at].ends_with("::")) {
        let rest = &code[at + prefix.len()..];
        let heads: Vec<&str> = match rest.strip_prefix('{').and_then(|group| group.split(';').next()) {
            Some(group) => group.split([',', '{', '}']).map(str::trim).collect(),
            None => vec![rest],
        };
        for head in heads {
            let word = head.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next();
            found.extend(modules.iter().copied().filter(|module| Some(*module) == word));
        }
    }
    found
}

/// The files under `folder`, by their place in it.
fn under<'s>(sources: &'s [(String, String)], folder: &str) -> Vec<(&'s str, &'s str)> {
    let inside = |place: &'s str| place.strip_prefix(folder)?.strip_prefix('/');
    sources.iter().filter_map(|(place, text)| Some((inside(place)?, text.as_str()))).collect()
}

#[test]
fn sources_sinks_and_stores_of_one_kind_do_not_know_of_each_other() {
    let sources = sources();
    for (folder, peers) in PEERS {
        let from_crate = format!("crate::{}::", folder.split_once("/src/").unwrap().1.replace('/', "::"));
        for (place, text) in under(&sources, folder) {
            let me = place.split(['/', '.']).next().unwrap();
            let others: Vec<&str> = peers.iter().copied().filter(|peer| *peer != me).collect();
            let depth = 1 + place.trim_end_matches("/mod.rs").matches('/').count();
            let found = &named(text, &from_crate, &others) | &named(text, &"super::".repeat(depth), &others);
            assert!(!peers.contains(&me) || found.is_empty(), "{folder}/{place} must not know of {found:?}");
        }
    }
}

#[test]
fn only_the_driver_sees_core_store_source_and_sink_together() {
    let sources = sources();
    for (folder, strangers) in STRANGERS {
        for (place, text) in under(&sources, folder) {
            let found = named(text, "crate::", strangers);
            assert!(
                is_test(&format!("{folder}/{place}")) || found.is_empty(),
                "{folder}/{place} must not know of {found:?}"
            );
        }
    }
}

#[test]
fn the_core_is_pure() {
    let banned = [
        "async ",
        ".await",
        "tokio",
        "tonic::",
        "HashMap",
        "HashSet",
        "std::fs",
        "std::net",
        "clock::monotonic",
        "rand::",
    ];
    let sources = sources();
    for (place, text) in
        under(&sources, "coordinator/src/core").into_iter().filter(|(place, _)| !place.contains("tests"))
    {
        let code = before_tests(text).lines().map(|line| line.split("//").next().unwrap_or_default());
        let found: BTreeSet<_> =
            code.flat_map(|line| banned.iter().filter(move |word| line.contains(**word))).collect();
        assert!(found.is_empty(), "coordinator/src/core/{place} must not know of {found:?}");
    }
}

#[test]
fn the_check_of_use_lines_sees_what_it_should() {
    let names = |text, prefix| named(text, prefix, &["redb", "blobs"]).into_iter().collect::<Vec<_>>();
    assert_eq!(names("use super::redb::RedbStore;", "super::"), ["redb"]);
    assert_eq!(names("use crate::store::{Result, blobs::Blobs};", "crate::store::"), ["blobs"]);
    assert_eq!(names("use super::{\n    meta::Txn,\n    blobs::{self},\n};", "super::"), ["blobs"]);
    assert_eq!(names("fn f() { super::super::redb::x() }", "super::super::"), ["redb"]);
    assert_eq!(names("use ::redb::Database; // super::blobs\n/// [`super::blobs`]", "super::"), [""; 0]);
    assert_eq!(names("use super::meta::Txn;\nuse super::redb_format::X;", "super::"), [""; 0]);
}

#[test]
fn no_file_is_a_room_with_two_reasons() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(place, _)| !is_test(place))
        .map(|(place, text)| (place, before_tests(&text).lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(place, lines)| format!("{place}: {lines} lines"))
        .collect();
    assert_eq!(long, [""; 0], "at most {MAX_LINES} lines before the tests");
}

#[test]
fn one_file_alone_does_what_the_compiler_cannot_check() {
    let allowed = ["allow(unsafe_code)", "expect(unsafe_code)"];
    let unsafe_files: Vec<String> = sources()
        .into_iter()
        .filter(|(place, text)| !place.ends_with("architecture.rs") && allowed.iter().any(|word| text.contains(word)))
        .map(|(place, _)| place)
        .collect();
    assert_eq!(unsafe_files, ["worker/src/kafka/native.rs"]);
}

#[test]
fn no_module_is_a_drawer_for_everything() {
    let drawers = ["util", "utils", "helper", "helpers", "misc", "common"];
    let found: Vec<String> = sources()
        .into_iter()
        .map(|(place, _)| place)
        .filter(|place| {
            let module = place.trim_end_matches(".rs").trim_end_matches("/mod");
            drawers.contains(&module.rsplit('/').next().unwrap())
        })
        .collect();
    assert_eq!(found, [""; 0], "a module is named after what it is for");
}
