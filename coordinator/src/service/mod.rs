//! gRPC: the worker protocol and the operator API, with health and reflection. It turns messages into events and
//! decides nothing.

mod events;
mod inbound;
mod operator;
mod workers;

use tidegate_proto::v1;
use tonic::transport::server::Router;

use crate::driver::Coordinator;

/// The largest message that is taken or sent, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Every service of a coordinator, ready to be served.
pub async fn router(coordinator: Coordinator) -> Router {
    use v1::{operator_server::OperatorServer, workers_server::WorkersServer};
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<WorkersServer<workers::WorkerService>>().await;
    health.set_serving::<OperatorServer<operator::OperatorService>>().await;
    let workers = WorkersServer::new(workers::WorkerService::new(coordinator.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let operator = OperatorServer::new(operator::OperatorService::new(coordinator))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let mut server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(std::time::Duration::from_secs(10)));
    let router = server.add_service(workers).add_service(operator).add_service(health_service);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tidegate_proto::DESCRIPTORS)
        .build_v1();
    match reflection {
        Ok(reflection) => router.add_service(reflection),
        Err(error) => {
            tracing::warn!(%error, "gRPC reflection is off");
            router
        }
    }
}
