//! A REST catalog: Iceberg's own implementation in Java, on a port of its own and gone with the test; and a way to it on
//! which answers get lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::oracle::of_xtask;
use super::process::{Process, Signal};
use super::world::{PATIENCE, World};
use super::{http, wait_until};

/// The server that the tests of one binary share; each has warehouses of its own.
static SHARED: OnceCell<RestCatalog> = OnceCell::const_new();

/// A server with a catalog for each warehouse that is asked for.
#[derive(Debug)]
pub struct RestCatalog {
    authority: String,
    /// It ends with this, or with the test's process.
    process: Process,
}

impl RestCatalog {
    /// The one that tests share.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// One of its own.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One of its own that keeps the state of the tables in `warehouse`, a folder, beside them: it can be killed and
    /// started again.
    pub async fn start_durable(warehouse: &str) -> Self {
        Self::start_with(&["0", warehouse]).await
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts one of [`RestCatalog::start_durable`] again after it was killed, where it was.
    pub async fn start_again(&mut self, warehouse: &str) {
        let port = self.authority.rsplit(':').next().unwrap_or_default().to_owned();
        *self = Self::start_with(&[&port, warehouse]).await;
    }

    async fn start_with(arguments: &[&str]) -> Self {
        let made = std::env::var_os("TIDEGATE_REST_CATALOG").map(PathBuf::from);
        let made = made.unwrap_or_else(|| of_xtask("rest-catalog"));
        let folder = TempDir::with_prefix("tidegate-catalog-").expect("a folder");
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-Xmx256m", "-classpath"]);
        command.arg(format!("{}:{}/*", made.display(), made.join("jars").display())).arg("RestCatalog").args(arguments);
        let mut process = Process::start("catalog", command, folder.path().join("log"));
        let authority = wait_until("the REST catalog to listen", PATIENCE, async || {
            let said = process.said();
            let found = said.split_once("listening on http://").map(|(_, rest)| rest.to_owned());
            assert!(found.is_some() || process.is_alive(), "the REST catalog has ended: {said}");
            found.and_then(|rest| rest.split_once('\n').map(|(authority, _)| authority.to_owned()))
        });
        Self { authority: authority.await, process }
    }

    /// Its address.
    pub fn uri(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Tells it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Hands out these properties with the tables of `warehouse`.
    pub fn vend(&self, warehouse: &str, properties: &Value) {
        let line = |(key, value): (&String, &Value)| format!("{key}={}\n", value.as_str().expect("a text"));
        let lines: String = properties.as_object().expect("properties").iter().map(line).collect();
        self.control("vend", warehouse, "", &lines);
    }

    /// From now on asks for a token, of which `token` is one.
    pub fn guard(&self, warehouse: &str, token: &str) {
        self.control("guard", warehouse, &format!("&token={token}"), "");
    }

    /// Forgets all tokens that it gave out.
    pub fn revoke(&self, warehouse: &str) {
        self.control("revoke", warehouse, "", "");
    }

    /// Answers the next `times` commits with `status`, before or after they are done.
    pub fn fail(&self, warehouse: &str, status: u16, times: u32, afterwards: bool) {
        self.control("fail", warehouse, &format!("&status={status}&times={times}&afterwards={afterwards}"), "");
    }

    /// How often a commit was asked for.
    pub fn commits(&self, warehouse: &str) -> u64 {
        let counts = self.control("count", warehouse, "", "");
        serde_json::from_str::<Value>(&counts).expect("counts")["commits"].as_u64().expect("a count")
    }

    fn control(&self, what: &str, warehouse: &str, more: &str, body: &str) -> String {
        http::send(
            &self.authority,
            "POST",
            &format!("/control/{what}?warehouse={warehouse}{more}"),
            &[],
            body.as_bytes(),
        )
        .well()
    }
}

impl World {
    /// A warehouse in this world's folder.
    pub fn warehouse(&self) -> String {
        format!("file://{}", self.root().join("warehouse").display())
    }

    /// Makes `catalog` this world's, with more keys in its configuration and more properties for the oracle.
    pub fn on_rest(&mut self, uri: &str, warehouse: &str, more: &Value, oracle: &Value) {
        let merged = |mut whole: Value, more: &Value| {
            let more = more.as_object().cloned().unwrap_or_default();
            whole.as_object_mut().expect("an object").extend(more);
            whole
        };
        let rest = merged(json!({"uri": uri, "warehouse": warehouse}), more);
        let properties = merged(json!({"warehouse": warehouse}), oracle);
        self.configure(&json!({"rest": rest}), json!({"name": "default", "uri": uri, "properties": properties}));
    }
}

/// A way to a server on which answers to commits get lost: the request arrives, and when its answer comes back the
/// connection breaks.
#[derive(Debug)]
pub struct Lossy {
    authority: String,
    left: Arc<AtomicU32>,
    lost: Arc<AtomicU32>,
}

impl Lossy {
    /// A way to `authority`, on which the next `lose` answers get lost. It ends with the test's process.
    ///
    /// # Panics
    /// When there is no port for it.
    pub fn to(authority: &str, lose: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("an address").to_string();
        let (left, lost) = (Arc::new(AtomicU32::new(lose)), Arc::new(AtomicU32::new(0)));
        let way = Self { authority: own, left: left.clone(), lost: lost.clone() };
        let authority = authority.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&authority) else { continue };
                let (left, lost) = (left.clone(), lost.clone());
                thread::spawn(move || carry(client, server, &left, &lost));
            }
        });
        way
    }

    /// Its address.
    pub fn uri(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// How many answers it has lost.
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::SeqCst)
    }

    /// How many it has still to lose.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::SeqCst)
    }
}

/// Carries bytes both ways until either side ends, or an answer gets lost.
fn carry(client: TcpStream, server: TcpStream, left: &AtomicU32, lost: &AtomicU32) {
    let is_commit = Arc::new(AtomicU32::new(0));
    let (Ok(mut up_from), Ok(mut up_to)) = (client.try_clone(), server.try_clone()) else { return };
    let seen = is_commit.clone();
    let up = thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = up_from.read(&mut buffer) {
            let bytes = &buffer[..read];
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            if line.starts_with(b"POST ") && line.windows(8).any(|part| part == b"/tables/") {
                seen.store(1, Ordering::SeqCst);
            }
            if up_to.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = up_to.shutdown(Shutdown::Write);
    });
    let (mut client, mut server) = (client, server);
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        let takes_one = |left: u32| left.checked_sub(1);
        if is_commit.load(Ordering::SeqCst) == 1
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, takes_one).is_ok()
        {
            lost.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if client.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    let _ = up.join();
}
