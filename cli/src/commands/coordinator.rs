//! `coordinator`: the embedded stores, the driver and its gRPC, until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_coordinator::core;
use tidegate_coordinator::driver::{Driver, DriverError};
use tidegate_coordinator::service;
use tidegate_coordinator::store::StoreError;
use tidegate_coordinator::store::blobs::Blobs;
use tidegate_coordinator::store::redb::RedbStore;
use tonic::transport::server::TcpIncoming;

use super::Context;
use super::stop::Stop;
use crate::args;
use crate::exit::{Error, Exit, Outcome};
use crate::output;

/// How long connections that are open may take to end. Nothing that is durable waits for them.
const FAREWELL: Duration = Duration::from_secs(3);

/// Runs a coordinator.
pub(super) async fn coordinator(args: args::Coordinator, context: &Context) -> Outcome {
    let listen = context.config.listen.value;
    check_listen(listen, args.insecure_listen_anywhere)?;
    let mut stop = Stop::new()?;
    let state = &context.config.state.value;
    let meta = RedbStore::open(state).await.map_err(|error| store_error(error, state.display()))?;
    let blobs = Blobs::local(state.join("blobs"));
    let config = core::Config {
        lease: args.lease,
        grace: args.lease,
        max_commit_tries: args.commit_tries,
        ..core::Config::default()
    };
    let (handle, driver) = Driver::open(config, Arc::new(meta), blobs).await.map_err(driver_error)?;
    let incoming = TcpIncoming::bind(listen).map_err(|error| {
        Error::new(Exit::Failed, format!("cannot listen on {listen}"))
            .because(error)
            .hint("another coordinator may run there: choose another --listen, or port 0 for a free one")
    })?;
    let incoming = incoming.with_nodelay(Some(true));
    let at = incoming.local_addr().map_err(|error| Error::new(Exit::Failed, "cannot listen").because(error))?;
    let router = service::router(handle).await;
    let mut driver = tokio::spawn(driver.run());
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut server = tokio::spawn(router.serve_with_incoming_shutdown(incoming, async move {
        // a sender that is dropped says the same
        let _ = stopped.await;
    }));
    output::say(&format!("listening on http://{at}"));
    tokio::select! {
        ended = &mut driver => return Err(match ended {
            Ok(Err(error)) => driver_error(error),
            Ok(Ok(())) => Error::new(Exit::Failed, "the coordinator ended by itself"),
            Err(error) => Error::new(Exit::Failed, "the coordinator was cut short").because(error),
        }),
        ended = &mut server => return Err(match ended {
            Ok(Err(error)) => Error::new(Exit::Failed, format!("serving http://{at} failed")).because(error),
            Ok(Ok(())) => Error::new(Exit::Failed, format!("serving http://{at} ended by itself")),
            Err(error) => Error::new(Exit::Failed, "the server was cut short").because(error),
        }),
        _ = stop.asked() => {}
    }
    context.say("stopping: what was accepted is durable, workers go on when a coordinator is back; once more to force");
    drop(stopping);
    let farewell = async {
        // whichever of them does not end in time is a connection that stays open
        let _ = server.await;
        let _ = driver.await;
    };
    tokio::select! {
        _ = tokio::time::timeout(FAREWELL, farewell) => Ok(Exit::Done),
        exit = stop.asked() => Ok(exit),
    }
}

/// Nothing is encrypted and nobody is asked who they are: other machines connect only when that is asked for.
fn check_listen(listen: SocketAddr, anywhere: bool) -> Result<(), Error> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    if !anywhere {
        return Err(Error::usage(format!("{listen} can be reached from other machines, and this release has no TLS"))
            .hint("listen on 127.0.0.1, or say --insecure-listen-anywhere on a network where everyone is trusted"));
    }
    output::say(&format!(
        "warning: {listen} can be reached from other machines. Nothing is encrypted, and whoever connects may run, \
         cancel and read backfills as you may."
    ));
    Ok(())
}

fn store_error(error: StoreError, state: impl std::fmt::Display) -> Error {
    let exit = if error.is_retryable() { Exit::Temporary } else { Exit::Failed };
    Error::new(exit, format!("the state in {state} cannot be opened")).because(error)
}

fn driver_error(error: DriverError) -> Error {
    let exit = match &error {
        DriverError::Store(store) if store.is_retryable() => Exit::Temporary,
        _ => Exit::Failed,
    };
    Error::new(exit, "the coordinator has stopped").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_connect_unless_it_is_asked_for() {
        let refused = |listen: &str, anywhere| check_listen(listen.parse().unwrap(), anywhere).err();
        assert!(refused("127.0.0.1:0", false).is_none());
        assert!(refused("[::1]:7411", false).is_none());
        assert_eq!(refused("0.0.0.0:7411", false).unwrap().exit(), Exit::Usage);
        assert_eq!(refused("[::]:7411", false).unwrap().exit(), Exit::Usage);
        assert!(refused("0.0.0.0:7411", true).is_none());
    }
}
