//! What a spec may connect to, and as whom; how long it waits.

use rdkafka::mocking::MockCluster;
use tidegate_common::spec::model::{KafkaSpec, RecordFormat, RecordFormatSpec, Secret};

use super::*;

fn spec(properties: &[(&str, &str)], secrets: &[(&str, Secret)]) -> KafkaSpec {
    let format = RecordFormatSpec {
        r#type: RecordFormat::Raw,
        schema: None,
        schema_registry: None,
        avro_schema: None,
        descriptor_set: None,
        message: None,
        csv: None,
        changes: None,
    };
    KafkaSpec {
        topic: "t".to_owned(),
        properties: properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        secrets: secrets.iter().map(|(key, secret)| ((*key).to_owned(), secret.clone())).collect(),
        scan: None,
        format,
        rate_limit: None,
    }
}

fn refused(spec: &KafkaSpec, access: &Access) -> String {
    Cluster::of(spec, access).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn only_allowed_brokers_are_connected_to() {
    let brokers = spec(&[("bootstrap.servers", "a:9092, SASL_SSL://b:9093")], &[]);
    let allowed = |hosts: &[&str]| Access {
        endpoints: Some(hosts.iter().map(|host| (*host).to_owned()).collect()),
        ..Access::local()
    };
    assert_eq!(refused(&brokers, &Access::local()), "");
    assert_eq!(refused(&brokers, &allowed(&["a", "b:9093"])), "");
    assert!(refused(&brokers, &allowed(&["a"])).contains("the broker b:9093: add it to allow.endpoints"));
    assert!(refused(&brokers, &Access::none()).contains("the broker a:9092"));
    let token = ("sasl.oauthbearer.token.endpoint.url", "https://evil.example/token");
    let token = spec(&[("bootstrap.servers", "a:9092"), token], &[]);
    assert!(refused(&token, &allowed(&["a"])).contains("evil.example"));
}

#[test]
fn what_the_binary_was_built_without_is_named() {
    for (mechanism, feature, is_built) in
        [("GSSAPI", "gssapi", cfg!(feature = "gssapi")), ("oauthbearer", "oidc", cfg!(feature = "oidc"))]
    {
        let spec = spec(&[("bootstrap.servers", "a:9092"), ("sasl.mechanism", mechanism)], &[]);
        let said = refused(&spec, &Access::local());
        assert_eq!(said.contains(&format!("--features {feature}")), !is_built, "{said}");
    }
}

#[test]
fn a_secret_that_is_not_there_is_named_and_one_that_is_there_is_not_shown() {
    let variable = |name: &str| Secret { from_env: Some(name.to_owned()), from_file: None };
    let brokers = ("bootstrap.servers", "a:9092");
    let missing = spec(&[brokers], &[("sasl.password", variable("TIDEGATE_NO_SUCH_SECRET"))]);
    assert!(
        refused(&missing, &Access::local()).contains("sasl.password: the environment variable TIDEGATE_NO_SUCH_SECRET")
    );
    let there = spec(&[brokers], &[("sasl.password", variable("PATH"))]);
    let cluster = Cluster::of(&there, &Access::local()).unwrap();
    let path = std::env::var("PATH").unwrap();
    assert!(!format!("{cluster:?}").contains(&path));
    assert!(refused(&there, &Access { env: Some(Vec::new()), ..Access::local() }).contains("allow.env"));
}

#[test]
fn what_a_setting_of_the_library_may_not_be_is_said_with_its_name() {
    let wrong = spec(&[("bootstrap.servers", "a:9092"), ("fetch.max.bytes", "many")], &[]);
    let error = Cluster::of(&wrong, &Access::local()).unwrap().client().err().unwrap().to_string();
    assert!(error.contains("fetch.max.bytes") && error.contains("kafka.properties"), "{error}");
}

#[test]
fn a_log_that_ends_too_early_is_told_when_nothing_came_for_long_however_often_was_asked() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    let cluster = Cluster::of(&spec(&[("bootstrap.servers", &mock.bootstrap_servers())], &[]), &Access::local());
    let client = cluster.unwrap().client().unwrap();
    let mut fetcher = Fetcher::new(&client, "t", false);
    fetcher.patience = Duration::from_secs(1);
    let mut asked = 0;
    let broken = loop {
        asked += 1;
        match fetcher.next(0, 0, 10) {
            Ok(Arrived::Some(records)) => assert!(records.offsets.is_empty() && asked < 1_000),
            Ok(Arrived::Last(_)) => panic!("there are no ten records"),
            Err(broken) => break broken,
        }
    };
    assert!(matches!(broken, Broken::Truncated { end: 0 }) && asked > 1, "{broken:?} after {asked}");
}
