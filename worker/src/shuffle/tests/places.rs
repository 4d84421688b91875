//! Where objects stand, and how they go.

use std::fs;
use std::path::PathBuf;

use super::*;

fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

#[tokio::test]
async fn an_object_is_named_when_it_is_closed_and_nothing_else_is_left() {
    let (folder, store) = on_disk();
    let none = writer(&store, "0/orders/a-1", 4);
    assert_eq!(none.close().await.unwrap(), None);
    assert!(!folder.path().join("shuffle").exists(), "not even the folder, where no row was written");

    let mut left = writer(&store, "0/orders/a-1", 4);
    left.write(&rows(&[(1_000, "a")])).await.unwrap();
    assert!(left.buffered_bytes() > 0 && left.bytes_written() == 0);
    left.flush().await.unwrap();
    assert!(left.buffered_bytes() == 0 && left.bytes_written() > 0);
    let drafts = files_below(folder.path());
    assert!(drafts.len() == 1 && drafts[0].extension().unwrap() == "draft", "{drafts:?}");
    drop(left);
    assert!(files_below(folder.path()).is_empty(), "what is dropped leaves nothing");

    let object = written(&store, "0/orders/a-1", &[(1_000, "a"), (1_025, "b")]).await;
    let path = folder.path().join("shuffle/bf-abcdefghijklmnop/0/orders/a-1.shuffle");
    assert_eq!(files_below(folder.path()), std::slice::from_ref(&path));
    assert_eq!(object.path, "bf-abcdefghijklmnop/0/orders/a-1.shuffle");
    assert_eq!((object.rows, object.first_cell, object.last_cell), (2, 0, 2));
    assert_eq!(object.bytes, fs::metadata(&path).unwrap().len());

    let mut again = writer(&store, "0/orders/a-1", 4);
    again.write(&rows(&[(1_000, "other")])).await.unwrap();
    assert!(matches!(again.close().await, Err(ShuffleError::Io { .. })), "a name is used once");
    assert_eq!(files_below(folder.path()), [path]);
    assert_eq!(count(&read(&store, &object, 4).await.unwrap()), 2);
}

