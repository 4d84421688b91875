//! A query's folder, copied out and in, with a list of what was copied.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_common::time::EventTime;

use super::checkpoint::Checkpoint;
use super::folder::Folder;
use crate::checkpoint::backup::versioned;
use crate::checkpoint::{CheckpointError, Finding};

const KIND: &str = "SparkCheckpointBackup";
const VERSION: u32 = 1;
/// The list's name in the copy.
const LIST: &str = "tidegate-backup.json";

/// What a copy of a query's folder holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparkBackup {
    /// What it is: `SparkCheckpointBackup`.
    pub kind: String,
    /// The version of this form; 1.
    pub version: u32,
    /// When it was taken, RFC 3339.
    pub taken_at: String,
    /// The folder that was copied.
    pub folder: String,
    /// The query's id.
    pub query: Option<String>,
    /// The last batch that was planned.
    pub planned: Option<u64>,
    /// The last batch that was committed.
    pub committed: Option<u64>,
    /// Its files.
    pub files: Vec<CopiedFile>,
}

/// A file that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFile {
    /// Its path in the folder.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256, hex.
    pub sha256: String,
}

/// Copies the checkpoint in `from` to the empty folder `to`, at `now_micros`.
///
/// # Errors
/// A folder that is not empty; a query that goes on meanwhile so that the copy is not sound; a store's failure.
pub async fn backup(from: &Folder, to: &Folder, now_micros: i64) -> Result<SparkBackup, CheckpointError> {
    Checkpoint::load(from).await?;
    must_be_empty(to).await?;
    let mut files = Vec::new();
    // Commits before what was planned for them: a running query then leaves a copy that it could have left itself.
    for name in from.below("commits").await? {
        files.extend(copy(from, to, &name).await?);
    }
    let rest = from.below("").await?.into_iter().filter(|name| !name.starts_with("commits/") && name != LIST);
    for name in rest {
        files.extend(copy(from, to, &name).await?);
    }
    let copied = Checkpoint::load(to).await?;
    if let Some(broken) = copied.verify().await?.into_iter().find(|finding| !finding.holds) {
        return Err(CheckpointError::Refused(format!(
            "the copy in {} is not sound ({}: {}): is the query running, or its folder damaged? See `tidegate checkpoint \
             verify`",
            to.shown(),
            broken.of,
            broken.text
        )));
    }
    let backup = SparkBackup {
        kind: KIND.to_owned(),
        version: VERSION,
        taken_at: EventTime::from_micros(now_micros).to_string(),
        folder: from.shown().to_owned(),
        query: copied.query.clone(),
        planned: copied.planned(),
        committed: copied.committed(),
        files,
    };
    // Nothing in it has a key that is no text: it cannot fail.
    let list = serde_json::to_string_pretty(&backup).unwrap_or_default() + "\n";
    to.put(LIST, list.into()).await?;
    Ok(backup)
}

async fn must_be_empty(folder: &Folder) -> Result<(), CheckpointError> {
    if !folder.holds("").await? {
        return Ok(());
    }
    Err(CheckpointError::Refused(format!("{} is not empty: name another folder, or move it away", folder.shown())))
}

/// Copies one file; one that is gone since it was listed is left out.
async fn copy(from: &Folder, to: &Folder, name: &str) -> Result<Option<CopiedFile>, CheckpointError> {
    let Some(content) = from.get(name).await? else { return Ok(None) };
    let copied = CopiedFile { path: name.to_owned(), bytes: content.len() as u64, sha256: hex(&content) };
    to.put(name, content).await?;
    Ok(Some(copied))
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn list(of: &Folder) -> Result<SparkBackup, CheckpointError> {
    let file = of.place(LIST);
    let text = of.text(LIST).await?;
    let text = text.ok_or_else(|| CheckpointError::file(&file, "it is not there: this is no backup"))?;
    let backup: SparkBackup = versioned(&text, &file, KIND, VERSION)?;
    let leaves = |path: &str| path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if let Some(bad) = backup.files.iter().find(|one| leaves(&one.path)) {
        return Err(CheckpointError::file(file, format!("{:?} is no path in the folder", bad.path)));
    }
    Ok(backup)
}

/// Whether the copy in `of` is what was copied.
///
/// # Errors
/// A folder that is no backup; a store's failure.
pub async fn verify_copy(of: &Folder) -> Result<(SparkBackup, Vec<Finding>), CheckpointError> {
    let backup = list(of).await?;
    let mut findings = Vec::new();
    for file in &backup.files {
        let text = match of.get(&file.path).await? {
            Some(content) if hex(&content) == file.sha256 => continue,
            Some(_) => "it is not what was copied",
            None => "it is gone",
        };
        findings.push(Finding::new(&file.path, false, text));
    }
    if findings.is_empty() {
        findings.push(Finding::new("copy", true, format!("{} files are what was copied", backup.files.len())));
        findings.extend(Checkpoint::load(of).await?.verify().await?);
    }
    Ok((backup, findings))
}

/// Copies the backup in `from` to the empty folder `to`.
///
/// # Errors
/// A backup that is not what was copied; a folder that is not empty; a store's failure.
pub async fn restore(from: &Folder, to: &Folder) -> Result<SparkBackup, CheckpointError> {
    let (backup, findings) = verify_copy(from).await?;
    if let Some(broken) = findings.iter().find(|finding| !finding.holds) {
        let what = format!("{}: {}: {}", from.shown(), broken.of, broken.text);
        return Err(CheckpointError::Refused(format!("the backup is not sound: {what}")));
    }
    must_be_empty(to).await?;
    // The folder is a query's once `metadata` is there, and its batches are committed: both come last.
    let (last, first): (Vec<_>, Vec<_>) =
        backup.files.iter().partition(|file| file.path == "metadata" || file.path.starts_with("commits/"));
    for file in first.into_iter().chain(last) {
        copy(from, to, &file.path).await?;
    }
    let restored = Checkpoint::load(to).await?;
    if (restored.planned(), restored.committed()) != (backup.planned, backup.committed) {
        let what = format!("{}: somebody writes there: it is not what was restored", to.shown());
        return Err(CheckpointError::Raced(what));
    }
    Ok(backup)
}
