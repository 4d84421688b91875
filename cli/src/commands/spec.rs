//! `validate`.

use std::path::Path;

use super::Context;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};
use crate::spec_file::{self, Summary};

/// Checks a spec.
pub(super) fn validate(file: &Path, context: &Context) -> Outcome {
    let spec = spec_file::load(file)?;
    let summary = Summary::of(&spec);
    match context.format() {
        Format::Table | Format::Wide => {
            let file = file.display();
            output::print(&format!("{file} is valid\n{summary}Next: tidegate apply {file} --dry-run\n"))?;
        }
        format => output::print_document(format, "SpecSummary", &summary.id, &summary)?,
    }
    Ok(Exit::Done)
}
