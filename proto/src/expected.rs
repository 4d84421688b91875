//! What a saved plan expects, held against what is found.
//!
//! The worker asks before it makes or hands on anything, the coordinator before it believes what it is told.

use std::collections::BTreeMap;

use crate::v1;

/// The version of [`v1::ExpectedPlan`] that is written and read.
pub const VERSION: u32 = 1;
/// How many files are named at most when files have changed.
const NAMED: usize = 3;

impl v1::ExpectedSource {
    /// What is not as the plan says; `None` where it is. `pins` are the files that were found, in any order; without
    /// them only counts can be compared.
    pub fn changed(&self, found: &v1::Enumerated, pins: Option<&[&v1::FilePin]>) -> Option<String> {
        if found.digest == self.digest {
            return None;
        }
        let named = pins.filter(|_| !self.pins.is_empty()).and_then(|pins| self.changed_files(pins));
        Some(named.unwrap_or_else(|| self.changed_counts(found)))
    }

    fn changed_counts(&self, found: &v1::Enumerated) -> String {
        let planned = (self.files, self.rows, self.bytes);
        let now = (found.files, found.rows_in_range, found.bytes_in_range);
        let said = |(files, rows, bytes): (u64, u64, u64)| format!("{files} files, {rows} rows, {bytes} bytes");
        if planned == now {
            return format!("there are {} as planned, and they are not the same ones", said(now));
        }
        format!("{} were planned, and {} are there now", said(planned), said(now))
    }

    fn changed_files(&self, pins: &[&v1::FilePin]) -> Option<String> {
        let by_path: BTreeMap<&str, &v1::FilePin> = pins.iter().map(|pin| (pin.path.as_str(), *pin)).collect();
        let planned: BTreeMap<&str, &v1::FilePin> = self.pins.iter().map(|pin| (pin.path.as_str(), pin)).collect();
        let gone = planned.keys().filter(|path| !by_path.contains_key(*path)).map(|path| format!("{path} is gone"));
        let new = by_path.keys().filter(|path| !planned.contains_key(*path)).map(|path| format!("{path} is new"));
        let other = planned.iter().filter(|(path, pin)| by_path.get(*path).is_some_and(|now| now != *pin));
        let all: Vec<String> =
            gone.chain(new).chain(other.map(|(path, _)| format!("{path} was written anew"))).collect();
        let rest = all.len().saturating_sub(NAMED);
        let mut said = all.get(..all.len().min(NAMED))?.join(", ");
        if rest > 0 {
            said.push_str(&format!(", and {rest} more"));
        }
        (!all.is_empty()).then_some(said)
    }

    /// What is not as the plan says of the state that every task is to read; `None` where it is.
    pub fn changed_state(&self, pins: &[v1::SourcePin]) -> Option<String> {
        let now = pins.iter().find(|pin| pin.source == self.name);
        if now == self.state.as_ref() {
            return None;
        }
        let same_table = now.map(|now| now.snapshot) == self.state.as_ref().map(|state| state.snapshot);
        if now.is_some_and(|now| now.kafka.is_some()) && same_table {
            return Some("another range of the topic was pinned".to_owned());
        }
        let said = |pin: Option<&v1::SourcePin>| match pin.map(|pin| pin.snapshot) {
            Some(Some(snapshot)) => format!("snapshot {snapshot}"),
            Some(None) => "an empty table".to_owned(),
            None => "no table".to_owned(),
        };
        let (planned, now) = (said(self.state.as_ref()), said(now));
        Some(match planned == now {
            true => format!("{now} is of another table, or another schema of it"),
            false => format!("{planned} was planned, and {now} is current"),
        })
    }
}

