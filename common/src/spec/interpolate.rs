//! `${VAR}` in a scalar that is already parsed.
//!
//! | written | means |
//! |---|---|
//! | `${VAR}` | the variable; an error when it is not set |
//! | `${VAR:-text}` | the variable; `text` when it is not set or empty |
//! | `${VAR:?message}` | the variable; an error saying `message` when it is not set or empty |
//! | `$${` | `${` itself |
//!
//! A value is put in as it is: it is never looked at again, neither for `${` nor as YAML.

use super::error::{SpecError, quoted};

/// Looks a variable up.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Longest result, in bytes.
const MAX_RESULT: usize = super::tree::MAX_TEXT;

/// Whether `text` holds something to expand.
pub(super) fn wanted(text: &str) -> bool {
    text.contains("${")
}

/// `text` with its variables put in.
pub(super) fn expand(text: &str, env: Environment<'_>) -> Result<String, SpecError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let Some((inside, after)) = from[2..].split_once('}') else {
            let error = SpecError::new("`${` without a `}`");
            return Err(error.hint("close it, or write `$${` for the characters themselves"));
        };
        out.push_str(&value(inside, env)?);
        rest = after;
        if out.len() > MAX_RESULT {
            return Err(SpecError::new(format!("longer than {MAX_RESULT} bytes once its variables are put in")));
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn value(inside: &str, env: Environment<'_>) -> Result<String, SpecError> {
    let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    let fallback = match rest.get(..2) {
        None if rest.is_empty() => None,
        Some(":-") => Some((true, &rest[2..])),
        Some(":?") => Some((false, &rest[2..])),
        _ => return Err(misformed(inside)),
    };
    if !is_variable(name) || rest.contains("${") {
        return Err(misformed(inside));
    }
    let found = env(name);
    match (found, fallback) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(_)) if !found.is_empty() => Ok(found),
        (_, Some((true, default))) => Ok(default.to_owned()),
        (_, Some((false, message))) => {
            let said = super::error::shown(message.trim());
            Err(SpecError::new(format!("the variable {} is not set: {said}", quoted(name))))
        }
        (None, None) => Err(SpecError::new(format!("the variable {} is not set", quoted(name)))
            .hint(format!("set it, or give a default: `${{{name}:-…}}`"))),
    }
}

/// Whether `name` can be the name of an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn misformed(inside: &str) -> SpecError {
    SpecError::new(format!("{} cannot be expanded", quoted(&format!("${{{inside}}}"))))
        .hint("write `${VAR}`, `${VAR:-default}` or `${VAR:?message}`; `$${` stands for `${` itself")
}
