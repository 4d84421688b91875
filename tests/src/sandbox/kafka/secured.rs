//! A broker that speaks TLS and asks who calls: a listener beside the plain one, and an authority of the test's own that
//! signed its certificate.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::super::port::Port;
use super::Broker;
use super::server::Server;

/// The password of the stores of keys, which only the broker and the tool that makes them open.
const STORES: &str = "of-the-stores";

/// A broker with a listener that wants TLS and a password.
#[derive(Debug)]
pub struct Secured {
    /// It, by its plain listener.
    pub broker: Broker,
    port: Port,
    folder: TempDir,
}

impl Secured {
    /// Who may call.
    pub const USER: &str = "ann";
    /// By this password.
    pub const PASSWORD: &str = "the-password-of-ann";

    /// Starts one, which takes `PLAIN` and `SCRAM-SHA-512`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let (port, folder) = (Port::reserve(), TempDir::with_prefix("tidegate-authority-").expect("a folder"));
        certify(folder.path());
        let store = folder.path().join("broker.p12").display().to_string();
        let (user, password) = (Self::USER, Self::PASSWORD);
        let module = "org.apache.kafka.common.security";
        let plain = format!("{module}.plain.PlainLoginModule required user_{user}=\"{password}\";");
        let settings = [
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL".to_owned()),
            ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-512".to_owned()),
            ("listener.name.sasl_ssl.plain.sasl.jaas.config", plain),
            (
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config",
                format!("{module}.scram.ScramLoginModule required;"),
            ),
            ("listener.name.sasl_ssl.ssl.keystore.type", "PKCS12".to_owned()),
            ("listener.name.sasl_ssl.ssl.keystore.location", store),
            ("listener.name.sasl_ssl.ssl.keystore.password", STORES.to_owned()),
        ];
        let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let scram = format!("SCRAM-SHA-512=[name={user},password={password}]");
        let listener = format!("SASL_SSL://{}", port.address());
        let server = Server::start_listening(&[&listener], &["--add-scram", &scram], &settings);
        Self { broker: Broker::at(server.address(), Some(server)).await, port, folder }
    }

    /// Where it asks: `host:port`.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// The certificate of the authority that signed its own.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The certificate of an authority that has nothing to do with it.
    pub fn stranger(&self) -> PathBuf {
        self.folder.path().join("stranger.pem")
    }
}

/// Makes two authorities in `folder`, and a store with a certificate for this host by the first one.
fn certify(folder: &Path) {
    let file = |name: &str| folder.join(name).display().to_string();
    let made = ["-keyalg", "EC", "-groupname", "secp256r1", "-validity", "30"];
    for (name, store) in [("ca", "ca.p12"), ("stranger", "stranger.p12")] {
        let who = format!("CN={name} of the tests");
        tool(
            &file(store),
            name,
            &[&["-genkeypair", "-dname", &who, "-ext", "bc=ca:true", "-ext", "ku=keyCertSign"], &made[..]].concat(),
        );
        tool(&file(store), name, &["-exportcert", "-rfc", "-file", &file(&format!("{name}.pem"))]);
    }
    let (store, request, signed) = (file("broker.p12"), file("broker.csr"), file("broker.pem"));
    tool(&store, "broker", &[&["-genkeypair", "-dname", "CN=broker of the tests"], &made[..]].concat());
    tool(&store, "broker", &["-certreq", "-file", &request]);
    let sign =
        ["-gencert", "-rfc", "-ext", "san=ip:127.0.0.1", "-validity", "30", "-infile", &request, "-outfile", &signed];
    tool(&file("ca.p12"), "ca", &sign);
    tool(&store, "ca", &["-importcert", "-noprompt", "-file", &file("ca.pem")]);
    tool(&store, "broker", &["-importcert", "-noprompt", "-file", &signed]);
}

/// Java's tool for stores of keys.
fn tool(store: &str, alias: &str, arguments: &[&str]) {
    let mut command = Command::new("keytool");
    command.args(arguments).args(["-alias", alias, "-keystore", store, "-storetype", "PKCS12", "-storepass", STORES]);
    let output = command.output().unwrap_or_else(|error| panic!("no keytool, which is a part of the JDK: {error}"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}{}", said(&output.stdout), said(&output.stderr));
}
