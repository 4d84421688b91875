#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::tests::now;
use super::*;
use crate::failure::{Class, Classify};

/// The public API of a schema registry, served from memory.
pub(in super::super) struct Served {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<String, (u16, String)>>,
    /// Requests, with what they say of who asks.
    asked: Mutex<Vec<(String, Option<String>)>>,
    /// What comes first, whatever is asked for.
    first: Mutex<Vec<u16>>,
    is_over: AtomicBool,
}

impl Served {
    pub(in super::super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::new(Shared::default()));
        let serving = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let _gone = serving.answer(&stream.unwrap());
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub(in super::super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(in super::super) fn put(&self, path: &str, body: &Value) {
        self.put_raw(path, 200, &body.to_string());
    }

    pub(in super::super) fn put_raw(&self, path: &str, status: u16, body: &str) {
        self.shared.answers.lock().unwrap().insert(path.to_owned(), (status, body.to_owned()));
    }

    pub(in super::super) fn first(&self, statuses: &[u16]) {
        *self.shared.first.lock().unwrap() = statuses.iter().rev().copied().collect();
    }

    pub(in super::super) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }
}

impl Shared {
    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let path = lines.next().unwrap()?.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut user = None;
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                user = Some(value.to_owned());
            }
        }
        self.asked.lock().unwrap().push((path.clone(), user));
        let first = self.first.lock().unwrap().pop();
        let unknown = (404, json!({"error_code": 40403, "message": "not found"}).to_string());
        let (status, body) = match first {
            Some(status) => (status, String::new()),
            None => self.answers.lock().unwrap().get(&path).cloned().unwrap_or(unknown),
        };
        let head = format!("HTTP/1.1 {status} said\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        let mut stream = stream;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
        let _ended = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn spec(url: &str) -> RegistrySpec {
    serde_json::from_value(json!({"url": url})).unwrap()
}

fn open(url: &str) -> Registry {
    Registry::open(&spec(url), &Access::local()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_schema_comes_with_all_that_it_refers_to_the_innermost_first() {
    let served = Served::new();
    let refers = |name: &str, to: &[(&str, u32)]| {
        let references: Vec<Value> = to
            .iter()
            .map(|(to, version)| json!({"name": to, "subject": format!("s/{to}"), "version": version}))
            .collect();
        json!({"schema": name, "references": references})
    };
    served.put("/schemas/ids/7", &refers("root", &[("a", 1), ("b", 2)]));
    served.put("/subjects/s%2Fa/versions/1", &refers("text of a", &[("c", 1)]));
    served.put("/subjects/s%2Fb/versions/2", &refers("text of b", &[("c", 1)]));
    served.put("/subjects/s%2Fc/versions/1", &refers("text of c", &[]));
    let schema = now(open(&served.url()).by_id(7, "AVRO")).unwrap().unwrap();
    assert_eq!(schema.text, "root");
    let pair = |name: &str| (name.to_owned(), format!("text of {name}"));
    assert_eq!(schema.references, [pair("c"), pair("a"), pair("b")]);
}

#[test]
fn what_the_registry_does_not_know_or_says_of_another_kind_is_no_error() {
    let served = Served::new();
    served.put("/schemas/ids/1", &json!({"schema": "{}", "schemaType": "JSON"}));
    served.put("/schemas/ids/3", &json!({"schema": "{}", "references": [{"name": "x", "subject": "x", "version": 1}]}));
    let registry = open(&served.url());
    let of = |id| now(registry.by_id(id, "AVRO")).unwrap().unwrap_err();
    assert!(of(1).contains("is a schema of JSON, not AVRO"));
    assert!(of(2).contains("does not know schemas/ids/2"));
    assert!(of(3).contains("lacks subjects/x/versions/1"));
    let missing = now(registry.version("air-value", None, "AVRO")).unwrap_err();
    assert_eq!(missing.class(), Class::Fatal { exit_code: 4 });
    assert!(missing.to_string().contains("does not know subjects/air-value/versions/latest"), "{missing}");
}

#[test]
fn one_that_is_busy_is_asked_again_and_one_that_stays_so_may_pass() {
    let served = Served::new();
    served.put("/subjects/s/versions/2", &json!({"schema": "\"int\""}));
    served.first(&[503, 429]);
    assert_eq!(now(open(&served.url()).version("s", Some(2), "AVRO")).unwrap().text, "\"int\"");
    assert_eq!(served.asked().len(), 3);
    served.first(&[500; 20]);
    let error = now(open(&served.url()).version("s", Some(2), "AVRO")).unwrap_err();
    assert_eq!((error.class(), error.exit_code()), (Class::Retryable, Some(75)));
    assert_eq!(served.asked().len(), 3 + TRIES);
    let url = served.url();
    drop(served);
    assert_eq!(now(open(&url).version("s", None, "AVRO")).unwrap_err().class(), Class::Retryable);
}

#[test]
fn what_is_no_registry_or_refuses_is_asked_once() {
    let served = Served::new();
    served.put_raw("/subjects/s/versions/1", 404, "<html>");
    served.put_raw("/subjects/s/versions/2", 401, "");
    served.put_raw("/subjects/s/versions/3", 302, "");
    served.put_raw("/subjects/s/versions/4", 200, "{}");
    served.put_raw("/subjects/s/versions/5", 200, &"x".repeat(MAX_ANSWER + 1));
    for (version, said) in [
        (1, "the address of a schema registry?"),
        (2, "check schema_registry.user"),
        (3, "302"),
        (4, "cannot be understood"),
        (5, "more than"),
    ] {
        let error = now(open(&served.url()).version("s", Some(version), "AVRO")).unwrap_err();
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 }, "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(served.asked().len(), 5);
}

#[test]
fn user_and_password_go_with_each_request_and_into_no_message() {
    let served = Served::new();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        json!({"from_file": path})
    };
    let (user, password) = (file("user", "ada\n"), file("password", "s3cret\n"));
    let spec: RegistrySpec =
        serde_json::from_value(json!({"url": served.url(), "user": user, "password": password})).unwrap();
    let registry = Registry::open(&spec, &Access::local()).unwrap_or_else(|e| panic!("{e}"));
    let error = now(registry.version("s", None, "AVRO")).unwrap_err();
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert_eq!(served.shared.asked.lock().unwrap()[0].1.as_deref(), Some("Basic YWRhOnMzY3JldA=="));
    let denied = Registry::open(&spec, &Access { endpoints: None, ..Access::none() }).err().unwrap();
    assert!(denied.to_string().contains("allow.paths"), "{denied}");
}

#[test]
fn only_a_registry_that_the_worker_allows_is_asked() {
    let access =
        |hosts: &[&str]| Access { endpoints: Some(hosts.iter().map(|h| (*h).to_owned()).collect()), ..Access::none() };
    let url = "http://registry.example:8081";
    for hosts in [&["registry.example"][..], &["registry.example:8081"]] {
        assert!(Registry::open(&spec(url), &access(hosts)).is_ok());
    }
    for hosts in [&[][..], &["registry.example:80"], &["example"]] {
        let error = Registry::open(&spec(url), &access(hosts)).err().unwrap();
        assert_eq!(error.class(), Class::Fatal { exit_code: 4 });
        assert!(error.to_string().contains("registry.example:8081: add it to allow.endpoints"), "{error}");
    }
    for url in ["http://user:pass@host", "ftp://host", "nothing"] {
        let error = Registry::open(&spec(url), &Access::local()).err().unwrap();
        assert_eq!((error.class(), error.to_string().contains("pass")), (Class::Fatal { exit_code: 3 }, false));
    }
}
