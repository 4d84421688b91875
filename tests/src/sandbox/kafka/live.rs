//! A live job beside which a backfill runs: a topic, and a group that stands in its middle.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::json;

use super::super::world::{Ended, PATIENCE, World};
use super::super::{BEGIN, wait_until};
use super::{Broker, Record};

/// A topic of two partitions with records at every minute from [`BEGIN`] on, and a group that stands in its middle.
#[derive(Debug)]
pub struct Live {
    /// Where it is looked at.
    pub world: World,
    /// Where it runs.
    pub broker: &'static Broker,
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
}

impl Live {
    /// Partition 0 has 20 records, of which the group has read 8; partition 1 has 10, all read.
    #[allow(clippy::new_without_default, reason = "it waits for a broker")]
    pub async fn new() -> Self {
        let broker = Broker::shared().await;
        let (topic, group) = (Broker::name("checkpoint"), Broker::name("group"));
        broker.create_topic(&topic, 2, &[]).await;
        let at = |partition, minute: i64| Record::to(partition).value("v").at(BEGIN / 1_000 + minute * 60_000);
        broker.produce(&topic, &(0..20).map(|minute| at(0, minute)).collect::<Vec<_>>());
        broker.produce(&topic, &(0..10).map(|minute| at(1, minute)).collect::<Vec<_>>());
        broker.commit_offsets(&group, &topic, &[(0, 8), (1, 10)]);
        Self { world: World::new(), broker, topic, group }
    }

    /// A spec that reads the topic, with this live job, whose commands leave a trace.
    pub fn spec(&self) -> String {
        format!(
            "version: 1
kind: backfill
name: replay
live: {{group: {}, pause: 'echo paused >> trace', resume: 'echo resumed >> trace'}}
sources:
  s: {{kafka: {{topic: {}, properties: {{bootstrap.servers: '{}'}}, format: {{type: raw}}}}}}
outputs:
  o: {{table: lake.replayed}}
",
            self.group,
            self.topic,
            self.broker.bootstrap()
        )
    }

    /// What `tidegate handoff` writes of a backfill that read the first partition from `from` to `next`.
    pub fn hand_over(&self, from: i64, next: i64, covers: bool) -> String {
        let partition = json!({"partition": 0, "from": from, "next": next});
        let topic = json!({"source": "s", "topic": self.topic, "partitions": [partition]});
        json!({
            "kind": "HandOver", "version": 1, "made_at": "2026-01-01T00:00:00Z", "backfill": "bf-aaaaaaaaaaaaaaaa", "name": "b",
            "group": self.group, "covers": covers, "topics": [topic],
        })
        .to_string()
    }

    /// Where the group stands in both partitions.
    pub fn positions(&self) -> [Option<i64>; 2] {
        [0, 1].map(|partition| self.broker.committed_offset(&self.group, &self.topic, partition))
    }

    /// `tidegate checkpoint` with `words`, at its broker.
    pub async fn run(&self, words: &[&str]) -> Ended {
        let named = ["--bootstrap-server", self.broker.bootstrap()];
        self.world.run(&[&["checkpoint"], words, &named[..]].concat()).await
    }

    /// The same of its group.
    pub async fn on_group(&self, words: &[&str]) -> Ended {
        self.run(&[words, &["--group", &self.group]].concat()).await
    }

    /// A reset of its group in its topic, as `words` say.
    pub async fn reset(&self, words: &[&str]) -> Ended {
        self.on_group(&[&["reset", "--topic", &self.topic], words].concat()).await
    }

    /// The same, confirmed.
    pub async fn reset_for_good(&self, words: &[&str]) -> Ended {
        self.reset(&[words, &["--execute", "--confirm", &self.group, "-o", "json"]].concat()).await
    }

    /// A member of the group, which has its partitions.
    ///
    /// # Panics
    /// When it does not get them.
    pub async fn member(&self, settings: &[(&str, &str)]) -> BaseConsumer {
        let own = [("group.id", self.group.as_str()), ("enable.auto.commit", "false"), ("client.id", "the-live-job")];
        let member = self.broker.consumer(&[&own[..], settings].concat());
        member.subscribe(&[&self.topic]).unwrap();
        wait_until("the member to have its partitions", PATIENCE, async || {
            let _ = member.poll(Duration::from_millis(100));
            (member.assignment().unwrap().count() == 2).then_some(())
        })
        .await;
        member
    }
}
