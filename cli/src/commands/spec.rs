//! `validate` and `schema`.

use std::path::Path;

use super::Context;
use crate::args::Schema;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};
use crate::spec_file::{self, Summary};
use crate::{config, view};

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

/// Prints a JSON Schema.
pub(super) fn schema(of: Schema) -> Outcome {
    let schema = match of {
        Schema::Spec => tidegate_common::spec::json_schema() + "\n",
        Schema::Config => config::json_schema(),
        Schema::Output => view::json_schema(),
    };
    output::print(&schema)?;
    Ok(Exit::Done)
}
