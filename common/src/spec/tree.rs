//! A YAML text as a tree that remembers where everything stands.
//!
//! The tree keeps scalars as they are written, so that `${VAR}` is expanded on parsed scalars and the type that is
//! asked for decides what a scalar means. Refused: more than [`MAX_TEXT`] bytes, more than one document, tags,
//! duplicate keys, keys that are no scalar, deep nesting, and aliases that blow the tree up.

use std::collections::{BTreeMap, BTreeSet};

use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle};

use super::error::{SpecError, quoted};

/// The longest text of a spec, in bytes.
pub(super) const MAX_TEXT: usize = 1 << 20;
const MAX_DEPTH: usize = 32;
const MAX_NODES: usize = 50_000;
const MAX_BYTES: usize = 4 * MAX_TEXT;

/// A place in the text: line and column in characters, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Place {
    pub(super) const START: Self = Self { line: 1, column: 1 };

    fn of(marker: &Marker) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// As it is written; a plain one may be a number, a truth value or nothing at all.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) text: String,
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<(&Key, &Self)> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(k, node)| (k, node)),
            _ => None,
        }
    }

    /// Where an error about what `path` leads to points: a scalar itself, the key of anything larger, and the
    /// nearest thing around it when there is no such key.
    pub(super) fn place_of(&self, path: &[String]) -> Place {
        let (mut node, mut place) = (self, self.place);
        for step in path {
            match &node.value {
                Value::Map(_) => match node.get(step) {
                    Some((key, next)) => (node, place) = (next, spot(key.place, next)),
                    None => break,
                },
                Value::List(items) => match step.parse::<usize>().ok().and_then(|at| items.get(at)) {
                    Some(next) => (node, place) = (next, next.place),
                    None => break,
                },
                Value::Scalar { .. } => break,
            }
        }
        place
    }

    /// Takes out what `path` leads to; whether there was such a thing.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        let Value::Map(entries) = &mut self.value else { return false };
        match path {
            [] => false,
            [last] => {
                let before = entries.len();
                entries.retain(|(key, _)| key.text != *last);
                entries.len() < before
            }
            [first, rest @ ..] => entries.iter_mut().any(|(key, node)| key.text == *first && node.remove(rest)),
        }
    }

    /// Nodes and bytes of scalars below and in this one.
    fn weight(&self) -> (usize, usize) {
        let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        match &self.value {
            Value::Scalar { text, .. } => (1, text.len()),
            Value::List(items) => items.iter().map(Self::weight).fold((1, 0), add),
            Value::Map(entries) => {
                entries.iter().map(|(key, node)| add((0, key.text.len()), node.weight())).fold((1, 0), add)
            }
        }
    }
}

/// Where an error about the value `node` of a key points.
pub(super) fn spot(key: Place, node: &Node) -> Place {
    if matches!(node.value, Value::Scalar { .. }) { node.place } else { key }
}

/// Reads the one document of `text`. Duplicate keys are put into `errors` and left out.
pub(super) fn read(text: &str, errors: &mut Vec<SpecError>) -> Result<Node, SpecError> {
    if text.len() > MAX_TEXT {
        let message = format!("the spec has {} bytes, more than the {MAX_TEXT} allowed", text.len());
        return Err(SpecError::new(message).at(Place::START));
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::new(errors);
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            SpecError::new(format!("this is not YAML: {}", error.info())).at(Place::of(error.marker()))
        })?;
        let place = Place::of(&span.start);
        builder.take(event, place).map_err(|error| error.at(place))?;
    }
    builder.root.ok_or_else(|| SpecError::new("the spec is empty").hint("see `tidegate init`").at(Place::START))
}

enum Frame {
    List { place: Place, anchor: usize, items: Vec<Node> },
    Map { place: Place, anchor: usize, entries: Vec<(Key, Node)>, seen: BTreeSet<String>, key: Option<Key> },
}

struct Builder<'e> {
    errors: &'e mut Vec<SpecError>,
    root: Option<Node>,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

impl<'e> Builder<'e> {
    fn new(errors: &'e mut Vec<SpecError>) -> Self {
        Self { errors, root: None, stack: Vec::new(), anchors: BTreeMap::new(), nodes: 0, bytes: 0 }
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), SpecError> {
        if event.tag().is_some() {
            return Err(SpecError::new("a spec has no YAML tags").hint("take the `!…` away"));
        }
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(SpecError::new("a file holds one spec").hint("put the second document into a file of its own"))
            }
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                let node = Node { place, value };
                self.charge(&node)?;
                self.put(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Frame::List { place, anchor, items: Vec::new() }),
            Event::MappingStart(_, anchor, _) => {
                self.open(Frame::Map { place, anchor, entries: Vec::new(), seen: BTreeSet::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Frame::List { place, anchor, items }) => {
                    self.put(Node { place, value: Value::List(items) }, anchor)
                }
                Some(Frame::Map { place, anchor, entries, .. }) => {
                    self.put(Node { place, value: Value::Map(entries) }, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(SpecError::new("an alias cannot stand inside what it names"));
                };
                self.charge(&node)?;
                self.put(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, frame: Frame) -> Result<(), SpecError> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(SpecError::new(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.nodes += 1;
        self.stack.push(frame);
        Ok(())
    }

    fn charge(&mut self, node: &Node) -> Result<(), SpecError> {
        let (nodes, bytes) = node.weight();
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > MAX_NODES || self.bytes > MAX_BYTES {
            let message =
                format!("the spec, its aliases replaced, is larger than {MAX_NODES} values or {MAX_BYTES} bytes");
            return Err(SpecError::new(message));
        }
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), SpecError> {
        if anchor > 0 {
            self.charge(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, seen, key, .. }) => match key.take() {
                Some(key) if seen.insert(key.text.clone()) => entries.push((key, node)),
                Some(twice) => {
                    let message = format!("the key {} is given twice", quoted(&twice.text));
                    self.errors.push(SpecError::new(message).hint("keep one of them").at(twice.place));
                }
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some(Key { place: node.place, text }),
                    _ => return Err(SpecError::new("a key must be a word")),
                },
            },
        }
        Ok(())
    }
}
