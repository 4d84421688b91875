//! A server that speaks S3's protocol: moto, from the python of the tests, on a port of its own and gone with the test.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::oracle::python;
use super::process::Process;
use super::world::PATIENCE;
use super::{http, wait_until};

/// The server that the tests of one binary share; each has buckets of its own.
static SHARED: OnceCell<Store> = OnceCell::const_new();

/// Variables that [`Store::storage`] takes the keys from.
const ID: &str = "TEST_STORE_ID";
const SECRET: &str = "TEST_STORE_SECRET";

/// An object store.
#[derive(Debug)]
pub struct Store {
    authority: String,
    keys: (String, String),
    /// It ends with this, or with the test's process.
    _process: Process,
}

impl Store {
    /// The one that tests share, which believes everybody.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// One that asks for the right keys.
    pub async fn guarded() -> Self {
        let mut store = Self::start().await;
        let iam = |action: &str| {
            let scope =
                "AWS4-HMAC-SHA256 Credential=any/20200101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
            let headers = [("Authorization", scope), ("Content-Type", "application/x-www-form-urlencoded")];
            let body = format!("Version=2010-05-08&UserName=tidegate&{action}");
            http::send(&store.authority, "POST", "/", &headers, body.as_bytes()).well()
        };
        iam("Action=CreateUser");
        let all = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
        let all: String = all.bytes().map(|byte| format!("%{byte:02X}")).collect();
        iam(&format!("Action=PutUserPolicy&PolicyName=all&PolicyDocument={all}"));
        let made = iam("Action=CreateAccessKey");
        let part = |tag: &str| {
            let (_, rest) = made.split_once(&format!("<{tag}>")).expect("a key was made");
            rest.split('<').next().expect("its text").to_owned()
        };
        store.keys = (part("AccessKeyId"), part("SecretAccessKey"));
        store
    }

    /// From now on the keys are asked for.
    pub fn guard(&self) {
        http::send(&self.authority, "POST", "/moto-api/reset-auth", &[], b"0").well();
    }

    async fn start() -> Self {
        let folder = TempDir::with_prefix("tidegate-store-").expect("a folder");
        let mut command = Command::new(python());
        command.args(["-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
        let mut process = Process::start("store", command, folder.path().join("log"));
        let authority = wait_until("the object store to listen", PATIENCE, async || {
            let said = process.said();
            let found = said.split_once("Running on http://").map(|(_, rest)| rest.to_owned());
            assert!(found.is_some() || process.is_alive(), "the object store has ended: {said}");
            found.and_then(|rest| rest.split_whitespace().next().map(str::to_owned))
        });
        Self { authority: authority.await, keys: ("id".to_owned(), "secret".to_owned()), _process: process }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// Makes a bucket.
    pub fn make(&self, bucket: &str) {
        http::send(&self.authority, "PUT", &format!("/{bucket}"), &[], b"").well();
    }

    /// Puts an object.
    pub fn put(&self, bucket: &str, key: &str, content: &[u8]) {
        http::send(&self.authority, "PUT", &format!("/{bucket}/{key}"), &[], content).well();
    }

    /// The keys of the objects in a bucket: the first thousand.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let listed = http::send(&self.authority, "GET", &format!("/{bucket}?list-type=2"), &[], b"").well();
        let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        keys.map(|(key, _)| key.to_owned()).collect()
    }

    /// Puts every file of `folder`, below `prefix`.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn put_folder(&self, bucket: &str, prefix: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            self.put(bucket, &format!("{prefix}/{name}"), &std::fs::read(&path).expect("a file"));
        }
    }

    /// How it is reached, as a spec or a configuration says it: keys by the variables of [`Store::env`].
    pub fn storage(&self) -> Value {
        json!({
            "endpoint": self.endpoint(),
            "region": "us-east-1",
            "allow_http": true,
            "access_key_id": {"from_env": ID},
            "secret_access_key": {"from_env": SECRET},
        })
    }

    /// The variables with the right keys.
    pub fn env(&self) -> [(&'static str, &str); 2] {
        [(ID, &self.keys.0), (SECRET, &self.keys.1)]
    }

    /// How it is reached, as PyIceberg wants it.
    pub fn properties(&self) -> Value {
        json!({
            "s3.endpoint": self.endpoint(),
            "s3.region": "us-east-1",
            "s3.access-key-id": self.keys.0,
            "s3.secret-access-key": self.keys.1,
        })
    }
}
