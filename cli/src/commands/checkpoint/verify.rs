//! `checkpoint verify`: whether positions, a folder or a backup can still be read from.

use std::path::Path;

use serde::Serialize;
use tidegate_worker::checkpoint::spark::{self, Checkpoint};
use tidegate_worker::checkpoint::{self, Brokers, Finding, GroupBackup, Scope};

use super::subject::{Subject, folder, text};
use super::{asked, failed};
use crate::args::CheckpointVerify;
use crate::commands::Context;
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Format};
use crate::style::plain;

/// What was found; `kind: CheckpointVerification`.
#[derive(Serialize)]
struct View<'a> {
    of: &'a str,
    /// Whether everything is as it should be.
    matches: bool,
    findings: Vec<FindingView<'a>>,
}

#[derive(Serialize)]
struct FindingView<'a> {
    of: &'a str,
    holds: bool,
    text: &'a str,
}

/// Verifies.
pub(super) async fn verify(args: CheckpointVerify, context: &Context) -> Outcome {
    let subject = Subject::read(&args.of)?;
    let (of, findings) = match (&args.backup, &subject.spark) {
        (Some(backup), None) if !Path::new(backup).is_dir() && !backup.contains("://") => {
            let kept = GroupBackup::read(&text(Path::new(backup))?, backup).map_err(failed)?;
            let brokers = subject.group(Some(&kept.group))?;
            (backup.clone(), asked(|| checkpoint::verify_backup(&brokers, &kept))?)
        }
        (Some(backup), _) => (backup.clone(), spark::verify_copy(&folder(backup)?).await.map_err(failed)?.1),
        (None, Some(folder)) => {
            let checkpoint = Checkpoint::load(folder).await.map_err(failed)?;
            let mut findings = checkpoint.verify().await.map_err(failed)?;
            if let (Some(brokers), Some((_, offsets))) = (subject.logs()?, &checkpoint.last) {
                let positions = offsets.positions();
                let of = positions.keys().cloned().collect();
                let facts = asked(|| checkpoint::inspect(&brokers, &of, &positions))?;
                findings.extend(checkpoint::verify_positions(&facts));
            }
            (folder.shown().to_owned(), findings)
        }
        (None, None) => {
            let brokers = subject.group(None)?;
            (brokers.group_name().to_owned(), of_group(&brokers, &subject.scope())?)
        }
    };
    print(&of, &findings, context)
}

fn of_group(brokers: &Brokers, scope: &Scope) -> Result<Vec<Finding>, Error> {
    asked(|| {
        let committed = brokers.committed(&brokers.within(scope)?)?;
        if committed.is_empty() {
            let (of, text) = (brokers.group_name().to_owned(), "it has no positions".to_owned());
            return Ok(vec![Finding { of, holds: false, text }]);
        }
        let of = committed.keys().cloned().collect();
        let positions = committed.into_iter().map(|(partition, committed)| (partition, committed.offset)).collect();
        Ok(checkpoint::verify_positions(&checkpoint::inspect(brokers, &of, &positions)?))
    })
}

fn print(of: &str, findings: &[Finding], context: &Context) -> Outcome {
    let matches = findings.iter().all(|finding| finding.holds);
    match context.format() {
        Format::Table | Format::Wide => {
            let paint = context.paint;
            let line = |finding: &Finding| {
                let sign = if finding.holds { paint.good("✓") } else { paint.bad("✗") };
                format!(" {sign} {}: {}\n", plain(&finding.of), plain(&finding.text))
            };
            let broken = findings.iter().filter(|finding| !finding.holds).count();
            let end = match broken {
                0 => "everything is as it should be\n".to_owned(),
                broken => format!("{broken} of {} are not as they should be\n", findings.len()),
            };
            output::print(&(findings.iter().map(line).collect::<String>() + &end))?;
        }
        format => {
            let view = |finding| -> FindingView<'_> {
                let Finding { of, holds, text }: &Finding = finding;
                FindingView { of, holds: *holds, text }
            };
            let view = View { of, matches, findings: findings.iter().map(view).collect() };
            output::print_document(format, "CheckpointVerification", of, &view)?;
        }
    }
    Ok(if matches { Exit::Done } else { Exit::Mismatch })
}