impl v1::ExpectedOutput {
    /// What is not as the plan says of the table; `None` where it is. A table that was to be created and is there
    /// may be this backfill's own, of an earlier try: it passes while nothing was ever committed to it.
    pub fn changed(&self, found: &v1::PreparedOutput) -> Option<String> {
        let is_empty = found.created || found.head_before == 0;
        if self.uuid.is_empty() {
            return (!is_empty)
                .then(|| "it was to be created, and somebody else has made it and written to it".to_owned());
        }
        if found.created || found.uuid != self.uuid {
            return Some("the table that was planned is gone, or another one stands in its place".to_owned());
        }
        if (found.schema_id, found.spec_id) != (self.schema_id, self.spec_id) {
            return Some("its schema or its partitioning was changed".to_owned());
        }
        let rows = self.replaces_rows.filter(|rows| *rows != found.rows_before && found.marker.is_empty())?;
        Some(format!("{rows} rows were to be replaced, and its window holds {} now", found.rows_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(path: &str, modified: i64) -> v1::FilePin {
        v1::FilePin { path: path.to_owned(), size: 1, modified, ..Default::default() }
    }

    fn found(digest: &str, files: u64) -> v1::Enumerated {
        v1::Enumerated { digest: digest.to_owned(), files, ..Default::default() }
    }

    fn expected(pins: &[v1::FilePin]) -> v1::ExpectedSource {
        v1::ExpectedSource { digest: "a".to_owned(), files: 2, pins: pins.to_vec(), ..Default::default() }
    }

    #[test]
    fn a_source_is_what_its_digest_says_and_what_differs_is_named() {
        let files = [pin("gone", 1), pin("rewritten", 1), pin("same", 1)];
        let now = [pin("rewritten", 2), pin("same", 1), pin("new", 1)];
        let now: Vec<&v1::FilePin> = now.iter().collect();
        assert_eq!(expected(&files).changed(&found("a", 9), Some(&now)), None);
        let said = expected(&files).changed(&found("b", 3), Some(&now)).unwrap();
        assert_eq!(said, "gone is gone, new is new, rewritten was written anew");
        let none: [v1::FilePin; 0] = [];
        let many: Vec<v1::FilePin> = (0..9).map(|at| pin(&at.to_string(), 1)).collect();
        let said = expected(&many).changed(&found("b", 0), Some(&[])).unwrap();
        assert_eq!(said, "0 is gone, 1 is gone, 2 is gone, and 6 more");
        for said in [
            expected(&none).changed(&found("b", 3), Some(&now)).unwrap(),
            expected(&files).changed(&found("b", 3), None).unwrap(),
        ] {
            assert_eq!(said, "2 files, 0 rows, 0 bytes were planned, and 3 files, 0 rows, 0 bytes are there now");
        }
        let said = expected(&none).changed(&found("b", 2), None).unwrap();
        assert_eq!(said, "there are 2 files, 0 rows, 0 bytes as planned, and they are not the same ones");
    }

    #[test]
    fn a_state_is_one_table_at_one_snapshot_under_one_schema() {
        let state =
            |snapshot, schema_id| v1::SourcePin { source: "s".to_owned(), snapshot, schema_id, ..Default::default() };
        let of =
            |state: Option<v1::SourcePin>| v1::ExpectedSource { name: "s".to_owned(), state, ..Default::default() };
        assert_eq!(of(None).changed_state(&[]), None);
        assert_eq!(of(Some(state(Some(7), 0))).changed_state(&[state(Some(7), 0)]), None);
        let said = of(Some(state(Some(7), 0))).changed_state(&[state(Some(8), 0)]).unwrap();
        assert_eq!(said, "snapshot 7 was planned, and snapshot 8 is current");
        assert!(of(Some(state(Some(7), 0))).changed_state(&[state(Some(7), 1)]).unwrap().contains("another schema"));
        assert!(of(Some(state(None, 0))).changed_state(&[state(Some(8), 0)]).unwrap().contains("an empty table"));
    }

    /// | planned | found | holds |
    #[test]
    fn an_output_is_the_table_that_was_planned() {
        let table = |uuid: &str, created, head_before| v1::PreparedOutput {
            uuid: uuid.to_owned(),
            created,
            head_before,
            rows_before: 5,
            ..Default::default()
        };
        let to_create = v1::ExpectedOutput::default();
        let is_there = v1::ExpectedOutput { uuid: "u".to_owned(), ..Default::default() };
        let replaces = |rows| v1::ExpectedOutput { replaces_rows: Some(rows), ..is_there.clone() };
        for (planned, now, holds) in [
            (&to_create, table("", true, 0), true),
            (&to_create, table("v", true, 0), true),
            (&to_create, table("v", false, 0), true),
            (&to_create, table("v", false, 3), false),
            (&is_there, table("u", false, 3), true),
            (&is_there, table("v", false, 3), false),
            (&is_there, table("", true, 0), false),
            (&is_there, v1::PreparedOutput { schema_id: 1, ..table("u", false, 3) }, false),
            (&replaces(5), table("u", false, 3), true),
            (&replaces(4), table("u", false, 3), false),
            (&replaces(4), v1::PreparedOutput { marker: "1:x".to_owned(), ..table("u", false, 3) }, true),
        ] {
            assert_eq!(planned.changed(&now).is_none(), holds, "{planned:?} {now:?}");
        }
    }
}
