//! Which settings of librdkafka a spec may give.
//!
//! An allow-list: a setting that runs a command, loads a library, reads a file, or is Tidegate's own to set is refused
//! with the reason, and one that is not known here is refused, too. The values are librdkafka's to judge.

use super::error::{SpecError, did_you_mean, quoted};

/// How a setting was given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// In clear.
    Text(&'a str),
    /// By reference.
    Secret,
}

/// Where brokers are, how the wire is secured, how much is fetched.
const ALLOWED: &[&str] = &[
    "api.version.fallback.ms",
    "api.version.request",
    "api.version.request.timeout.ms",
    "bootstrap.servers",
    "broker.address.family",
    "broker.address.ttl",
    "broker.version.fallback",
    "check.crcs",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "isolation.level",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "metadata.max.age.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.username",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.sigalgs.list",
];

/// Sizes that bound a client's memory, and the most that each may be.
const BOUNDED: &[(&str, u64)] = &[
    ("fetch.max.bytes", 128 << 20),
    ("fetch.message.max.bytes", 64 << 20),
    ("max.in.flight.requests.per.connection", 1_000),
    ("max.partition.fetch.bytes", 64 << 20),
    ("queued.max.messages.kbytes", 64 << 10),
    ("receive.message.max.bytes", 256 << 20),
    ("socket.receive.buffer.bytes", 16 << 20),
    ("socket.send.buffer.bytes", 16 << 20),
];

/// What need be no secret and may be one.
const EITHER: &[&str] = &["sasl.oauthbearer.client.id", "sasl.username", "ssl.ca.pem", "ssl.certificate.pem"];

/// Given by reference or not at all.
const SECRET: &[&str] = &["sasl.oauthbearer.client.secret", "sasl.password", "ssl.key.password", "ssl.key.pem"];

/// Settings that Tidegate sets itself.
const OURS: &[&str] = &[
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "log.queue",
    "statistics.interval.ms",
];

/// Whether a spec may give `key`, and give it so.
pub(super) fn check(key: &str, value: Value<'_>) -> Result<(), SpecError> {
    if SECRET.contains(&key) {
        return match value {
            Value::Secret => Ok(()),
            Value::Text(_) => {
                let error = SpecError::new(format!("{} is a secret", quoted(key)));
                Err(error.hint(format!("give it under `secrets`, by reference: `{key}: {{from_env: NAME}}`")))
            }
        };
    }
    if !ALLOWED.contains(&key) {
        return Err(refusal(key));
    }
    let Value::Text(text) = value else {
        if EITHER.contains(&key) {
            return Ok(());
        }
        return Err(SpecError::new(format!("{} is no secret", quoted(key))).hint("give it under `properties`"));
    };
    if let Some((_, most)) = BOUNDED.iter().find(|(bounded, _)| *bounded == key)
        && text.trim().parse::<u64>().is_ok_and(|given| given > *most)
    {
        return Err(SpecError::new(format!("{} is at most {most} here: it bounds memory", quoted(key))));
    }
    if text.len() > 64 << 10 || text.chars().any(|c| c.is_control() && c != '\n' && c != '\r') {
        return Err(SpecError::new("the value is too long or holds a control character"));
    }
    match key {
        "bootstrap.servers" => match text.split(',').find(|broker| !is_broker(broker.trim())) {
            Some(broker) => {
                let error = SpecError::new(format!("{} is not a broker", quoted(broker.trim())));
                Err(error.hint("write `host:port`, several with commas between them"))
            }
            None => Ok(()),
        },
        "isolation.level" if text != "read_committed" && text != "read_uncommitted" => {
            let error = SpecError::new(format!("{} is not an isolation level", quoted(text)));
            Err(error.hint("write `read_committed` or `read_uncommitted`"))
        }
        _ => Ok(()),
    }
}

