//! A query's folder, looked at: which batches are planned and committed, where the next begins, and whether it is sound.

use std::collections::BTreeSet;

use super::folder::Folder;
use super::log::{Offsets, check_commit};
use crate::checkpoint::{CheckpointError, Finding};

/// How many files of a log are read through, from the newest.
const READ_THROUGH: usize = 1_000;

/// The batches that a log has files of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// In `offsets`.
    pub planned: BTreeSet<u64>,
    /// In `commits`.
    pub committed: BTreeSet<u64>,
}

/// A query's folder as it was a moment ago.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Where it is.
    pub folder: Folder,
    /// The query's id; none where `metadata` is missing or has none.
    pub query: Option<String>,
    /// Its batches.
    pub batches: Batches,
    /// The last batch that was planned, and where it ends.
    pub last: Option<(u64, Offsets)>,
    /// Whether the query keeps state between batches.
    pub is_stateful: bool,
}

impl Checkpoint {
    /// Looks at `folder`.
    ///
    /// # Errors
    /// A folder that holds no checkpoint; a file that is not what it should be; a store that does not answer.
    pub async fn load(folder: &Folder) -> Result<Self, CheckpointError> {
        // Commits first: what is planned behind them may grow meanwhile, and never falls behind.
        let committed = numbers(&folder.files("commits").await?);
        let planned = numbers(&folder.files("offsets").await?);
        let metadata = folder.text("metadata").await?;
        if planned.is_empty() && metadata.is_none() {
            let what = "it is no checkpoint of a Spark query: there is neither `metadata` nor a batch in `offsets`";
            return Err(CheckpointError::file(folder.shown(), what));
        }
        let id = metadata.as_deref().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        let query = id.and_then(|document| Some(document.get("id")?.as_str()?.to_owned()));
        let last = match planned.last() {
            Some(last) => Some((*last, offsets(folder, *last).await?)),
            None => None,
        };
        let is_stateful = folder.holds("state").await?;
        Ok(Self { folder: folder.clone(), query, batches: Batches { planned, committed }, last, is_stateful })
    }

    /// The last batch that was planned.
    pub fn planned(&self) -> Option<u64> {
        self.last.as_ref().map(|(last, _)| *last)
    }

    /// The last batch that was committed.
    pub fn committed(&self) -> Option<u64> {
        self.batches.committed.last().copied()
    }

    /// Whether the last batch is yet to be run, or run again.
    pub fn is_pending(&self) -> bool {
        self.planned() != self.committed()
    }

    /// The positions that a batch ends with.
    ///
    /// # Errors
    /// A batch that is not there; a file that is not what it should be; a store that does not answer.
    pub async fn offsets(&self, batch: u64) -> Result<Offsets, CheckpointError> {
        offsets(&self.folder, batch).await
    }

    /// Whether Spark can take it up, and takes up what it left.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn verify(&self) -> Result<Vec<Finding>, CheckpointError> {
        let mut findings = self.of_batches();
        let mut unread = Vec::new();
        for batch in self.batches.planned.iter().rev().take(READ_THROUGH) {
            unread.extend(bad_file(self.offsets(*batch).await.map(|_| ()))?);
        }
        for batch in self.batches.committed.iter().rev().take(READ_THROUGH) {
            let name = format!("commits/{batch}");
            let text = self.folder.text(&name).await?.unwrap_or_default();
            unread.extend(bad_file(check_commit(&text, &self.folder.place(&name)))?);
        }
        let files = self.batches.planned.len().min(READ_THROUGH) + self.batches.committed.len().min(READ_THROUGH);
        let text =
            if unread.is_empty() { format!("{files} files are as Spark writes them") } else { unread.join("; ") };
        findings.push(Finding::new("files", unread.is_empty(), text));
        Ok(findings)
    }

    fn of_batches(&self) -> Vec<Finding> {
        let Batches { planned, .. } = &self.batches;
        let id = self.query.as_ref();
        let text = id.map_or_else(|| "it is missing, or has no id".to_owned(), |id| format!("query {id}"));
        let mut findings = vec![Finding::new("metadata", id.is_some(), text)];
        let (Some(first), Some(last)) = (planned.first(), planned.last()) else {
            let text = "no batch is planned: the query begins anew, at its startingOffsets";
            findings.push(Finding::new("offsets", true, text));
            return findings;
        };
        let all = (*first..=*last).rev().take(READ_THROUGH);
        let missing: Vec<String> =
            all.filter(|batch| !planned.contains(batch)).map(|batch| batch.to_string()).collect();
        let text = if missing.is_empty() {
            format!("batches {first} to {last}, none missing")
        } else {
            format!("batches {first} to {last} lack {}", missing.join(", "))
        };
        findings.push(Finding::new("offsets", missing.is_empty(), text));
        if *last > 0 && !planned.contains(&(last - 1)) {
            let text = format!("Spark cannot begin at batch {last} without {}", last - 1);
            findings.push(Finding::new("offsets", false, text));
        }
        findings.push(self.of_commits(*last));
        findings
    }

    fn of_commits(&self, last: u64) -> Finding {
        let (holds, text) = match self.committed() {
            Some(done) if done > last => (false, format!("batch {done} is committed and was never planned")),
            Some(done) if done == last => (true, format!("batch {done} is committed: the next is {}", done + 1)),
            Some(done) if done + 1 == last => (true, format!("batch {done} is committed: {last} is run again")),
            None if last == 0 => (true, "no batch is committed: 0 is run again".to_owned()),
            Some(done) => {
                (false, format!("batch {done} is committed, and {last} planned: those between are never run"))
            }
            None => (false, format!("no batch is committed, and {last} planned: those before are never run")),
        };
        Finding::new("commits", holds, text)
    }
}

/// What is wrong with a file; what is wrong with the store goes on.
fn bad_file(read: Result<(), CheckpointError>) -> Result<Option<String>, CheckpointError> {
    match read {
        Ok(()) => Ok(None),
        Err(bad @ CheckpointError::File { .. }) => Ok(Some(bad.to_string())),
        Err(other) => Err(other),
    }
}

async fn offsets(folder: &Folder, batch: u64) -> Result<Offsets, CheckpointError> {
    let name = format!("offsets/{batch}");
    let file = folder.place(&name);
    let text = folder.text(&name).await?.ok_or_else(|| CheckpointError::file(&file, "it is not there"))?;
    Offsets::read(&text, &file)
}

/// The names that are batches; others are half written, hidden, or not Spark's.
fn numbers(names: &[String]) -> BTreeSet<u64> {
    let batches = names.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    batches.filter_map(|name| name.parse().ok()).collect()
}
