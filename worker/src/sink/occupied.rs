//! How many rows that others wrote may lie in a backfill's window already, told by manifests alone.
//!
//! Rows that delete files take away are counted, and so are all rows of a file that the window cuts.

use iceberg::spec::{ManifestContentType, ManifestFile};

use super::replace::own_snapshots;
use super::scope::Scope;
use super::window::{Place, Placer};
use super::{LoadedTable, SinkError};

/// Rows of the table's main branch that may lie in the window of `scope` and that its backfill did not write.
pub(super) async fn rows(table: &LoadedTable, scope: &Scope) -> Result<u64, SinkError> {
    let metadata = table.metadata();
    let Some(snapshot) = metadata.current_snapshot() else { return Ok(0) };
    let doing = |of: &str| format!("table {}: read {of}", table.table().identifier());
    let list = table.table().manifest_list_reader(snapshot).load().await;
    let list = list.map_err(SinkError::lake(doing(snapshot.manifest_list())))?;
    let own = own_snapshots(&metadata, &scope.backfill);
    let placer = Placer::new(scope, metadata.current_schema());
    let mut rows = 0;
    for manifest in list.entries().iter().filter(|manifest| manifest.content == ManifestContentType::Data) {
        if let Some(all) = counted(manifest).filter(|all| *all == 0 || placer.is_none() && own.is_empty()) {
            rows += all;
            continue;
        }
        let spec = metadata.partition_spec_by_id(manifest.partition_spec_id);
        if placer.as_ref().zip(spec).is_some_and(|(placer, spec)| placer.spares(manifest, spec)) {
            continue;
        }
        let loaded = manifest.load_manifest(table.io()).await;
        let loaded = loaded.map_err(SinkError::lake(doing(&manifest.manifest_path)))?;
        for entry in loaded.entries().iter().filter(|entry| entry.is_alive()) {
            let is_own = entry.snapshot_id().is_some_and(|snapshot| own.contains(&snapshot));
            let place = placer.as_ref().zip(spec).map(|(placer, spec)| placer.file(entry.data_file(), spec));
            if !is_own && place != Some(Place::Outside) {
                rows += entry.record_count();
            }
        }
    }
    Ok(rows)
}

/// The rows of a manifest, where it states them.
fn counted(manifest: &ManifestFile) -> Option<u64> {
    Some(manifest.added_rows_count? + manifest.existing_rows_count?)
}
