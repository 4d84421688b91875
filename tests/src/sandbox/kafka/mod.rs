//! A Kafka broker: Apache Kafka itself, one process that is broker and controller, on ports of its own, with a data folder of
//! its own, and gone with the test; what tests do to it; and the truth about what its topics hold.
//!
//! [`Broker::shared`] is the one that tests of a binary share, under names of their own. A test that lets its broker die, or
//! wants other settings, starts one with [`Broker::start`].

mod content;
mod live;
mod producing;
mod replay;
mod secured;
mod server;
mod topics;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::BaseConsumer;
use tokio::sync::OnceCell;

pub use content::{Held, Isolation, inside};
pub use live::Live;
pub use producing::{Record, Writer};
pub use replay::Replay;
pub use secured::Secured;
use server::Server;

use super::wait_until;
use super::world::PATIENCE;

/// The broker that the tests of one binary share.
static SHARED: OnceCell<Broker> = OnceCell::const_new();

/// Names a broker that the tests shall use: `host:port`.
const GIVEN: &str = "TIDEGATE_TEST_KAFKA";

/// The longest that one request to it may take.
const REQUEST: Duration = Duration::from_secs(30);

/// A Kafka broker.
pub struct Broker {
    bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    /// Its process; none where the user gave the broker.
    server: Option<Server>,
}

impl Broker {
    /// The one that tests share: that of `TIDEGATE_TEST_KAFKA`, or one that ends with the test's process. Topics and groups
    /// on it need names that no other test uses: see [`Broker::name`].
    pub async fn shared() -> &'static Self {
        SHARED
            .get_or_init(async || match std::env::var(GIVEN) {
                Ok(bootstrap) => Self::at(bootstrap, None).await,
                Err(_) => Self::start_with(&[]).await,
            })
            .await
    }

    /// One of the test's own, which it may kill.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One of the test's own with more settings, as in `server.properties`.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        if let Ok(given) = std::env::var(GIVEN) {
            println!("this test kills its broker or needs its settings: it starts one and leaves {given} alone");
        }
        let server = Server::start(settings);
        Self::at(server.address(), Some(server)).await
    }

    async fn at(bootstrap: String, server: Option<Server>) -> Self {
        let admin = client(&bootstrap, &[]);
        let mut broker = Self { bootstrap, admin, server };
        broker.until_up().await;
        broker
    }

    /// Its address, `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A name that nobody else uses on it, for a topic, a group or a writer; it begins with `what`.
    pub fn name(what: &str) -> String {
        format!("{what}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
    }

    /// A plain consumer, with more of librdkafka's settings.
    ///
    /// # Panics
    /// When there is no such setting.
    pub fn consumer(&self, settings: &[(&str, &str)]) -> BaseConsumer {
        client(&self.bootstrap, settings)
    }

    /// Kills it as a power failure would, and waits until it is gone.
    ///
    /// # Panics
    /// When the user gave it.
    pub fn crash(&mut self) {
        self.own().crash();
    }

    /// Starts it again, on its data and its ports; waits until it answers.
    ///
    /// # Panics
    /// When it does not come back.
    pub async fn restart(&mut self) {
        self.own().run_again();
        self.until_up().await;
    }

    /// What its process has said since it was last started.
    pub fn said(&self) -> String {
        self.server.as_ref().map(Server::said).unwrap_or_default()
    }

    fn own(&mut self) -> &mut Server {
        self.server.as_mut().unwrap_or_else(|| panic!("a broker given by {GIVEN} is not ours to kill"))
    }

    /// Waits until it says of itself that it is a broker of its cluster: then it takes requests.
    async fn until_up(&mut self) {
        let Self { bootstrap, admin, server } = self;
        wait_until(&format!("the Kafka broker at {bootstrap}"), PATIENCE, async || {
            if let Some(server) = server.as_mut() {
                assert!(server.is_alive(), "the Kafka broker has ended: {}", server.said());
            }
            let metadata = admin.inner().fetch_metadata(Some("__cluster_metadata"), Duration::from_secs(1)).ok()?;
            (!metadata.brokers().is_empty()).then_some(())
        })
        .await;
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Broker").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

/// Settings of a client that comes back soon after its broker does.
fn settings(bootstrap: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", bootstrap);
    settings.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
    for (key, value) in more {
        settings.set(*key, *value);
    }
    settings
}

fn client<C: FromClientConfig>(bootstrap: &str, more: &[(&str, &str)]) -> C {
    settings(bootstrap, more).create().unwrap_or_else(|error| panic!("a client with {more:?}: {error}"))
}
