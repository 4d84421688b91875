#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use serde_json::json;
use tidegate_common::spec::model::StorageSpec;

use super::*;
use crate::access::Access;

fn spec(storage: serde_json::Value) -> StorageSpec {
    serde_json::from_value(storage).unwrap()
}

fn properties(of: &[(&str, &str)]) -> HashMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn where_the_environment_is_closed_to_specs_the_workers_own_credentials_are_nobodys() {
    let keys = |storage, access: &Access| format!("{:?}", S3::of(&spec(storage), access).unwrap());
    for storage in [json!({}), json!({"endpoint": "https://minio:9000"}), json!({"region": "eu-west-1"})] {
        assert!(keys(storage.clone(), &Access::none()).contains("keys: none"), "{storage}");
        assert!(keys(storage.clone(), &Access::local()).contains("keys: ambient"), "{storage}");
    }
    let some = Access { env: Some(vec!["HOME".to_owned()]), ..Access::none() };
    assert!(keys(json!({}), &some).contains("keys: none"), "a list is not an open door");
}

#[test]
fn what_a_catalog_hands_out_stands_above_what_is_configured_and_is_never_shown() {
    let own = S3::of(&spec(json!({"endpoint": "https://own:9000", "region": "own"})), &Access::none()).unwrap();
    let handed = properties(&[
        ("s3.access-key-id", "AKIA-HANDED"),
        ("s3.secret-access-key", "the-secret"),
        ("s3.session-token", "the-token"),
        ("client.region", "handed"),
        ("s3.path-style-access", "false"),
    ]);
    let shown = format!("{:?}", own.with_properties(&handed).unwrap());
    for part in ["https://own:9000", "\"handed\"", "keys: given", "virtual_hosted: true"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    for secret in ["AKIA-HANDED", "the-secret", "the-token"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let elsewhere = properties(&[("s3.endpoint", "http://elsewhere:9000")]);
    assert!(own.with_properties(&elsewhere).unwrap_err().contains("not encrypted"));
}

#[test]
fn plain_http_is_for_this_machine_or_where_it_is_meant() {
    let host = |storage| S3::of(&spec(storage), &Access::none()).and_then(|s3| s3.host());
    assert_eq!(host(json!({"endpoint": "http://127.0.0.1:9000"})).unwrap(), "127.0.0.1:9000");
    assert_eq!(host(json!({"endpoint": "http://[::1]:9000"})).unwrap(), "[::1]:9000");
    assert_eq!(host(json!({"endpoint": "http://minio", "allow_http": true})).unwrap(), "minio");
    for endpoint in ["http://minio:9000", "http://127.0.0.1.example:9000", "ftp://127.0.0.1"] {
        assert!(host(json!({"endpoint": endpoint})).unwrap_err().contains("not encrypted"), "{endpoint}");
    }
}

#[test]
fn a_bucket_stands_in_the_path_or_before_the_host() {
    let open = |storage| S3::of(&spec(storage), &Access::none()).unwrap().open("bucket", None);
    let minio = "https://minio:9000";
    assert!(open(json!({"endpoint": minio})).is_ok());
    assert!(open(json!({"endpoint": minio, "path_style": false})).is_ok());
    let by_number = json!({"endpoint": "https://10.0.0.1", "path_style": false});
    assert!(open(by_number).unwrap_err().contains("path_style"));
}

#[test]
fn what_a_store_says_is_told_without_its_markup() {
    let said = "Server returned non-2xx status code: 404 Not Found: <?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket\
                </Code><Message>The bucket does not exist</Message><RequestId>7</RequestId></Error>";
    let error = StoreError(object_store::Error::Generic { store: "S3", source: said.into() });
    assert_eq!(
        (error.to_string().as_str(), error.trouble()),
        ("NoSuchBucket: The bucket does not exist", Trouble::Missing)
    );
    let refused = said.replace("404 Not Found", "403 Forbidden");
    let error = StoreError(object_store::Error::Generic { store: "S3", source: refused.into() });
    assert_eq!(error.trouble(), Trouble::Refused);
    assert!(error.to_string().starts_with("the store refuses the credentials"), "{error}");
}
