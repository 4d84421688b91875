//! What a saved plan holds, and what of it is refused.

use tidegate_common::spec::Document;

use super::*;
use crate::style::Paint;

/// A plan of one file and a table that is to be created, as it stands in a file.
fn saved() -> Value {
    let text = "version: 1\nkind: backfill\nname: a\nsources:\n  s: {generate: {rows: 5, rate: 0.1}}\n\
                outputs:\n  o: {table: n.t}\n";
    let resolved = Document::read(text, "spec.yaml", &|_| None).unwrap().resolve(0).unwrap();
    let spec = CheckedSpec { id: spec::backfill_id(DEPLOYMENT, &resolved), resolved };
    let source = SavedSource {
        name: "s".to_owned(),
        pinned: "some files".to_owned(),
        digest: "d".repeat(64),
        files: 1,
        rows: 5,
        bytes: 50,
        range: None,
        archive: Vec::new(),
        state: Some(State { table_uuid: "u".to_owned(), snapshot: Some(i64::MAX.to_string()), schema_id: 1 }),
        pins: vec![pin(&v1::FilePin { path: "/f".to_owned(), size: 50, etag: String::new(), modified: 1_000_001 })],
    };
    let output = SavedOutput {
        name: "o".to_owned(),
        table: "default.n.t".to_owned(),
        table_uuid: None,
        schema_id: 0,
        spec_id: 0,
        replaces_rows: Some(7),
    };
    let mut plan = SavedPlan {
        version: 1,
        id: spec.id.to_string(),
        spec: serde_json::from_str(&spec.json()).unwrap(),
        sources: vec![source],
        outputs: vec![output],
        live_group: None,
        seal: String::new(),
    };
    plan.seal = plan.sealed();
    serde_json::json!({"apiVersion": API_VERSION, "kind": KIND, "slots": 3, "apply": plan})
}

fn refused(text: &str) -> String {
    assert!(is_plan(text), "{text}");
    let refused = read(Path::new("p.json"), text).unwrap_err();
    assert_eq!(refused.exit(), Exit::Preflight);
    let said = refused.render(Paint::plain());
    assert!(said.contains("p.json") && said.contains("hint: make it again"), "{said}");
    said
}

#[test]
fn a_plan_says_what_must_be_there_however_it_is_laid_out() {
    for text in [saved().to_string(), format!("\n  {:#}", saved())] {
        assert!(is_plan(&text));
        let wanted = read(Path::new("p.json"), &text).unwrap();
        assert_eq!(wanted.spec.resolved.spec.name, "a");
        let expected = wanted.expected.unwrap();
        let source = &expected.sources[0];
        assert_eq!((source.rows, source.pins[0].modified), (5, 1_000_001));
        assert_eq!(source.state.as_ref().unwrap().snapshot, Some(i64::MAX));
        let output = &expected.outputs[0];
        assert_eq!((output.uuid.as_str(), output.replaces_rows), ("", Some(7)));
    }
    assert!(!is_plan("version: 1\nkind: backfill\n") && !is_plan("{\"version\": 1, \"kind\": \"backfill\"}"));
}

#[test]
fn a_plan_that_was_edited_damaged_or_is_of_another_release_is_refused() {
    let changed = |pointer: &str, to: Value| {
        let mut plan = saved();
        *plan.pointer_mut(pointer).unwrap() = to;
        refused(&plan.to_string())
    };
    for (pointer, to, said) in [
        ("/apply/spec/name", "b".into(), "its spec is not as it was saved"),
        ("/apply/spec/sources/s/generate/rows", 6.into(), "its spec is not as it was saved"),
        ("/apply/sources/0/pins/0/size", 51.into(), "sources and outputs is not as it was saved"),
        ("/apply/outputs/0/table_uuid", "v".into(), "sources and outputs is not as it was saved"),
        ("/apply/seal", "".into(), "sources and outputs is not as it was saved"),
        ("/apply/outputs", Value::Null, "it is not whole"),
        ("/apply", Value::Null, "it is not whole"),
        ("/apply/version", 2.into(), "of version 2, and this release reads version 1"),
        ("/apiVersion", "tidegate/v2".into(), "this release reads tidegate/v1"),
        ("/kind", OLD_KIND.into(), "of an earlier release"),
    ] {
        let refused = changed(pointer, to);
        assert!(refused.contains(said), "{pointer}: {refused}");
    }
    let whole = saved().to_string();
    let cut = whole.find("\"sources\"").unwrap();
    let kept = format!(
        "{{\"apiVersion\":\"{API_VERSION}\",\"kind\":\"{KIND}\",{}",
        &whole[whole.find("\"apply\"").unwrap()..cut]
    );
    assert!(refused(&kept).contains("damaged"), "cut off in the middle");
}

#[test]
fn a_plan_of_very_many_files_sends_no_pins() {
    let pin = v1::FilePin { path: "p".repeat(1_000), ..Default::default() };
    let source = |pins| v1::ExpectedSource { pins, ..Default::default() };
    let plan = |many| v1::ExpectedPlan { sources: vec![source(vec![pin.clone(); many])], ..Default::default() };
    assert_eq!(without_many_pins(plan(100)).sources[0].pins.len(), 100);
    assert!(without_many_pins(plan(300)).sources[0].pins.is_empty());
}
