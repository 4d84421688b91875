#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::failure::{Class, Classify};

struct Disk(tempfile::TempDir);

impl Disk {
    fn with(files: &[&str]) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        for file in files {
            let path = disk.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    async fn list(&self, pattern: &str, access: &Access) -> Result<Vec<String>, SourceError> {
        let store = Store::open("s", self.path(pattern).to_str().unwrap(), None, access)?;
        let pins: Vec<FilePin> = store.files().try_collect().await?;
        for pin in &pins {
            let file = store.open_pinned(pin).await?;
            assert_eq!(file.size(), pin.size);
            file.bytes(0..pin.size).await.unwrap();
        }
        let root = self.path("").to_str().unwrap().to_owned();
        Ok(pins.into_iter().map(|pin| pin.path.strip_prefix(&root).unwrap().to_owned()).collect())
    }
}

fn only(folders: &[PathBuf]) -> Access {
    Access { paths: Some(folders.to_vec()), ..Access::none() }
}

#[tokio::test]
async fn files_folders_and_globs_are_listed_by_name_without_what_is_no_data() {
    let disk = Disk::with(&[
        "b/2.csv",
        "b/1.csv",
        "a/x.csv",
        "a/x.json",
        "c.csv",
        "_tmp/x.csv",
        "b/.1.crc",
        "b/_SUCCESS",
        "we ird %41#[x].csv",
    ]);
    let list = async |pattern: &str| disk.list(pattern, &Access::local()).await.unwrap();
    assert_eq!(list("").await, ["a/x.csv", "a/x.json", "b/1.csv", "b/2.csv", "c.csv", "we ird %41#[x].csv"]);
    assert_eq!(list("b").await, ["b/1.csv", "b/2.csv"]);
    assert_eq!(list("c.csv").await, ["c.csv"]);
    assert_eq!(list("*.csv").await, ["c.csv", "we ird %41#[x].csv"]);
    assert_eq!(list("**/*.csv").await, ["a/x.csv", "b/1.csv", "b/2.csv", "c.csv", "we ird %41#[x].csv"]);
    assert_eq!(list("{a,b}/?.csv").await, ["a/x.csv", "b/1.csv", "b/2.csv"]);
    assert_eq!(list("we ird %41#[x].csv").await, ["we ird %41#[x].csv"], "what exists is no glob");
}

#[tokio::test]
async fn what_is_not_there_is_an_error_that_names_it() {
    let disk = Disk::with(&["a/x.csv"]);
    fs::create_dir(disk.path("empty")).unwrap();
    for (pattern, said) in [
        ("a/*.parquet", "matches no file"),
        ("empty", "matches no file"),
        ("gone", "does not exist"),
        ("gone/*.csv", "does not exist"),
    ] {
        let error = disk.list(pattern, &Access::local()).await.unwrap_err();
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 }, "{error:?}");
        assert!(
            error.to_string().contains(said) && error.to_string().contains(pattern.split('/').next().unwrap()),
            "{error}"
        );
    }
    for relative in ["a/x.csv", "ftp://host/x", "s3:///x"] {
        let error = Store::open("s", relative, None, &Access::local()).unwrap_err();
        assert_eq!(error.class(), Class::Fatal { exit_code: 3 }, "{error:?}");
    }
}

#[test]
fn a_store_that_was_left_out_of_the_build_names_its_feature() {
    let azure = "abfss://box@account.dfs.core.windows.net/x/*.parquet";
    for (url, feature, is_built) in
        [("gs://bucket/x", "gcp", cfg!(feature = "gcp")), (azure, "azure", cfg!(feature = "azure"))]
    {
        for access in [Access::local(), Access { endpoints: None, ..Access::none() }] {
            let opened = Store::open("s", url, None, &access);
            assert_eq!(opened.is_ok(), is_built, "{opened:?}");
            let Err(error) = opened else { continue };
            assert_eq!(error.class(), Class::Fatal { exit_code: 3 }, "{error:?}");
            assert!(error.to_string().contains(&format!("--features {feature}")), "{error}");
        }
        let settings = serde_json::from_value(serde_json::json!({"region": "x"})).unwrap();
        let error = Store::open("s", url, Some(&settings), &Access::local()).unwrap_err();
        assert!(error.to_string().contains("`storage` is for s3://"), "{error}");
    }
    if !cfg!(feature = "azure") {
        assert!(Store::open("s", "az://box/x", None, &Access::local()).unwrap_err().to_string().contains("az://"));
    }
}

