//! Given words on the command line, what clap makes of them.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let kind = |words: &[&str]| Cli::try_parse_from(words).map(|_| ()).map_err(|error| error.kind());
    let apply = ["tidegate", "apply", "a.yaml", "--dry-run"];
    assert_eq!(kind(&[&apply[..], &["--detach"]].concat()), Err(ErrorKind::ArgumentConflict));
    assert_eq!(kind(&[&apply[..], &["--yes"]].concat()), Err(ErrorKind::ArgumentConflict));
    assert_eq!(kind(&["tidegate", "status", "x", "--timeout", "9s"]), Err(ErrorKind::MissingRequiredArgument));
    assert_eq!(kind(&["tidegate", "status", "x", "--wait", "--timeout", "soon"]), Err(ErrorKind::ValueValidation));
    assert_eq!(kind(&["tidegate", "coordinator", "--lease", "1us"]), Err(ErrorKind::ValueValidation));
    let both = ["tidegate", "plan", "a.yaml", "--window", "2024-01-01/2024-01-02", "--last", "7d"];
    assert_eq!(kind(&both), Err(ErrorKind::ArgumentConflict));
    assert_eq!(kind(&["tidegate", "list", "-o", "xml"]), Err(ErrorKind::InvalidValue));
    assert_eq!(kind(&["tidegate", "-o", "json", "list", "-q"]), Ok(()));
}

#[test]
fn the_commands_of_the_units_that_are_shipped_are_read() {
    for unit in [
        include_str!("../../../deploy/systemd/tidegate-coordinator.service"),
        include_str!("../../../deploy/systemd/tidegate-worker@.service"),
    ] {
        let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).unwrap();
        let read = Cli::try_parse_from(command.split(' '));
        assert!(read.is_ok(), "{command}: {}", read.err().map(|error| error.to_string()).unwrap_or_default());
    }
}
