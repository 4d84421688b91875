//! `checkpoint`: the positions of consumer groups and of Spark's checkpoint folders.

mod backup;
mod inspect;
mod list;
mod moving;
mod reset;
mod subject;
mod verify;

pub(super) use self::backup::{keep_group, write_new};
pub(super) use self::inspect::inspect_group;
pub(super) use self::reset::hand_over;

use tidegate_worker::checkpoint::CheckpointError;
use tidegate_worker::failure::Classify;

use super::Context;
use crate::args::CheckpointCommand;
use crate::exit::{Error, Exit, Outcome};

/// Does what `command` says.
pub(super) async fn checkpoint(command: CheckpointCommand, context: &Context) -> Outcome {
    match command {
        CheckpointCommand::List(of) => list::list(of, context).await,
        CheckpointCommand::Inspect(of) => inspect::inspect(of, context).await,
        CheckpointCommand::Backup(args) => backup::backup(args, context).await,
        CheckpointCommand::Verify(args) => verify::verify(args, context).await,
        CheckpointCommand::Restore(args) => reset::restore(args, context).await,
        CheckpointCommand::Reset(args) => reset::reset(args, context).await,
    }
}

/// What an error of the room means here.
pub(super) fn failed(error: CheckpointError) -> Error {
    let exit = error.exit_code().and_then(Exit::from_code).unwrap_or(Exit::Failed);
    let hint = error.hint();
    let told = Error::new(exit, tidegate_worker::failure::chain(&error));
    match hint {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// Calls of the client wait for their answer; the thread is given up for as long.
pub(super) fn asked<T>(ask: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, Error> {
    tokio::task::block_in_place(ask).map_err(failed)
}