#[tokio::test]
async fn deleting_removes_what_it_names_and_what_is_gone_is_no_error() {
    let (_folder, disk) = on_disk();
    for store in [disk, in_memory()] {
        let [one, two] = [written(&store, "0/o/a-1", &[(1, "a")]).await, written(&store, "0/o/a-2", &[(1, "b")]).await];
        for _ in 0..2 {
            store.delete(&backfill(), std::slice::from_ref(&one.path)).await.unwrap();
        }
        let error = Segments::open(&store, &one).await.unwrap_err();
        assert!(matches!(error, ShuffleError::Missing { .. }) && error.class() == Class::Retryable, "{error:?}");
        assert!(error.to_string().contains(&one.path) && error.to_string().contains("of all workers the same one?"));
        assert_eq!(count(&read(&store, &two, 4).await.unwrap()), 1);
        store.delete(&backfill(), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_path_that_leads_elsewhere_is_refused_and_then_nothing_is_removed() {
    let (folder, disk) = on_disk();
    let outside = folder.path().join("x.shuffle");
    fs::write(&outside, "mine").unwrap();
    for store in [disk, in_memory()] {
        let object = written(&store, "0/o/a-1", &[(1, "a")]).await;
        for hostile in [
            "",
            "../x.shuffle",
            "/etc/passwd",
            "bf-abcdefghijklmnop",
            "bf-abcdefghijklmnop/",
            "bf-abcdefghijklmnop/../../x.shuffle",
            "bf-abcdefghijklmnop/0/../../../x.shuffle",
            "bf-abcdefghijklmnop/./x.shuffle",
            "bf-abcdefghijklmnop//x.shuffle",
            "bf-abcdefghijklmnop/..\\x.shuffle",
            "bf-abcdefghijklmnop/%2e%2e/x.shuffle",
            "bf-abcdefghijklmnop/x.shuffle\0",
            "bf-abcdefghijklmnop/0/x.draft",
            "bf-abcdefghijklmnopq/0/x.shuffle",
            "bf-aaaaaaaaaaaaaaaa/0/x.shuffle",
            &format!("bf-abcdefghijklmnop/{}.shuffle", "x".repeat(300)),
        ] {
            let paths = [object.path.clone(), hostile.to_owned()];
            let error = store.delete(&backfill(), &paths).await.unwrap_err();
            assert!(matches!(error, ShuffleError::Path { .. }) && error.class() == Class::Poison, "{hostile}: {error}");
            let pointed = ShuffleObject { path: hostile.to_owned(), ..object.clone() };
            let other = hostile.starts_with("bf-aaaaaaaaaaaaaaaa");
            let opened = Segments::open(&store, &pointed).await.unwrap_err();
            assert!(other || matches!(opened, ShuffleError::Path { .. }), "{hostile}: {opened}");
        }
        for name in ["../x", "/x", "", "0/.x/y", "0/o/a b"] {
            let writer = ShuffleWriter::create(&store, &backfill(), name, schema(), &[1], slices(), 4);
            assert!(matches!(writer.err(), Some(ShuffleError::Path { .. })), "{name}");
        }
        assert_eq!(count(&read(&store, &object, 4).await.unwrap()), 1);
    }
    assert_eq!(fs::read_to_string(outside).unwrap(), "mine");
}

#[tokio::test]
async fn all_of_a_backfill_goes_and_nothing_of_another() {
    let (folder, disk) = on_disk();
    let other: BackfillId = "bf-abcdefghijklmnoq".parse().unwrap();
    for store in [disk, in_memory()] {
        store.delete_all(&backfill()).await.unwrap();
        for name in ["0/o/a-1", "0/p/a-1", "1/o/b-7"] {
            written(&store, name, &[(1, "a")]).await;
        }
        let mut theirs = ShuffleWriter::create(&store, &other, "0/o/a-1", schema(), &[1], slices(), 4).unwrap();
        theirs.write(&rows(&[(1, "a")])).await.unwrap();
        let theirs = theirs.close().await.unwrap().unwrap();
        let mine = folder.path().join("shuffle/bf-abcdefghijklmnop");
        if mine.exists() {
            fs::write(mine.join("0/o/.dead.draft"), "half an object").unwrap();
            std::os::unix::fs::symlink(folder.path(), mine.join("0/out")).unwrap();
            fs::write(folder.path().join("kept"), "").unwrap();
        }
        store.delete_all(&backfill()).await.unwrap();
        assert!(!mine.exists());
        let gone = ShuffleObject { path: "bf-abcdefghijklmnop/0/p/a-1.shuffle".to_owned(), ..theirs.clone() };
        assert!(matches!(Segments::open(&store, &gone).await, Err(ShuffleError::Missing { .. })));
        assert_eq!(count(&read(&store, &theirs, 4).await.unwrap()), 1);
        store.delete_all(&backfill()).await.unwrap();
    }
    assert!(folder.path().join("kept").exists(), "a link is removed, not what it leads to");
}

#[test]
fn a_location_is_a_folder_or_a_bucket() {
    for good in ["/var/lib/shuffle", "file:///var/lib/shuffle", "shuffle", "s3://bucket", "s3://bucket/a/b/"] {
        let store = ShuffleStore::open(good).unwrap();
        assert!(format!("{store:?}").contains(good));
    }
    for (bad, said) in [("", "empty"), ("s3://", "no bucket"), ("s3:///x", "no bucket"), ("ftp://host/x", "ftp://")] {
        let error = ShuffleStore::open(bad).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.class(), Class::Fatal { exit_code: 3 });
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_this_workers_trouble() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let store = ShuffleStore::open(folder.path().join("file").to_str().unwrap()).unwrap();
    let mut writer = writer(&store, "0/o/a-1", 4);
    writer.write(&rows(&[(1, "a")])).await.unwrap();
    let error = writer.flush().await.unwrap_err();
    assert!(matches!(error, ShuffleError::Io { .. }) && !error.place().is_empty(), "{error:?}");
    assert!(writer.close().await.is_err());
}
