//! `schema`: JSON Schemas (draft-07), for editors and for programs that read what is printed.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::plan;
use crate::args;
use crate::config;
use crate::exit::{Exit, Outcome};
use crate::output::{self, API_VERSION};
use crate::saved_plan;
use crate::spec_file::Summary;
use crate::view::{Backfill, Event, List};

/// Prints a JSON Schema.
pub(super) fn schema(of: args::Schema) -> Outcome {
    let schema = match of {
        args::Schema::Spec => tidegate_common::spec::json_schema() + "\n",
        args::Schema::Config => config::json_schema(),
        args::Schema::Output => format!("{:#}\n", of_output()),
    };
    output::print(&schema)?;
    Ok(Exit::Done)
}

/// The documents whose form is kept: a schema for each `kind`.
fn of_output() -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let documents = [
        document::<Backfill>("Backfill", &mut generator),
        document::<List<Backfill>>("BackfillList", &mut generator),
        document::<Event>("Event", &mut generator),
        document::<List<Event>>("EventList", &mut generator),
        document::<plan::Document>(saved_plan::KIND, &mut generator),
        document::<Summary>("SpecSummary", &mut generator),
    ];
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "What `-o json` prints",
        "oneOf": documents,
        "definitions": generator.take_definitions(true),
    })
}

fn document<T: JsonSchema>(kind: &str, generator: &mut SchemaGenerator) -> Value {
    let body: Schema = generator.subschema_for::<T>();
    let head = json!({"apiVersion": {"const": API_VERSION}, "kind": {"const": kind}});
    json!({"title": kind, "required": ["apiVersion", "kind"], "properties": head, "allOf": [body]})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of what `document` holds, level by level, held against what the schema says is there.
    fn unknown(document: &Value, schema: &Value, whole: &Value, found: &mut Vec<String>) {
        let named =
            schema.get("$ref").and_then(Value::as_str).and_then(|name| whole.pointer(name.trim_start_matches('#')));
        let schema = named.unwrap_or(schema);
        let either = ["allOf", "anyOf"].iter().filter_map(|key| schema.get(key)).filter_map(Value::as_array).flatten();
        let schemas: Vec<&Value> = std::iter::once(schema).chain(either).collect();
        let resolved: Vec<&Value> = schemas
            .iter()
            .map(|one| {
                one.get("$ref")
                    .and_then(Value::as_str)
                    .map_or(*one, |name| whole.pointer(name.trim_start_matches('#')).unwrap())
            })
            .collect();
        match document {
            Value::Object(keys) => {
                for (key, value) in keys {
                    match resolved.iter().find_map(|one| one.get("properties")?.get(key)) {
                        Some(below) => unknown(value, below, whole, found),
                        None => found.push(key.clone()),
                    }
                }
            }
            Value::Array(items) => {
                let below = resolved.iter().find_map(|one| one.get("items"));
                items.iter().for_each(|item| unknown(item, below.unwrap_or(&Value::Null), whole, found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_key_of_what_is_printed_stands_in_the_schema_of_its_kind() {
        let schema = of_output();
        let of_kind = |kind: &str| {
            let all = schema["oneOf"].as_array().unwrap();
            all.iter().find(|one| one["title"] == kind).unwrap().clone()
        };
        let backfill = Backfill::of(&crate::sample::partial());
        let printed = serde_json::to_value(output::Document::new("Backfill", &backfill)).unwrap();
        let list = List { items: vec![backfill, Backfill::of(&crate::sample::joining())] };
        let listed = serde_json::to_value(output::Document::new("BackfillList", &list)).unwrap();
        for (kind, document) in [("Backfill", printed), ("BackfillList", listed)] {
            let mut found = Vec::new();
            unknown(&document, &of_kind(kind), &schema, &mut found);
            assert_eq!(found, [""; 0], "{kind}");
            assert_eq!(of_kind(kind)["properties"]["kind"]["const"], kind);
        }
        for kind in ["Plan", "Event", "EventList", "SpecSummary"] {
            assert_eq!(of_kind(kind)["allOf"].as_array().unwrap().len(), 1, "{kind}");
        }
    }
}
