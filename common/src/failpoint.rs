//! Failpoints: named places where a test makes this process die or fail.
//!
//! They exist in debug builds only, where the environment arms them:
//! `TIDEGATE_FAILPOINTS="commit.before-swap=abort@1;commit.after-swap=error;file.after-close=stop"`. An `@n` fires at
//! the n-th hit alone; without one every hit fires. `stop` lets the process stand still, as SIGSTOP does, until it is told to go on. A point that fires first appends its name and a line break to the file that
//! `TIDEGATE_FAILPOINTS_LOG` names, synced, so that a test can assert that the fault it asked for happened. In a
//! release build [`hit`] is nothing at all.

/// A failpoint that was told to fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failpoint {0} was told to fail")]
pub struct Injected(pub String);

/// Passes the point `name`: returns an error, ends the process as `kill -9` would, or, mostly, does nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn hit(_name: &str) -> Result<(), Injected> {
    Ok(())
}

/// Passes the point `name`: returns an error, ends the process as `kill -9` would, or, mostly, does nothing.
#[cfg(debug_assertions)]
pub fn hit(name: &str) -> Result<(), Injected> {
    static ARMED: std::sync::OnceLock<armed::Points> = std::sync::OnceLock::new();
    let points = ARMED.get_or_init(|| armed::Points::parse(&std::env::var("TIDEGATE_FAILPOINTS").unwrap_or_default()));
    match points.fires(name) {
        None => Ok(()),
        Some(action) => {
            armed::log(name);
            match action {
                armed::Action::Abort => std::process::abort(),
                armed::Action::Error => Err(Injected(name.to_owned())),
                armed::Action::Stop => {
                    armed::stop();
                    Ok(())
                }
            }
        }
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Action {
        Abort,
        Error,
        Stop,
    }

    #[derive(Debug)]
    struct Point {
        action: Action,
        only: Option<u64>,
        hits: AtomicU64,
    }

    #[derive(Debug, Default)]
    pub(super) struct Points(BTreeMap<String, Point>);

    impl Points {
        /// What it cannot read it names on standard error: a misspelt fault must not look like a passed test.
        pub(super) fn parse(text: &str) -> Self {
            let mut points = BTreeMap::new();
            for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
                match parse_one(part) {
                    Some((name, point)) => drop(points.insert(name, point)),
                    None => {
                        eprintln!(
                            "TIDEGATE_FAILPOINTS: {part:?} is not name=abort, name=error or name=stop, with or without @n"
                        )
                    }
                }
            }
            Self(points)
        }

        pub(super) fn fires(&self, name: &str) -> Option<Action> {
            let point = self.0.get(name)?;
            let hit = point.hits.fetch_add(1, Ordering::Relaxed) + 1;
            point.only.is_none_or(|only| only == hit).then_some(point.action)
        }
    }

    fn parse_one(part: &str) -> Option<(String, Point)> {
        let (name, action) = part.split_once('=')?;
        let (action, only) = match action.split_once('@') {
            Some((action, nth)) => (action, Some(nth.parse().ok()?)),
            None => (action, None),
        };
        let action = match action {
            "abort" => Action::Abort,
            "error" => Action::Error,
            "stop" => Action::Stop,
            _ => return None,
        };
        Some((name.to_owned(), Point { action, only, hits: AtomicU64::new(0) }))
    }

    /// Stands still until SIGCONT.
    pub(super) fn stop() {
        let own = std::process::id().to_string();
        let told = std::process::Command::new("sh").args(["-c", "kill -s STOP \"$1\"", "kill", &own]).status();
        if !told.is_ok_and(|told| told.success()) {
            eprintln!("TIDEGATE_FAILPOINTS: this process cannot be stopped");
        }
    }

    pub(super) fn log(name: &str) {
        let Some(path) = std::env::var_os("TIDEGATE_FAILPOINTS_LOG") else { return };
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()).and_then(|()| file.sync_all()));
        if let Err(error) = written {
            eprintln!("TIDEGATE_FAILPOINTS_LOG: {error}");
        }
    }

    #[cfg(test)]
    mod tests {
        use super::{Action, Points};

        #[test]
        fn given_an_nth_hit_when_hit_more_often_then_it_fires_once() {
            let points = Points::parse("a=abort@2; b=error;c=what;d");
            assert_eq!([points.fires("a"), points.fires("a"), points.fires("a")], [None, Some(Action::Abort), None]);
            assert_eq!([points.fires("b"), points.fires("b")], [Some(Action::Error); 2]);
            assert_eq!([points.fires("c"), points.fires("d"), points.fires("e")], [None; 3]);
        }
    }
}
