//! From the text of a spec to its types, with every error placed.

use super::error::{SpecError, SpecErrors, did_you_mean, quoted};
use super::interpolate::Environment;
use super::model::Spec;
use super::reader::Reader;
use super::resolved::Resolved;
use super::tree::{self, Node, Value};

/// The version of the schema that this release reads.
const VERSION: &str = "1";

/// Reads the spec in `text`; `file` is what errors call it, `env` looks the variables of `${VAR}` up.
///
/// This checks the form only: known keys, types, variables. [`super::resolve()`] checks what the values say.
///
/// # Errors
/// All that is wrong with the form, as far as it can be told in one go.
pub fn parse(text: &str, file: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Spec, SpecErrors> {
    Document::read(text, file, env).map(|document| document.spec)
}

/// A spec that still knows its text, so that errors found later have a position too.
#[derive(Clone, Debug)]
pub struct Document {
    /// The spec; what the command line overrides may be changed here.
    pub spec: Spec,
    file: String,
    tree: Node,
}

impl Document {
    /// As [`parse`] does.
    ///
    /// # Errors
    /// As [`parse`] does.
    pub fn read(text: &str, file: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, SpecErrors> {
        let mut duplicates = Vec::new();
        let read = tree::read(text, &mut duplicates).map_err(|error| vec![error]);
        let read = read.and_then(|tree| typed(&tree, env).map(|spec| (spec, tree)));
        match read {
            Ok((spec, tree)) if duplicates.is_empty() => Ok(Self { spec, file: file.to_owned(), tree }),
            Ok(_) => Err(SpecErrors::new(duplicates, file)),
            Err(found) => Err(SpecErrors::new([duplicates, found].concat(), file)),
        }
    }

    /// Makes the spec's relative paths absolute; see [`super::absolutise`].
    ///
    /// # Errors
    /// Paths that leave the folder or are of an unknown kind, with their positions.
    pub fn absolutise(&mut self, folder: &str) -> Result<(), SpecErrors> {
        super::location::absolutise_all(&mut self.spec, folder).map_err(|found| self.placed(found))
    }

    /// Checks what the values say; see [`super::resolve()`].
    ///
    /// # Errors
    /// All that is wrong, with positions.
    pub fn resolve(&self, now_micros: i64) -> Result<Resolved, SpecErrors> {
        super::resolve::resolve_all(self.spec.clone(), now_micros).map_err(|found| self.placed(found))
    }

    fn placed(&self, found: Vec<SpecError>) -> SpecErrors {
        let placed = found.into_iter().map(|error| {
            let place = self.tree.place_of(&error.path);
            error.at(place)
        });
        SpecErrors::new(placed.collect(), &self.file)
    }
}

/// The spec that `tree` holds.
///
/// Reading stops at the first error that leaves a value missing, so a source or output that has one is taken out
/// and the rest is read again: each of them reports its own.
fn typed(tree: &Node, env: Environment<'_>) -> Result<Spec, Vec<SpecError>> {
    check_version(tree)?;
    let mut tree = tree.clone();
    let mut found = Vec::new();
    loop {
        let reader = Reader::new(env);
        let read = reader.read::<Spec>(&tree);
        found.extend(reader.into_errors());
        let error = match read {
            Ok(spec) if found.is_empty() => return Ok(spec),
            Ok(_) => return Err(found),
            Err(error) => error,
        };
        let culprit = match error.path.as_slice() {
            [top, name, ..] if top == "sources" || top == "outputs" => vec![top.clone(), name.clone()],
            [top, ..] if top == "window" || top == "alignment" => vec![top.clone()],
            _ => Vec::new(),
        };
        found.push(error);
        if found.len() >= SpecErrors::MOST || !tree.remove(&culprit) {
            return Err(found);
        }
    }
}

/// A spec of another version has other keys: nothing else is said about it.
fn check_version(tree: &Node) -> Result<(), Vec<SpecError>> {
    let Value::Map(entries) = &tree.value else {
        return Err(vec![SpecError::new("a spec is keys and values").hint("begin with `version: 1`").at(tree.place)]);
    };
    let error = match tree.get("version") {
        Some((_, Node { value: Value::Scalar { text, plain: true }, .. })) if text == VERSION => return Ok(()),
        Some((key, node)) => {
            let given = match &node.value {
                Value::Scalar { text, .. } => quoted(text),
                _ => "something else than a number".to_owned(),
            };
            let error = SpecError::new(format!("the version is {given}, and this release reads version {VERSION}"));
            error.hint(format!("write `version: {VERSION}`")).at(tree::spot(key.place, node))
        }
        None => {
            let error = SpecError::new("`version` is missing").at(tree.place);
            match entries.iter().find(|(key, _)| did_you_mean(&key.text, &["version"]).starts_with("did")) {
                Some((key, _)) => error.hint(format!("is {} meant to be it?", quoted(&key.text))).at(key.place),
                None => error.hint(format!("begin with `version: {VERSION}`")),
            }
        }
    };
    Err(vec![error])
}
