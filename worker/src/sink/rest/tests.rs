//! What a commit's fate is told from, by a server that answers what a test says, counts, and does nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};

use iceberg::NamespaceIdent;
use iceberg::spec::{NestedField, PrimitiveType, Schema, TableMetadataBuilder, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::client::check_address;
use super::*;
use crate::failure::{Class, Classify};

/// What the server does with a commit.
#[derive(Clone)]
enum Then {
    Answers(u16, String),
    /// Breaks off in the middle of its answer.
    BreaksOff,
    /// Breaks off before it answers.
    HangsUp,
    /// Never answers; the clock is then only moved by who waits.
    StandsStill,
}

/// A server, and a table that it has.
struct Server {
    uri: String,
    commits: Arc<AtomicUsize>,
}

impl Server {
    async fn with(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let commits = Arc::new(AtomicUsize::new(0));
        let counted = commits.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, then.clone(), counted.clone()));
            }
        });
        Self { uri, commits }
    }

    async fn catalog(&self) -> RestCatalog {
        let config = RestConfig { name: "lake".to_owned(), uri: self.uri.clone(), ..RestConfig::default() };
        RestCatalog::open(&config).await.unwrap()
    }
}

/// Whether `text` is a whole request.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

async fn serve(mut stream: TcpStream, then: Then, commits: Arc<AtomicUsize>) {
    let (mut text, mut buffer) = (String::new(), [0; 4_096]);
    while !is_whole(&text) {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let answer = |status: u16, body: &str| {
        format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let answer = if text.starts_with("GET /v1/config") {
        answer(200, r#"{"defaults": {"prefix": "p"}, "overrides": {}}"#)
    } else if text.starts_with("GET /v1/p/namespaces/ns/tables/t ") {
        answer(200, &table())
    } else {
        assert!(text.starts_with("POST /v1/p/namespaces/ns/tables/t "), "{text}");
        commits.fetch_add(1, Ordering::SeqCst);
        match then {
            Then::Answers(status, body) => answer(status, &body),
            Then::BreaksOff => answer(200, &table())[..300].to_owned(),
            Then::HangsUp => return,
            Then::StandsStill => {
                tokio::time::pause();
                return std::future::pending().await;
            }
        }
    };
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn table() -> String {
    let id = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([id.into()]).build().unwrap();
    let creation = TableCreation::builder().name("t".to_owned()).location("/nowhere".to_owned()).schema(schema).build();
    let metadata = TableMetadataBuilder::from_table_creation(creation).unwrap().build().unwrap().metadata;
    json!({"metadata-location": "/nowhere/metadata/1.json", "metadata": metadata}).to_string()
}

fn ident() -> TableIdent {
    TableIdent::new(NamespaceIdent::new("ns".to_owned()), "t".to_owned())
}

/// One commit; and how often it was asked for.
async fn commit(then: Then) -> (Result<Swap, SinkError>, usize) {
    let server = Server::with(then).await;
    let catalog = server.catalog().await;
    let base = catalog.load(&ident()).await.unwrap().unwrap();
    let requirement = TableRequirement::UuidMatch { uuid: base.metadata().uuid() };
    let swapped = catalog.compare_and_swap(&base, Vec::new(), vec![requirement]).await;
    (swapped, server.commits.load(Ordering::SeqCst))
}

fn error_document(kind: &str) -> String {
    json!({"error": {"type": kind, "message": "for a test", "code": 0}}).to_string()
}

#[tokio::test]
async fn an_answer_that_says_nothing_leaves_the_outcome_unknown_and_is_not_asked_for_again() {
    let cases = [
        Then::Answers(500, error_document("InternalServerError")),
        Then::Answers(502, String::new()),
        Then::Answers(503, "busy".to_owned()),
        Then::Answers(504, String::new()),
        Then::Answers(200, "no document".to_owned()),
        Then::Answers(200, r#"{"metadata": {}}"#.to_owned()),
        Then::Answers(202, String::new()),
        Then::BreaksOff,
        Then::HangsUp,
    ];
    for (at, case) in cases.into_iter().enumerate() {
        let (swapped, commits) = commit(case).await;
        let error = swapped.expect_err("it is not known");
        assert_eq!((error.class(), commits), (Class::Unknown, 1), "case {at}: {error}");
    }
}

#[tokio::test]
async fn a_catalog_that_stands_still_leaves_the_outcome_unknown_when_its_time_is_over() {
    let (swapped, commits) = commit(Then::StandsStill).await;
    let error = swapped.expect_err("it is not known");
    assert_eq!((error.class(), commits), (Class::Unknown, 1), "{error}");
}

#[tokio::test]
async fn an_answer_that_says_no_is_a_conflict_or_an_error_and_never_unknown() {
    let (swapped, commits) = commit(Then::Answers(409, error_document("CommitFailedException"))).await;
    assert!(matches!(swapped, Ok(Swap::Conflict)), "{swapped:?}");
    assert_eq!(commits, 1);
    for status in [400, 401, 403, 404, 422, 429, 307] {
        let (swapped, commits) = commit(Then::Answers(status, error_document("Refused"))).await;
        let error = swapped.expect_err("it is refused");
        assert!(matches!(error, SinkError::Catalog { .. }), "{status}: {error:?}");
        assert_eq!((error.class(), commits), (Class::Retryable, 1), "{status}");
    }
    let (swapped, _) = commit(Then::Answers(200, table())).await;
    assert!(matches!(swapped, Ok(Swap::Done(_))), "{swapped:?}");
}

#[tokio::test]
async fn a_commit_that_nobody_took_up_was_certainly_not_made() {
    let server = Server::with(Then::HangsUp).await;
    let catalog = server.catalog().await;
    let base = catalog.load(&ident()).await.unwrap().unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let elsewhere = RestConfig { name: "lake".to_owned(), uri: format!("http://{gone}"), ..RestConfig::default() };
    let client = Arc::new(Client::new(&elsewhere, &Access::local()).unwrap());
    let catalog = RestCatalog { client, storage: None, last: Mutex::default() };
    let error = catalog.compare_and_swap(&base, Vec::new(), Vec::new()).await.unwrap_err();
    assert!(matches!(error, SinkError::Unreachable { .. }), "{error:?}");
    assert_eq!(error.exit_code(), Some(75));
}

#[test]
fn an_address_is_encrypted_or_near_and_holds_no_secret() {
    for good in ["https://catalog.example/x", "http://127.0.0.1:8181", "http://localhost/iceberg", "http://[::1]:1"] {
        assert_eq!(check_address("uri", good, false), Ok(()), "{good}");
    }
    assert_eq!(check_address("uri", "http://catalog.example", true), Ok(()));
    for bad in ["http://catalog.example", "catalog.example", "ftp://x", "https://a?b=c", "https://me:secret@x", ""] {
        let why = check_address("uri", bad, false).unwrap_err();
        assert!(why.contains("uri") && !why.contains("secret"), "{bad}: {why}");
    }
}

#[test]
fn what_is_configured_of_a_storage_is_kept_where_a_catalog_hands_out_nothing() {
    let none = HashMap::new();
    assert!(storage(None, &none).unwrap().is_none(), "no bucket is reached by accident");
    assert!(storage(Some(S3::default()), &none).unwrap().is_some());
    let keys = [("s3.access-key-id", "id"), ("s3.secret-access-key", "key")];
    let handed = keys.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
    assert!(storage(None, &handed).unwrap().is_some());
}
