#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::store::conformance;

async fn filled(folder: &Path) -> Versioned {
    let store = RedbStore::open(folder).await.unwrap();
    store.transact(Txn::default().put("head", "one").put("big", vec![7; 300_000])).await.unwrap();
    store.get("head").await.unwrap().unwrap()
}

async fn refused(folder: &Path) -> StoreError {
    let before = std::fs::read(folder.join(FILE_NAME)).unwrap();
    let error = RedbStore::open(folder).await.unwrap_err();
    assert!(error.to_string().contains(&folder.join(FILE_NAME).display().to_string()), "{error}");
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert!(before == std::fs::read(folder.join(FILE_NAME)).unwrap(), "the message promises that nothing was changed");
    assert!(!error.is_retryable());
    error
}

#[tokio::test]
async fn the_embedded_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    conformance::contract(&RedbStore::open(folder.path()).await.unwrap()).await;
}

#[test]
fn the_embedded_store_agrees_with_a_plain_map() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = runtime.block_on(RedbStore::open(folder.path())).unwrap();
    conformance::agrees_with_a_map(&store, 24);
}

#[tokio::test]
async fn given_a_store_that_was_closed_when_opened_again_then_values_and_versions_are_there_and_rise() {
    let folder = tempfile::tempdir().unwrap();
    let before = filled(folder.path()).await;
    let store = RedbStore::open(folder.path()).await.unwrap();
    assert_eq!(store.get("head").await.unwrap().unwrap(), before);
    store.transact(Txn::default().if_version("head", before.version).put("head", "two")).await.unwrap();
    assert!(store.get("head").await.unwrap().unwrap().version > before.version);
}

#[tokio::test]
async fn given_a_process_that_died_when_its_file_is_opened_then_every_done_transaction_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(folder.path()).await.unwrap();
    for n in 0..10u8 {
        store.transact(Txn::default().put("count", vec![n]).put(format!("key/{n}"), vec![n; 5000])).await.unwrap();
        let image = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join(FILE_NAME), image.path().join(FILE_NAME)).unwrap();
        let recovered = RedbStore::open(image.path()).await.unwrap();
        assert_eq!(recovered.get("count").await.unwrap(), store.get("count").await.unwrap());
        assert_eq!(recovered.list("key/", None, 99).await.unwrap(), store.list("key/", None, 99).await.unwrap());
        recovered.transact(Txn::default().put("count", "on")).await.expect("work goes on after a crash");
    }
}

#[tokio::test]
async fn given_a_folder_in_use_when_opened_again_then_the_error_names_it_and_is_temporary() {
    let folder = tempfile::tempdir().unwrap();
    let first = RedbStore::open(folder.path()).await.unwrap();
    let error = RedbStore::open(folder.path()).await.unwrap_err();
    assert!(matches!(&error, StoreError::InUse { folder: named } if named == folder.path()));
    assert!(error.is_retryable() && error.to_string().contains(&folder.path().display().to_string()), "{error}");
    first.transact(Txn::default().put("still", "works")).await.unwrap();
    drop(first);
    let second = RedbStore::open(folder.path()).await.unwrap();
    assert!(second.get("still").await.unwrap().is_some());
}

#[tokio::test]
async fn given_many_that_open_a_new_folder_at_once_then_one_holds_it_and_the_others_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let opened = futures::future::join_all((0..8).map(|_| RedbStore::open(folder.path().join("new")))).await;
    assert_eq!(opened.iter().filter(|open| open.is_ok()).count(), 1);
    assert!(opened.iter().flat_map(|open| open.as_ref().err()).all(|error| matches!(error, StoreError::InUse { .. })));
}

#[cfg(unix)]
#[tokio::test]
async fn given_a_new_store_then_only_its_user_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("a/state");
    let _store = RedbStore::open(&state).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join(FILE_NAME))), (0o700, 0o600));
    let left: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [FILE_NAME], "nothing temporary stays");
}

#[tokio::test]
async fn given_a_file_that_is_no_state_when_opened_then_it_is_refused_and_left_as_it_is() {
    for content in [Vec::new(), b"not a database".to_vec(), vec![0; 100_000]] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), content).unwrap();
        assert!(matches!(refused(folder.path()).await, StoreError::Corrupt { .. }));
    }
}

#[tokio::test]
async fn given_a_file_that_was_cut_short_when_opened_then_it_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let path = folder.path().join(FILE_NAME);
    let whole = std::fs::read(&path).unwrap();
    for length in [5, 100, whole.len() / 2, whole.len() - 4096] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = refused(folder.path()).await;
        assert!(matches!(error, StoreError::Corrupt { .. }), "{length} of {} bytes: {error:?}", whole.len());
    }
}

#[tokio::test]
async fn given_a_database_of_something_else_when_opened_then_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Database::create(folder.path().join(FILE_NAME)).unwrap());
    let error = RedbStore::open(folder.path()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { what, .. } if what.contains("no state of Tidegate")), "{error}");
}

#[tokio::test]
async fn given_a_later_format_when_opened_then_both_formats_are_named() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let database = Database::open(folder.path().join(FILE_NAME)).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(ABOUT).unwrap().insert("format", 9).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = RedbStore::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownFormat { found: 9, known: FORMAT, .. }), "{error}");
}

#[tokio::test]
async fn given_a_value_that_rotted_when_read_then_it_is_an_error_and_never_another_value() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let path = folder.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    let run = bytes.windows(64).position(|window| window == [7; 64]).unwrap();
    bytes[run + 1000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let store = RedbStore::open(folder.path()).await.unwrap();
    let error = store.get("big").await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { what, .. } if what.contains("big")), "{error}");
    assert!(store.list("", None, 9).await.is_err());
    assert_eq!(store.get("head").await.unwrap().unwrap().value, "one");
}

#[test]
fn what_the_system_says_is_named_by_its_kind() {
    use std::io::{Error, ErrorKind};
    let path = Path::new("state/state.redb");
    let full = failed(path, ::redb::Error::Io(Error::from(ErrorKind::StorageFull)));
    assert!(matches!(full, StoreError::NoSpace { .. }) && full.is_retryable());
    assert_eq!(full.to_string(), "no space left to write state/state.redb: free some, then run it again");
    let denied = failed(path, ::redb::Error::Io(Error::from(ErrorKind::PermissionDenied)));
    assert!(matches!(denied, StoreError::Denied { .. }) && !denied.is_retryable());
    assert!(denied.to_string().starts_with("permission denied for state/state.redb"));
}

#[tokio::test]
async fn given_a_file_where_the_folder_must_be_when_opened_then_the_error_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("state");
    std::fs::write(&place, b"a file").unwrap();
    let error = RedbStore::open(&place).await.unwrap_err();
    assert!(error.to_string().contains(&place.display().to_string()), "{error}");
}
