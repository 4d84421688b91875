//! Being asked to stop: Ctrl-C or SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Error, Exit};

/// Hears that the process is asked to stop; from when it is made on, a signal no longer ends the process by itself.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Begins to hear.
    ///
    /// # Errors
    /// A system that does not let it.
    pub(super) fn new() -> Result<Self, Error> {
        let hear =
            |kind| signal(kind).map_err(|error| Error::new(Exit::Failed, "signals cannot be heard").because(error));
        Ok(Self { terminate: hear(SignalKind::terminate())?, interrupt: hear(SignalKind::interrupt())? })
    }

    /// Waits for the next signal; the answer is how the process ends if it is not given the time to end by itself.
    pub(super) async fn asked(&mut self) -> Exit {
        tokio::select! {
            _ = self.terminate.recv() => Exit::Terminated,
            _ = self.interrupt.recv() => Exit::Interrupted,
        }
    }
}
