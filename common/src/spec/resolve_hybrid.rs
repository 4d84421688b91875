//! Checks the hybrid source of a spec.

use super::error::SpecError;
use super::model::{HybridSpec, SwitchSpec};
use super::names::{TableName, check_column};
use super::resolve::Findings;
use super::resolve_kafka::{kafka, offsets};
use super::resolved::{Hybrid, SourceKind};

pub(super) fn hybrid(spec: &mut HybridSpec, now_micros: i64, findings: &mut Findings) -> Option<SourceKind> {
    let table = findings.within("archive", |findings| archive(spec, findings));
    let live = findings.within("live", |findings| {
        findings.within("kafka", |findings| kafka(&mut spec.live.kafka, now_micros, findings))
    });
    // What is left out and what is given as it would be anyway is one meaning, and has one id.
    spec.switch.take_if(|switch| *switch == SwitchSpec::Auto);
    let switch = match &mut spec.switch {
        Some(SwitchSpec::Offsets(given)) => Some(
            findings.within("switch", |findings| findings.within("offsets", |findings| offsets(given, findings)))?,
        ),
        Some(SwitchSpec::Auto) | None => None,
    };
    Some(SourceKind::Hybrid(Box::new(Hybrid { table: table?, archive: spec.archive.clone(), live: live?, switch })))
}

fn archive(spec: &mut HybridSpec, findings: &mut Findings) -> Option<TableName> {
    let archive = &mut spec.archive;
    let table = findings.within("iceberg", |findings| {
        let table: TableName = findings.keep("table", archive.iceberg.table.trim().parse())?;
        archive.iceberg.table = table.to_string();
        Some(table)
    });
    let named = [
        ("partition", &archive.partition),
        ("offset", &archive.offset),
        ("topic", &archive.topic),
        ("timestamp", &archive.timestamp),
        ("key", &archive.key),
        ("headers", &archive.headers),
    ];
    for (at, (key, column)) in named.iter().enumerate() {
        let Some(column) = column else { continue };
        findings.keep(key, check_column(column));
        if let Some((other, _)) = named.iter().take(at).find(|(_, other)| other.as_ref() == Some(column)) {
            findings.add(key, SpecError::new(format!("this column is `{other}` already")));
        }
    }
    table
}
