//! Brokers that want TLS and a password: who has both is served; who has not is told at once what is wrong, and no secret is
//! ever shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_common::clock::monotonic;
use tidegate_tests::sandbox::kafka::{Isolation, Record, Replay, Secured};
use tidegate_tests::sandbox::{BEGIN, Broker, Ended};
use tokio::sync::OnceCell;

static SHARED: OnceCell<Secured> = OnceCell::const_new();

const VARIABLE: &str = "TEST_KAFKA_PASSWORD";
/// Long before a client gives up that only waits.
const SOON: Duration = Duration::from_secs(20);

async fn secured() -> &'static Secured {
    SHARED.get_or_init(Secured::start).await
}

/// A topic of a few records.
async fn topic(broker: &Broker) -> String {
    let topic = Broker::name("secured");
    broker.create_topic(&topic, 2, &[]).await;
    let record = |at: i64| Record::to((at % 2).try_into().unwrap()).value(format!("value {at}")).at(BEGIN / 1_000 + at);
    broker.produce(&topic, &(0..40).map(record).collect::<Vec<_>>());
    topic
}

/// Its replay by the listener that asks, with `password`, and `authority` trusted.
fn replay(secured: &Secured, topic: &str, mechanism: &str, password: &str, authority: &Path) -> Replay {
    let mut replay = Replay::of(&secured.broker, topic);
    replay.world.set_env(VARIABLE, password);
    fs::copy(authority, replay.world.root().join("ca.pem")).unwrap();
    let file = replay.world.root().join("tidegate.yaml");
    let mut config: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    config["allow"]["env"] = json!([VARIABLE]);
    replay.world.write("tidegate.yaml", &config.to_string());
    let authority = replay.world.root().join("ca.pem");
    replay
        .property("bootstrap.servers", &secured.address())
        .property("security.protocol", "SASL_SSL")
        .property("sasl.mechanism", mechanism)
        .property("sasl.username", Secured::USER)
        .with(
            "/sources/events/kafka/secrets",
            json!({"sasl.password": {"from_env": VARIABLE}, "ssl.ca.pem": {"from_file": authority}}),
        )
}

/// Nothing that was said or written holds `secret`.
fn must_hide(replay: &Replay, ended: &Ended, secret: &str) {
    assert!(!ended.said().contains(secret), "{}", ended.said());
    let mut open = vec![replay.world.root().to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{} holds it", path.display());
        }
    }
}

#[tokio::test]
async fn given_a_password_and_an_authority_by_reference_when_replayed_over_tls_then_it_is_exact_and_the_secret_stays_one()
 {
    let secured = secured().await;
    let topic = topic(&secured.broker).await;
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let replay = replay(secured, &topic, mechanism, Secured::PASSWORD, &secured.authority());
        let ended = replay.run().await.with(0);
        replay.must_balance(&ended.json());
        replay.must_hold(&secured.broker.content(&topic, Isolation::Committed));
        must_hide(&replay, &ended, Secured::PASSWORD);
    }
}

/// Plans `replay`, which is refused soon with the exit code `code` and these words, and shows no secret.
async fn refused(replay: Replay, code: i32, secret: &str, words: &[&str]) {
    let began = monotonic();
    let ended = replay.world.run(&["plan", Replay::SPEC]).await.with(code).saying(words);
    let took = monotonic().since(began);
    println!("refused after {took:?}");
    assert!(took < SOON, "{took:?}: {ended:?}");
    must_hide(&replay, &ended, secret);
}

#[tokio::test]
async fn given_a_wrong_password_when_planned_then_it_is_refused_at_once_and_not_shown() {
    let secured = secured().await;
    let topic = topic(&secured.broker).await;
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let wrong = "a-password-of-nobody";
        let replay = replay(secured, &topic, mechanism, wrong, &secured.authority());
        refused(replay, 4, wrong, &[&secured.address(), "refuses", "check the credentials"]).await;
    }
}

#[tokio::test]
async fn given_an_authority_that_is_not_the_brokers_when_planned_then_it_is_refused_at_once_with_the_setting_to_mend() {
    let secured = secured().await;
    let topic = topic(&secured.broker).await;
    let stranger = replay(secured, &topic, "PLAIN", Secured::PASSWORD, &secured.stranger());
    refused(stranger, 4, Secured::PASSWORD, &[&secured.address(), "certificate", "ssl.ca.pem"]).await;
}

#[tokio::test]
async fn given_no_tls_where_brokers_want_it_when_planned_then_the_setting_to_mend_is_named() {
    let secured = secured().await;
    let topic = topic(&secured.broker).await;
    let plain = replay(secured, &topic, "PLAIN", Secured::PASSWORD, &secured.authority());
    let plain = plain.property("security.protocol", "SASL_PLAINTEXT");
    refused(plain, 75, Secured::PASSWORD, &[&secured.address(), "security.protocol"]).await;
}

#[tokio::test]
async fn given_a_spec_with_secrets_when_its_live_group_is_looked_at_then_they_are_used_and_a_wrong_one_is_not_shown() {
    let secured = secured().await;
    let (topic, group) = (topic(&secured.broker).await, Broker::name("group"));
    secured.broker.commit_offsets(&group, &topic, &[(0, 5), (1, 20)]);
    let inspect = ["checkpoint", "inspect", "--spec", Replay::SPEC, "--group", &group, "-o", "json"];
    let right = replay(secured, &topic, "SCRAM-SHA-512", Secured::PASSWORD, &secured.authority());
    let seen = right.world.run(&inspect).await.with(0);
    assert_eq!(seen.json()["lag"], 15);
    must_hide(&right, &seen, Secured::PASSWORD);

    let wrong = "a-password-of-nobody";
    let stranger = replay(secured, &topic, "SCRAM-SHA-512", wrong, &secured.authority());
    let refused = stranger.world.run(&inspect).await.with(4);
    must_hide(&stranger, &refused, wrong);
    refused.saying(&[&secured.address(), "refuses", "check the credentials"]);
}
