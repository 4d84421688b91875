//! The live job of a spec: checked, and taken out of what is stored and sent.

use super::error::SpecError;
use super::model::{LiveSpec, Spec};
use super::resolve::Findings;
use super::resolve_kafka::check_group;

/// No command is longer, in bytes.
const LONGEST: usize = 8 << 10;

/// Takes the live job out of `spec`.
pub(super) fn take(spec: &mut Spec, findings: &mut Findings) -> Option<LiveSpec> {
    let live = spec.live.take()?;
    findings.keep("group", check_group(&live.group));
    for (key, command) in [("pause", &live.pause), ("resume", &live.resume)] {
        if let Some(command) = command {
            findings.keep(key, check_command(command));
        }
    }
    if spec.sources.values().all(|source| source.topic().is_none()) {
        let error = SpecError::new("it names a consumer group, and no source reads Kafka");
        findings.here(error.hint("take `live` away, or read the topic of that group"));
    }
    Some(live)
}

fn check_command(command: &str) -> Result<(), SpecError> {
    if command.trim().is_empty() {
        return Err(SpecError::new("the command is empty").hint("take the key away where there is no such command"));
    }
    if command.len() > LONGEST || command.contains('\0') {
        return Err(SpecError::new("the command is too long, or holds a zero byte").hint("write a script, and name it"));
    }
    Ok(())
}