#[tokio::test]
async fn nothing_outside_the_allowed_folders_is_read_whatever_leads_there() {
    let disk = Disk::with(&["allowed/x.csv", "secret/key.csv"]);
    let access = only(&[disk.path("allowed")]);
    assert_eq!(disk.list("allowed", &access).await.unwrap(), ["allowed/x.csv"]);
    for path in ["secret", "secret/key.csv", "allowed/../secret/key.csv", "gone"] {
        let error = disk.list(path, &access).await.unwrap_err();
        assert!(error.to_string().contains("allow.paths"), "{path}: {error}");
    }
    for (link, target) in [("allowed/file.csv", "secret/key.csv"), ("allowed/folder", "secret")] {
        std::os::unix::fs::symlink(disk.path(target), disk.path(link)).unwrap();
        for pattern in ["allowed", "allowed/**/*.csv", link] {
            let error = disk.list(pattern, &access).await.unwrap_err();
            assert!(error.to_string().contains("a link leads out"), "{pattern}: {error}");
        }
        assert!(disk.list("allowed", &Access::local()).await.is_ok(), "links are followed where all is allowed");
        fs::remove_file(disk.path(link)).unwrap();
    }
    assert!(disk.list("allowed", &Access::none()).await.is_err(), "an empty list allows nothing");

    let store = Store::open("s", disk.path("allowed").to_str().unwrap(), None, &access).unwrap();
    let pin = FilePin { path: disk.path("secret/key.csv").to_str().unwrap().to_owned(), ..Default::default() };
    assert!(matches!(store.open_pinned(&pin).await, Err(SourceError::Denied { .. })), "nor by way of a plan");
}

#[tokio::test]
async fn a_link_back_to_a_folder_above_ends_there() {
    let disk = Disk::with(&["a/b/x.csv"]);
    std::os::unix::fs::symlink(disk.path("a"), disk.path("a/b/loop")).unwrap();
    assert_eq!(disk.list("a", &Access::local()).await.unwrap(), ["a/b/x.csv"]);
}

#[test]
fn an_endpoint_and_a_secret_are_asked_of_the_allow_list() {
    let open = |storage: serde_json::Value, access: &Access| {
        let storage = serde_json::from_value(storage).unwrap();
        Store::open("s", "s3://bucket/a/*.parquet", Some(&storage), access).map(|_| ()).map_err(|e| e.to_string())
    };
    let local = Access::local();
    let mut strict = Access::none();
    let denied = open(serde_json::json!({"endpoint": "https://evil.example:9000"}), &strict).unwrap_err();
    assert!(denied.contains("evil.example:9000") && denied.contains("allow.endpoints"), "{denied}");
    strict.endpoints = Some(vec!["minio:9000".to_owned()]);
    let denied = open(serde_json::json!({"endpoint": "http://minio:9000"}), &strict).unwrap_err();
    assert!(denied.contains("allow_http"), "{denied}");
    let secret = serde_json::json!({"endpoint": "https://minio:9000", "access_key_id": {"from_env": "HOME"}});
    assert!(open(secret, &strict).unwrap_err().contains("allow.env"));
    assert!(open(serde_json::json!({"endpoint": "https://minio:9000"}), &strict).is_ok());
    let unset = serde_json::json!({"access_key_id": {"from_env": "TIDEGATE_NOT_SET"}});
    assert!(open(unset, &local).unwrap_err().contains("TIDEGATE_NOT_SET is not set"));
}
