//! Partition fields as a spec writes them: `month(time_hour)`, `bucket(16, id)`, `origin`.

use std::fmt;
use std::str::FromStr;

use super::error::{SpecError, did_you_mean, quoted};
use super::names::check_column;

/// A partition field of a table that is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionField {
    /// The column that it is made from.
    pub column: String,
    /// How.
    pub transform: Transform,
}

/// How a partition value is made from a column, as Iceberg defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// The value itself.
    Identity,
    /// A hash modulo so many buckets; at least 1.
    Bucket(u32),
    /// The value cut to this width; at least 1.
    Truncate(u32),
    /// Its year, in UTC.
    Year,
    /// Its month, in UTC.
    Month,
    /// Its day, in UTC.
    Day,
    /// Its hour, in UTC.
    Hour,
}

const TRANSFORMS: [&str; 7] = ["identity", "bucket", "truncate", "year", "month", "day", "hour"];

impl Transform {
    /// Transforms of one family say the same of a column, coarser or finer: a column has at most one of each.
    pub(super) fn family(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Bucket(_) => "bucket",
            Self::Truncate(_) => "truncate",
            Self::Year | Self::Month | Self::Day | Self::Hour => "time",
        }
    }
}

impl FromStr for PartitionField {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (transform, column) = match text.trim().split_once('(') {
            None => (Transform::Identity, text.trim()),
            Some((name, rest)) => {
                let inside = rest.strip_suffix(')').ok_or_else(|| bad(text, "it lacks its closing `)`"))?;
                transform(text, name.trim(), inside.trim())?
            }
        };
        if column.contains(['(', ')', ',']) {
            return Err(bad(text, "it holds more than one column"));
        }
        check_column(column)?;
        Ok(Self { column: column.to_owned(), transform })
    }
}

fn transform<'t>(text: &str, name: &str, inside: &'t str) -> Result<(Transform, &'t str), SpecError> {
    let simple = match name {
        "identity" => Transform::Identity,
        "year" => Transform::Year,
        "month" => Transform::Month,
        "day" => Transform::Day,
        "hour" => Transform::Hour,
        "bucket" | "truncate" => {
            let form = format!("write `{name}(16, column)`");
            let (width, column) = inside.split_once(',').ok_or_else(|| bad(text, "it lacks its width").hint(form))?;
            let width = match width.trim().parse::<u32>() {
                Ok(width) if width > 0 && width <= i32::MAX as u32 => width,
                _ => return Err(bad(text, &format!("{} is no width", quoted(width.trim())))),
            };
            let transform = if name == "bucket" { Transform::Bucket(width) } else { Transform::Truncate(width) };
            return Ok((transform, column.trim()));
        }
        _ => {
            let error = bad(text, &format!("{} is no transform", quoted(name)));
            return Err(error.hint(did_you_mean(name, &TRANSFORMS)));
        }
    };
    Ok((simple, inside))
}

fn bad(text: &str, why: &str) -> SpecError {
    SpecError::new(format!("{} is not a partition field: {why}", quoted(text)))
}

impl fmt::Display for PartitionField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = &self.column;
        match self.transform {
            Transform::Identity => f.write_str(column),
            Transform::Bucket(width) => write!(f, "bucket({width}, {column})"),
            Transform::Truncate(width) => write!(f, "truncate({width}, {column})"),
            Transform::Year => write!(f, "year({column})"),
            Transform::Month => write!(f, "month({column})"),
            Transform::Day => write!(f, "day({column})"),
            Transform::Hour => write!(f, "hour({column})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_fields_read_back_and_others_are_refused() {
        for (text, transform, written) in [
            ("origin", Transform::Identity, "origin"),
            ("identity( origin )", Transform::Identity, "origin"),
            ("bucket(16,id)", Transform::Bucket(16), "bucket(16, id)"),
            ("truncate(4, a b)", Transform::Truncate(4), "truncate(4, a b)"),
            ("year(t)", Transform::Year, "year(t)"),
            ("month(t)", Transform::Month, "month(t)"),
            (" day (t)", Transform::Day, "day(t)"),
            ("hour(t)", Transform::Hour, "hour(t)"),
        ] {
            let field: PartitionField = text.parse().unwrap();
            assert_eq!((field.transform, field.to_string().as_str()), (transform, written), "{text}");
            assert_eq!(written.parse::<PartitionField>().unwrap(), field);
        }
        for text in [
            "",
            "day()",
            "day(t",
            "day(a, b)",
            "bucket(t)",
            "bucket(-1, t)",
            "bucket(2147483648, t)",
            "a, b",
            "void(t)",
            "day(t))",
            "a\u{7}",
        ] {
            assert!(text.parse::<PartitionField>().is_err(), "{text}");
        }
    }
}