/// `[protocol://]host[:port]` and nothing else: who checks hosts and who connects to them must read the same.
fn is_broker(text: &str) -> bool {
    let rest = match text.split_once("://") {
        Some((protocol, rest)) if protocol.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => rest,
        Some(_) => return false,
        None => text,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match is_v6 {
        Some(address) => !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':'),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    };
    fits && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn refusal(key: &str) -> SpecError {
    let why = if OURS.contains(&key) {
        "Tidegate sets it itself: which offsets are read is what `scan` says"
    } else if key.starts_with("plugin.") || key.starts_with("ssl.engine") || key.starts_with("ssl.providers") {
        "it loads a library"
    } else if key == "sasl.kerberos.kinit.cmd" {
        "it runs a command"
    } else if key.ends_with(".location") || key == "sasl.kerberos.keytab" {
        "it reads a file of the worker: give the content itself, `ssl.ca.pem: {from_file: ca.pem}` under `secrets`"
    } else if key == "sasl.oauthbearer.config" || key == "enable.sasl.oauthbearer.unsecure.jwt" {
        "a token that nobody signed proves nothing: set `sasl.oauthbearer.method: oidc`"
    } else {
        let known: Vec<&str> = ALLOWED.iter().chain(SECRET).copied().collect();
        let error = SpecError::new(format!("{} is not a setting that a spec may give", quoted(key)));
        return error.hint(did_you_mean(key, &known));
    };
    SpecError::new(format!("{} may not be given: {why}", quoted(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(key: &str, value: Value<'_>) -> String {
        check(key, value).map_or_else(|error| error.to_string(), |()| "allowed".to_owned())
    }

    #[test]
    fn settings_that_reach_beyond_the_brokers_are_refused_with_the_reason() {
        for (key, why) in [
            ("plugin.library.paths", "loads a library"),
            ("ssl.engine.location", "loads a library"),
            ("sasl.kerberos.kinit.cmd", "runs a command"),
            ("ssl.ca.location", "reads a file"),
            ("ssl.key.location", "reads a file"),
            ("ssl.keystore.location", "reads a file"),
            ("sasl.kerberos.keytab", "reads a file"),
            ("sasl.oauthbearer.config", "nobody signed"),
            ("auto.offset.reset", "Tidegate sets it"),
            ("group.id", "Tidegate sets it"),
            ("bootstrap.server", "did you mean `bootstrap.servers`"),
            ("no.such.thing.at.all", "expected one of"),
        ] {
            let said = said(key, Value::Text("x"));
            assert!(said.contains(why), "{key}: {said}");
        }
    }

    #[test]
    fn the_page_names_what_may_be_given_and_nothing_else() {
        let page = include_str!("../../../docs/kafka.md");
        let named = |from: &str, to: &str| -> Vec<String> {
            let (_, rest) = page.split_once(from).unwrap();
            let (part, _) = rest.split_once(to).unwrap();
            let code = part.split('`').skip(1).step_by(2);
            code.filter(|word| *word != "secrets").map(str::to_owned).collect()
        };
        assert_eq!(named("<!-- allowed -->", "<!-- secret -->"), ALLOWED);
        assert_eq!(named("<!-- secret -->", "<!-- end -->"), SECRET);
    }

    #[test]
    fn a_broker_is_a_host_and_a_port_to_whoever_reads_it() {
        for text in ["a", "a:9092", "a-b.c_d:1,[::1]:9092 , SASL_SSL://x:9093"] {
            assert_eq!(said("bootstrap.servers", Value::Text(text)), "allowed", "{text}");
        }
        for text in
            ["", "a:9092,", "SASL_PLAINTEXT://evil:9092/x://good:9092", "u:p@a:9092", "a:9092/x", "a:99999", "a b"]
        {
            assert!(said("bootstrap.servers", Value::Text(text)).contains("is not a broker"), "{text}");
        }
    }

    #[test]
    fn sizes_that_would_take_all_memory_are_refused() {
        assert!(said("queued.max.messages.kbytes", Value::Text("2097151")).contains("at most 65536"));
        assert_eq!(said("queued.max.messages.kbytes", Value::Text("4096")), "allowed");
    }

    #[test]
    fn secrets_come_by_reference_and_nothing_else_needs_to() {
        for key in SECRET {
            assert_eq!(said(key, Value::Secret), "allowed");
            assert!(said(key, Value::Text("hunter2")).contains("is a secret"));
            assert!(!said(key, Value::Text("hunter2")).contains("hunter2"));
        }
        assert_eq!(said("sasl.username", Value::Secret), "allowed");
        assert_eq!(said("ssl.ca.pem", Value::Secret), "allowed");
        for key in ["fetch.max.bytes", "sasl.oauthbearer.token.endpoint.url", "sasl.mechanism"] {
            assert!(said(key, Value::Secret).contains("is no secret"), "{key}");
        }
        assert!(said("isolation.level", Value::Text("committed")).contains("read_committed"));
    }
}
