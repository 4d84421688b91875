//! What holds for every spec and every text.

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::model::*;
use super::tests::GOOD;
use super::*;
use crate::time::{EventTime, Span};

fn no_variables(_: &str) -> Option<String> {
    None
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        "[ -~]{0,12}",
        "[a-z]{1,8}",
        "\\PC{0,8}",
        Just("true".to_owned()),
        Just("~".to_owned()),
        Just("007".to_owned()),
        Just("a\n b: ${X}\n".to_owned())
    ]
    .boxed()
}

fn storage() -> BoxedStrategy<StorageSpec> {
    let secret = || {
        of(prop_oneof![
            "[A-Z_]{1,8}".prop_map(|name| Secret { from_env: Some(name), from_file: None }),
            "[a-z/]{1,8}".prop_map(|path| Secret { from_env: None, from_file: Some(path) }),
        ])
    };
    (of(text()), of(text()), secret(), secret(), any::<bool>())
        .prop_map(|(endpoint, region, id, key, allow_http)| StorageSpec {
            endpoint,
            region,
            access_key_id: id,
            secret_access_key: key,
            session_token: None,
            allow_http,
            path_style: allow_http.then_some(false),
        })
        .boxed()
}

fn kafka() -> BoxedStrategy<KafkaSpec> {
    let offset = || {
        of(prop_oneof![
            Just(OffsetSpec::Earliest),
            Just(OffsetSpec::Latest),
            text().prop_map(OffsetSpec::Timestamp),
            text().prop_map(OffsetSpec::Group),
            btree_map("[0-9]{1,3}", any::<i64>(), 0..3).prop_map(OffsetSpec::Offsets),
        ])
    };
    let scan = of((offset(), offset()).prop_map(|(start, stop)| ScanSpec { start, stop }));
    let rate_limit =
        of((of(text()), any::<Option<u64>>()).prop_map(|(bytes, records)| RateLimitSpec { bytes, records }));
    let registry = of((text(), of(text()), any::<Option<u32>>()).prop_map(|(url, subject, version)| RegistrySpec {
        url,
        subject,
        version,
        user: Some(Secret { from_env: Some("U".to_owned()), from_file: None }),
        password: None,
        allow_http: version.is_some(),
    }));
    let changes = of(any::<bool>().prop_map(|skip| ChangesSpec {
        updates: if skip { UpdatesSpec::Skip } else { UpdatesSpec::After },
        deletes: if skip { DeletesSpec::Skip } else { DeletesSpec::Refuse },
    }));
    let kind = prop_oneof![Just(RecordFormat::Avro), Just(RecordFormat::DebeziumJson), Just(RecordFormat::Raw)];
    let format = (kind, registry, of(text()), changes).prop_map(|(r#type, schema_registry, message, changes)| {
        let (schema, avro_schema, descriptor_set, csv) = (None, message.clone(), None, None);
        RecordFormatSpec { r#type, schema, schema_registry, avro_schema, descriptor_set, message, csv, changes }
    });
    let properties = btree_map("[a-z.]{1,6}", text(), 0..3);
    let secret = "[a-z/]{1,8}".prop_map(|path| Secret { from_env: None, from_file: Some(path) });
    (text(), properties, btree_map("[a-z.]{1,6}", secret, 0..2), scan, format, rate_limit)
        .prop_map(|(topic, properties, secrets, scan, format, rate_limit)| KafkaSpec {
            topic,
            properties,
            secrets,
            scan,
            format,
            rate_limit,
        })
        .boxed()
}

fn hybrid() -> BoxedStrategy<HybridSpec> {
    let iceberg = (text(), any::<Option<i64>>()).prop_map(|(table, snapshot)| IcebergSpec { table, snapshot });
    let switch = of(prop_oneof![
        Just(SwitchSpec::Auto),
        btree_map("[0-9]{1,3}", any::<i64>(), 0..3).prop_map(SwitchSpec::Offsets)
    ]);
    (iceberg, of(text()), of(text()), of(text()), kafka(), switch)
        .prop_map(|(iceberg, partition, offset, timestamp, kafka, switch)| HybridSpec {
            archive: ArchiveSpec { iceberg, partition, offset, topic: None, timestamp, key: None, headers: None },
            live: LiveTopicSpec { kafka },
            switch,
        })
        .boxed()
}

fn source() -> BoxedStrategy<SourceSpec> {
    let format = of(prop_oneof![Just(Format::Parquet), Just(Format::Csv), Just(Format::Json)]);
    let columns = of(vec((text(), text()).prop_map(|(name, r#type)| ColumnSpec { name, r#type }), 0..3));
    let csv =
        of((any::<bool>(), text(), text()).prop_map(|(header, delimiter, null)| CsvSpec { header, delimiter, null }));
    let files = (text(), format, columns, csv, of(storage()))
        .prop_map(|(path, format, schema, csv, storage)| FilesSpec {
            path,
            format,
            compression: None,
            schema,
            csv,
            storage,
        })
        .boxed();
    let iceberg = (text(), any::<Option<i64>>()).prop_map(|(table, snapshot)| IcebergSpec { table, snapshot });
    let generate = (any::<u64>(), any::<u64>(), 0u32..1_000_000, of(text()))
        .prop_map(|(seed, rows, rate, start)| {
            let rate = f64::from(rate) / 64.0;
            GenerateSpec { seed, rows, rate, start, disorder: None, skew: 0.5, keys: 9, splits: None }
        })
        .boxed();
    let bounds = of(prop_oneof![Just(BoundsSpec::Path), text().prop_map(BoundsSpec::Declared)]);
    let unit = of(Just(TimeUnitSpec::Millis));
    let event_time = (of(text()), unit, of(text()), bounds).prop_map(|(column, unit, path, bounds)| EventTimeSpec {
        column,
        unit,
        path,
        time_zone: None,
        bounds,
        out_of_orderness: None,
        on_disorder: None,
    });
    let on_error = of(prop_oneof![Just(OnError::Fail), Just(OnError::DeadLetter)]);
    let dead_letter = of((of(text()), of(text())).prop_map(|(table, limit)| DeadLetterSpec { table, limit }));
    (of(files), of(iceberg), of(kafka()), of(hybrid()), of(generate), of(event_time), on_error, dead_letter)
        .prop_map(|(files, iceberg, kafka, hybrid, generate, event_time, on_error, dead_letter)| SourceSpec {
            files,
            iceberg,
            kafka,
            hybrid,
            generate,
            event_time,
            on_error,
            dead_letter,
        })
        .boxed()
}

fn output() -> BoxedStrategy<OutputSpec> {
    let commit = of((of(text()), of(text())).prop_map(|(every, bytes)| CommitSpec { every, bytes }));
    let mode = prop_oneof![Just(Mode::Append), Just(Mode::ReplaceWindow)];
    let publish = prop_oneof![Just(Publish::Direct), Just(Publish::Staged)];
    let properties = btree_map("[a-z.]{1,6}", text(), 0..3);
    let join = (of(text()), of(any::<u32>()), of(text()), of(text()));
    let join = of(join.prop_map(|(slice, buckets, warm_up, budget)| JoinSpec { slice, buckets, warm_up, budget }));
    let policy = prop_oneof![Just(LatePolicy::SideOutput), Just(LatePolicy::Drop), Just(LatePolicy::Include)];
    let late = of((of(policy), of(text())).prop_map(|(policy, table)| LateSpec { policy, table }));
    (text(), of(text()), vec(text(), 0..3), properties, mode, publish, commit, join, late)
        .prop_map(|(table, sql, partition_by, properties, mode, publish, commit, join, late)| OutputSpec {
            table,
            sql,
            partition_by,
            properties,
            mode,
            publish,
            commit,
            join,
            late,
        })
        .boxed()
}

/// Any spec that the types can hold, sensible or not.
fn spec() -> BoxedStrategy<Spec> {
    let window = of((text(), text(), of(text())).prop_map(|(from, to, time_zone)| WindowSpec { from, to, time_zone }));
    let alignment =
        of((text(), any::<bool>()).prop_map(|(max_drift, allow_wide)| AlignmentSpec { max_drift, allow_wide }));
    let (sources, outputs) = (btree_map("[a-z-]{1,6}", source(), 0..3), btree_map("[a-z-]{1,6}", output(), 0..3));
    let live =
        of((text(), of(text()), of(text())).prop_map(|(group, pause, resume)| LiveSpec { group, pause, resume }));
    (text(), window, alignment, live, sources, outputs)
        .prop_map(|(name, window, alignment, live, sources, outputs)| Spec {
            version: 1,
            kind: Kind::Backfill,
            name,
            window,
            alignment,
            live,
            sources,
            outputs,
        })
        .boxed()
}

/// `${` in every text but references of secrets, escaped.
fn escaped(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::String(text) => text.replace("${", "$${").into(),
        serde_json::Value::Array(items) => items.into_iter().map(escaped).collect(),
        serde_json::Value::Object(entries) => entries.into_iter().map(|(key, value)| (key, escaped(value))).collect(),
        other => other,
    }
}

fn moves_a_terminal(c: char) -> bool {
    c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)
}

/// Reads `text` all the way; only that it ends matters.
fn survive(text: &str) {
    if let Ok(mut document) = Document::read(text, "spec.yaml", &|name| Some(name.to_owned())) {
        let _ = document.absolutise("/specs");
        let _ = document.resolve(1_700_000_000_000_000);
    }
}

proptest! {
    #[test]
    fn a_spec_written_as_yaml_or_json_reads_back(spec in spec()) {
        let value = escaped(serde_json::to_value(&spec).unwrap());
        let yaml = serde_saphyr::to_string(&value).unwrap();
        prop_assert_eq!(&parse(&yaml, "", &no_variables).map_err(|e| format!("{e}\n{yaml}")), &Ok(spec.clone()));
        let json = value.to_string();
        prop_assert_eq!(&parse(&json, "", &no_variables).map_err(|e| format!("{e}\n{json}")), &Ok(spec.clone()));
        prop_assert_eq!(from_canonical_json(&canonical_json(&spec)).unwrap(), spec);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in prop_oneof!["\\PC{0,200}", "[-a-z:{}\\[\\]&*!|>'\"%@`, \n#$]{0,200}"]) {
        survive(&text);
    }

    #[test]
    fn no_mutation_of_a_spec_makes_the_reader_panic(
        at in 0..GOOD.len(),
        cut in 0usize..40,
        put in prop_oneof!["[ -~\n]{0,6}", Just("${".to_owned()), Just("\u{202e}é".to_owned())],
    ) {
        let end = (at + cut).min(GOOD.len());
        survive(&format!("{}{put}{}", &GOOD[..at], &GOOD[end..]));
    }

    #[test]
    fn nothing_that_is_said_moves_a_terminal(text in "[\\x00-\\x1f\u{202a}-\u{202e}a-z:{ ]{0,40}") {
        if let Err(errors) = parse(&format!("version: 1\nname: a\n\"{}\": b", text.escape_unicode()), "s", &no_variables) {
            prop_assert!(errors.iter().all(|error| !error.to_string().contains(moves_a_terminal)));
        }
    }

    #[test]
    fn a_value_of_a_variable_stays_one_value(value in "\\PC{0,40}|[a-z:{}\\[\\]&*!|>'\"\n#$ -]{0,40}") {
        let env = |name: &str| (name == "V").then(|| value.clone());
        let text = GOOD.replace("SELECT * FROM flights WHERE dep_delay > 60", "x ${V} y");
        let read = parse(&text, "", &env).unwrap();
        let mut expected = parse(GOOD, "", &env).unwrap();
        expected.outputs.get_mut("late_flights").unwrap().sql = Some(format!("x {value} y"));
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn a_length_and_a_size_read_back(micros in 0..=10_000 * 365 * 86_400_000_000i64, bytes in 0..i64::MAX as u64) {
        let span = Span::from_micros(micros);
        prop_assert_eq!(parse_span(&quantity::canonical_span(span)).unwrap(), span);
        prop_assert_eq!(parse_bytes(&quantity::canonical_bytes(bytes)).unwrap(), bytes);
    }

    #[test]
    fn a_point_in_time_reads_back(micros in -62_000_000_000_000_000i64..253_000_000_000_000_000) {
        let at = EventTime::from_micros(micros);
        prop_assert_eq!(parse_event_time(&at.to_string(), &zone("Asia/Tokyo").unwrap(), 0).unwrap(), at);
    }

    #[test]
    fn a_rate_survives_the_wire(rate in 1e-6..1e12f64, skew in 1e-6..100.0f64) {
        let text = format!("version: 1\nkind: backfill\nname: g\nsources: {{g: {{generate: {{rows: 10, rate: {rate}, skew: {skew}}}}}}}\noutputs: {{o: {{table: a.b}}}}");
        let resolved = resolve(parse(&text, "", &no_variables).unwrap(), 0).unwrap();
        let sent = from_canonical_json(&canonical_json(&resolved.spec)).unwrap();
        prop_assert_eq!(&backfill_id("d", &resolve(sent, 0).unwrap()), &backfill_id("d", &resolved));
    }
}
