#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use object_store::memory::InMemory;

use super::*;

/// The contract, on an empty store.
async fn contract(blobs: &Blobs) {
    assert!(matches!(blobs.get("a/b").await, Err(StoreError::Missing { path }) if path == "a/b"));
    assert_eq!(blobs.list("").await.unwrap(), Vec::<String>::new());

    blobs.put_new("a/b", Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(blobs.get("a/b").await.unwrap(), "one");
    blobs.put_new("a/b", Bytes::from_static(b"one")).await.expect("the same content again is as good");
    let refused = blobs.put_new("a/b", Bytes::from_static(b"two")).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Different { path } if path == "a/b") && !refused.is_retryable());
    assert_eq!(blobs.get("a/b").await.unwrap(), "one", "a blob never changes");

    blobs.put_new("a/c/d=1/e.bin", Bytes::new()).await.unwrap();
    blobs.put_new("ab", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(blobs.get("a/c/d=1/e.bin").await.unwrap(), "", "a blob may be empty");
    assert_eq!(blobs.list("").await.unwrap(), ["a/b", "a/c/d=1/e.bin", "ab"]);
    assert_eq!(blobs.list("a").await.unwrap(), ["a/b", "a/c/d=1/e.bin"], "a folder, not a prefix of letters");
    assert_eq!(blobs.list("a/c").await.unwrap(), ["a/c/d=1/e.bin"]);
    assert_eq!(blobs.list("nowhere").await.unwrap(), Vec::<String>::new());

    blobs.delete("a/b").await.unwrap();
    blobs.delete("a/b").await.expect("what is not there is as good as deleted");
    assert!(matches!(blobs.get("a/b").await, Err(StoreError::Missing { .. })));

    let long = "x".repeat(MAX_NAME_BYTES + 1);
    for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "a/..", ".a", "a b", "a\\b", "a%2e", "a#1", "é", long.as_str()]
    {
        let put = blobs.put_new(bad, Bytes::from_static(b"x")).await;
        assert!(matches!(put, Err(StoreError::BlobPath { .. })), "{bad:?} must be refused");
        assert!(matches!(blobs.get(bad).await, Err(StoreError::BlobPath { .. })), "{bad:?} must be refused");
        assert!(matches!(blobs.delete(bad).await, Err(StoreError::BlobPath { .. })), "{bad:?} must be refused");
    }
}

#[tokio::test]
async fn local_blobs_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    contract(&Blobs::local(folder.path().join("not/yet/there"))).await;
}

#[tokio::test]
async fn object_store_blobs_keep_the_contract() {
    contract(&Blobs::object(Arc::new(InMemory::new()), object_store::path::Path::from("some/root"))).await;
}

#[tokio::test]
async fn given_two_writers_of_one_path_when_they_race_then_one_content_wins_whole() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = format!("race/{round}");
        let puts = (0..4u8).map(|writer| {
            let (blobs, path) = (Blobs::local(folder.path()), path.clone());
            async move { blobs.put_new(&path, Bytes::from(vec![writer; 4096])).await.map(|()| writer) }
        });
        let ended: Vec<_> = futures::future::join_all(puts).await;
        let won: Vec<u8> = ended.iter().filter_map(|end| end.as_ref().ok().copied()).collect();
        assert_eq!(won.len(), 1, "{ended:?}");
        assert!(
            ended.iter().flat_map(|end| end.as_ref().err()).all(|lost| matches!(lost, StoreError::Different { .. }))
        );
        assert_eq!(Blobs::local(folder.path()).get(&path).await.unwrap(), vec![won[0]; 4096]);
    }
}

#[tokio::test]
async fn given_a_torn_file_of_a_crash_when_listed_then_it_is_not_there_and_the_blob_can_be_put() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path());
    blobs.put_new("log/1", Bytes::from_static(b"whole")).await.unwrap();
    std::fs::write(folder.path().join("log/.put-Xy12ab"), b"tor").unwrap();
    std::fs::write(folder.path().join(".state-Xy12ab"), b"tor").unwrap();
    assert_eq!(blobs.list("").await.unwrap(), ["log/1"]);
    blobs.put_new("log/2", Bytes::from_static(b"whole")).await.unwrap();
    assert_eq!(blobs.list("log").await.unwrap(), ["log/1", "log/2"]);
}

#[tokio::test]
async fn given_a_put_that_was_done_or_refused_then_no_temporary_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path());
    blobs.put_new("log/1", Bytes::from_static(b"one")).await.unwrap();
    blobs.put_new("log/1", Bytes::from_static(b"two")).await.unwrap_err();
    let left: Vec<_> = std::fs::read_dir(folder.path().join("log")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["1"]);
}

#[tokio::test]
async fn given_a_folder_that_was_removed_under_us_when_put_then_it_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path().join("blobs"));
    blobs.put_new("log/1", Bytes::from_static(b"one")).await.unwrap();
    std::fs::remove_dir_all(folder.path().join("blobs")).unwrap();
    blobs.put_new("log/1", Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(blobs.list("").await.unwrap(), ["log/1"]);
}

#[tokio::test]
async fn given_a_file_where_a_folder_must_be_when_put_then_the_error_names_the_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("log"), b"a file").unwrap();
    let blobs = Blobs::local(folder.path());
    let error = blobs.put_new("log/1", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(error.to_string().contains(&folder.path().join("log").display().to_string()), "{error}");
    assert!(matches!(blobs.get("log/1").await, Err(StoreError::Missing { .. })));
}
