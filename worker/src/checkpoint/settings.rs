//! How brokers are reached: librdkafka's settings, from the properties that Kafka's own tools read or from a spec.
//!
//! A `command-config` file is the user's own, on the user's own machine, and may name files; what a spec may say was
//! checked when the spec was.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use regex::Regex;
use tidegate_common::spec::model::KafkaSpec;

use super::error::CheckpointError;
use crate::access::Access;
use crate::kafka;

/// Settings that only Java clients have, or that say nothing here.
const PASSED_OVER: &[&str] = &[
    "auto.offset.reset",
    "default.api.timeout.ms",
    "enable.auto.commit",
    "group.id",
    "key.deserializer",
    "request.timeout.ms",
    "retries",
    "sasl.jaas.config",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
    "value.deserializer",
];

/// Settings of a client; values are not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Settings {
    /// The brokers at `bootstrap`, `host:port` and more behind commas, with the properties of a `command-config` file.
    ///
    /// # Errors
    /// Stores of keys that only Java reads, and mechanisms that this build does not have.
    pub fn of_tools(bootstrap: &str, command_config: Option<&str>) -> Result<Self, CheckpointError> {
        let mut given = command_config.map(properties).unwrap_or_default();
        let mut values = translated(&given)?;
        given.retain(|key, _| !PASSED_OVER.contains(&key.as_str()));
        values.extend(given);
        values.insert("bootstrap.servers".to_owned(), bootstrap.to_owned());
        Self { values }.checked()
    }

    /// The brokers of a spec's Kafka source.
    ///
    /// # Errors
    /// What a source would be refused for: a secret that cannot be had, a mechanism that this build does not have.
    pub fn of_spec(spec: &KafkaSpec, access: &Access) -> Result<Self, CheckpointError> {
        let settings = kafka::settings(spec, access);
        let mut values = settings.map_err(|why| CheckpointError::Settings(why.to_string()))?;
        values.remove("isolation.level");
        Ok(Self { values })
    }

    fn checked(self) -> Result<Self, CheckpointError> {
        match kafka::lacking(&self.values) {
            Some(lacks) => Err(CheckpointError::Settings(lacks.to_owned())),
            None => Ok(self),
        }
    }

    /// Where the brokers are.
    pub fn bootstrap(&self) -> &str {
        self.values.get("bootstrap.servers").map_or("", String::as_str)
    }

    /// A client's configuration, with `more` on top.
    pub(super) fn client(&self, more: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "tidegate-checkpoint");
        for (key, value) in &self.values {
            config.set(key, value);
        }
        for (key, value) in more {
            config.set(*key, *value);
        }
        config
    }
}

/// What the Java client's settings are in librdkafka's words.
fn translated(given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, CheckpointError> {
    let mut values = BTreeMap::new();
    if let Some(jaas) = given.get("sasl.jaas.config") {
        for (option, key) in [("username", "sasl.username"), ("password", "sasl.password")] {
            let value = jaas_option(jaas, option).ok_or_else(|| {
                CheckpointError::Settings(format!(
                    "sasl.jaas.config has no {option}: only user and password are read from it"
                ))
            })?;
            values.insert(key.to_owned(), value);
        }
    }
    let pem = |store: &str| {
        let kind = given.get(&format!("ssl.{store}.type")).map_or("JKS", String::as_str);
        let location = given.get(&format!("ssl.{store}.location"));
        match location {
            Some(_) if !kind.eq_ignore_ascii_case("PEM") => Err(CheckpointError::Settings(format!(
                "ssl.{store}.location is a {kind} store, which only Java reads: export it as PEM and set ssl.{store}.type=PEM"
            ))),
            location => Ok(location.cloned()),
        }
    };
    if let Some(authorities) = pem("truststore")? {
        values.insert("ssl.ca.location".to_owned(), authorities);
    }
    if let Some(own) = pem("keystore")? {
        values.insert("ssl.certificate.location".to_owned(), own.clone());
        values.insert("ssl.key.location".to_owned(), own);
    }
    Ok(values)
}

fn jaas_option(jaas: &str, option: &str) -> Option<String> {
    let found = Regex::new(&format!(r#"\b{option}\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))"#)).ok()?;
    let captures = found.captures(jaas)?;
    match (captures.get(1), captures.get(2)) {
        (Some(quoted), _) => Some(quoted.as_str().replace("\\\"", "\"").replace("\\\\", "\\")),
        (None, plain) => plain.map(|plain| plain.as_str().to_owned()),
    }
}

/// A Java properties file: `key=value` or `key: value`, `#` and `!` before comments, `\` at the end of a line that goes on.
fn properties(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut line = String::new();
    for part in text.lines() {
        let part = part.trim_start();
        if line.is_empty() && (part.is_empty() || part.starts_with(['#', '!'])) {
            continue;
        }
        let slashes = part.len() - part.trim_end_matches('\\').len();
        if slashes % 2 == 1 {
            line.push_str(part.strip_suffix('\\').unwrap_or(part));
            continue;
        }
        line.push_str(part);
        let whole = std::mem::take(&mut line);
        let (key, value) = whole.split_once(['=', ':']).unwrap_or((&whole, ""));
        found.insert(key.trim().to_owned(), unescaped(value.trim_start()));
    }
    found
}

fn unescaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => {}
            },
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_config_is_read_as_kafkas_tools_read_it() {
        let file = "# how it is reached\nsecurity.protocol=SASL_SSL\nsasl.mechanism: SCRAM-SHA-512\n\
                    sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n   \
                    username=\"ann\" password=\"a;b=\\\\\"c\";\nssl.truststore.type=PEM\nssl.truststore.location=/etc/ca.pem\n\
                    request.timeout.ms=5000\nclient.id=ops\n";
        let settings = Settings::of_tools("a:9092,b:9092", Some(file)).unwrap();
        let values: Vec<(&str, &str)> = settings.values.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            values,
            [
                ("bootstrap.servers", "a:9092,b:9092"),
                ("client.id", "ops"),
                ("sasl.mechanism", "SCRAM-SHA-512"),
                ("sasl.password", "a;b=\"c"),
                ("sasl.username", "ann"),
                ("security.protocol", "SASL_SSL"),
                ("ssl.ca.location", "/etc/ca.pem"),
            ]
        );
        assert!(!format!("{settings:?}").contains("ann"), "values are not shown");
    }

    #[test]
    fn what_only_java_has_is_refused_with_the_way_out() {
        let refused = |file: &str| Settings::of_tools("a:1", Some(file)).unwrap_err().to_string();
        assert!(refused("ssl.truststore.location=/a.jks").contains("export it as PEM"));
        assert!(refused("ssl.keystore.type=PKCS12\nssl.keystore.location=/a.p12").contains("PKCS12"));
        if !cfg!(feature = "gssapi") {
            assert!(refused("sasl.mechanism=GSSAPI").contains("--features gssapi"));
        }
        assert!(refused("sasl.jaas.config=Krb5LoginModule required;").contains("no username"));
    }
}
