//! `table snapshots`: what happened to a table, and which backfills did it.

use serde::Serialize;
use tidegate_common::spec::TableName;
use tidegate_worker::failure::Classify;
use tidegate_worker::sink::inspect::{self, SnapshotFacts};
use tidegate_worker::sink::{Catalogs, OutputTarget, SinkError};

use super::{Context, worker};
use crate::args::TableCommand;
use crate::config::DEFAULT_CATALOG;
use crate::exit::{Error, Exit, Outcome};
use crate::figures::{count, second, time};
use crate::output::{self, Document, Format};
use crate::report::short_id;
use crate::view::List;

/// A snapshot; `kind: Snapshot`.
#[derive(Serialize)]
struct Snapshot {
    /// As text: it has more digits than some readers of JSON keep.
    id: String,
    parent: Option<String>,
    committed: String,
    operation: String,
    added_rows: Option<u64>,
    added_files: Option<u64>,
    total_rows: Option<u64>,
    /// Whether the table as it is now descends from it.
    in_ancestry: bool,
    current: bool,
    markers: std::collections::BTreeMap<String, String>,
    committed_through: Option<String>,
}

/// Looks at a table.
pub(super) async fn table(command: TableCommand, context: &Context) -> Outcome {
    let TableCommand::Snapshots { table } = command;
    let target = target(&table)?;
    let catalogs = Catalogs::to_read(worker::catalogs(&context.config));
    let history = inspect::history(&catalogs, &target).await.map_err(|bad| sink_error(&bad))?;
    let newest = history.snapshots.iter().rev();
    let text = match context.format() {
        Format::Table | Format::Wide if history.snapshots.is_empty() => {
            context.say(&format!("{} has no snapshots yet", history.table));
            return Ok(Exit::Done);
        }
        Format::Table | Format::Wide => {
            let header =
                ["SNAPSHOT", "COMMITTED", "OPERATION", "ROWS +", "FILES +", "ROWS", "BY", "COMPLETE THROUGH", ""];
            output::columns(&header, &newest.map(row).collect::<Vec<_>>())
        }
        Format::Name => newest.map(|one| format!("{}\n", one.id)).collect(),
        Format::Jsonl => {
            let lines = newest.map(|one| Document::new("Snapshot", &document(one)).text(Format::Jsonl));
            lines.collect::<Result<String, Error>>()?
        }
        format => {
            let items = newest.map(document).collect();
            Document::new("SnapshotList", &List { items }).text(format)?
        }
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

/// The table that `name` means.
pub(super) fn target(name: &str) -> Result<OutputTarget, Error> {
    let table: TableName = name.parse().map_err(|bad| Error::usage("that is no table").because(bad))?;
    let catalog = table.catalog.clone().unwrap_or_else(|| DEFAULT_CATALOG.to_owned());
    Ok(OutputTarget { catalog, namespace: vec![table.namespace], name: table.name, ..OutputTarget::default() })
}

/// What an error of the sink means here.
pub(super) fn sink_error(bad: &SinkError) -> Error {
    let exit = match bad.class() {
        tidegate_worker::failure::Class::Fatal { exit_code } => Exit::from_code(exit_code).unwrap_or(Exit::Preflight),
        _ => Exit::Failed,
    };
    Error::new(exit, tidegate_worker::failure::chain(bad))
}

fn row(snapshot: &SnapshotFacts) -> Vec<String> {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), count);
    let markers = snapshot.markers.iter().map(|(key, marker)| {
        let id = key.strip_prefix("tidegate.").unwrap_or(key);
        let sequence = marker.split(':').next().unwrap_or(marker);
        format!("{} #{sequence}", short_id(id))
    });
    let by = markers.collect::<Vec<_>>().join(", ");
    let state = match (snapshot.current, snapshot.in_ancestry) {
        (true, _) => "current",
        (false, true) => "",
        (false, false) => "not in the table's ancestry",
    };
    vec![
        snapshot.id.to_string(),
        second(snapshot.at),
        snapshot.operation.clone(),
        number(snapshot.added_rows),
        number(snapshot.added_files),
        number(snapshot.total_rows),
        if by.is_empty() { "-".to_owned() } else { by },
        snapshot.committed_through.clone().unwrap_or_else(|| "-".to_owned()),
        state.to_owned(),
    ]
}

fn document(snapshot: &SnapshotFacts) -> Snapshot {
    Snapshot {
        id: snapshot.id.to_string(),
        parent: snapshot.parent.map(|parent| parent.to_string()),
        committed: time(snapshot.at),
        operation: snapshot.operation.clone(),
        added_rows: snapshot.added_rows,
        added_files: snapshot.added_files,
        total_rows: snapshot.total_rows,
        in_ancestry: snapshot.in_ancestry,
        current: snapshot.current,
        markers: snapshot.markers.clone(),
        committed_through: snapshot.committed_through.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_who_committed_what() {
        let snapshot = SnapshotFacts {
            id: 8_744_120_993_871_203_511,
            parent: None,
            at: 1_767_225_600_000_000,
            operation: "append".to_owned(),
            added_rows: Some(336_776),
            added_files: Some(12),
            removed_rows: Some(0),
            removed_files: Some(0),
            total_rows: None,
            markers: [("tidegate.bf-7k3m9qabcdefghij".to_owned(), "3:0a1b".to_owned())].into(),
            committed_through: Some("2014-01-01T05:00:00Z".to_owned()),
            in_ancestry: true,
            current: true,
        };
        let off = SnapshotFacts { in_ancestry: false, current: false, ..SnapshotFacts::default() };
        insta::assert_snapshot!(output::columns(&["", "", "", "", "", "", "", "", ""], &[row(&snapshot), row(&off)]));
    }

    #[test]
    fn a_table_without_a_catalog_is_in_the_default_one() {
        assert_eq!(target("air.flights").unwrap().full_name(), "default.air.flights");
        assert_eq!(target("lake.air.flights").unwrap().full_name(), "lake.air.flights");
        assert_eq!(target("flights").unwrap_err().exit(), Exit::Usage);
    }
}
