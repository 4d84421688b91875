//! `config view`.

use serde::Serialize;

use super::Context;
use crate::config::entries;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};

#[derive(Serialize)]
struct View<T> {
    values: T,
}

/// Shows the configuration.
pub(super) fn view(show_origin: bool, context: &Context) -> Outcome {
    let entries = entries(&context.config);
    match context.format() {
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = entries
                .iter()
                .map(|entry| {
                    let value = entry.value.as_str().map_or_else(|| entry.value.to_string(), str::to_owned);
                    let mut row = vec![entry.key.clone(), value];
                    row.extend(show_origin.then(|| entry.origin.clone()));
                    row
                })
                .collect();
            let header: &[&str] = if show_origin { &["KEY", "VALUE", "ORIGIN"] } else { &["KEY", "VALUE"] };
            output::print(&output::columns(header, &rows))?;
        }
        Format::Name => output::print(&entries.iter().map(|entry| format!("{}\n", entry.key)).collect::<String>())?,
        format if show_origin => output::print_document(format, "Config", "", &View { values: entries })?,
        format => {
            let values: serde_json::Map<_, _> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
            output::print_document(format, "Config", "", &View { values })?;
        }
    }
    Ok(Exit::Done)
}
