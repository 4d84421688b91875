//! Protobuf messages, bare or in a schema registry's framing, read straight into columns.
//!
//! Rows are read by one message's descriptor, which is fixed when the backfill is planned: that of a file, or of the
//! registry's schema. Fields are known by their numbers, so that a value of a newer or older version of the message is
//! read by the same descriptor; one that the registry says is another message is a bad record.

mod plan;
mod read;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor};
use tidegate_common::spec::model::RecordFormatSpec;

use self::read::Reader;
use self::wire::Scan;
use super::columns::{self, Column};
use super::framing::{self, Writers};
use super::registry::{self, Registry};
use super::{Decoded, Decoder, Format, FormatError, NoRow, decode_each, project, read_file};
use crate::access::Access;

const KIND: &str = "PROTOBUF";
/// What the file of a registry's schema is called.
const ROOT: &str = "tidegate/schema.proto";
/// Numbers that a value may name its message with.
const MAX_INDEXES: u64 = 64;

/// The format `protobuf`.
pub(super) struct Protobuf {
    message: MessageDescriptor,
    schema: SchemaRef,
    writers: Option<Arc<Writers<FileDescriptor>>>,
}

impl Protobuf {
    /// Opens the format with the descriptor of `pin`; without one, with that of the spec's file or the registry.
    pub(super) async fn open(
        topic: &str,
        spec: &RecordFormatSpec,
        access: &Access,
        pin: Option<&[u8]>,
    ) -> Result<Self, FormatError> {
        let registry = spec.schema_registry.as_ref().map(|spec| Registry::open(spec, access)).transpose()?;
        let wrong = |e: String| FormatError::Schema(format!("the Protobuf schema: {e}"));
        let message = match (pin, &spec.descriptor_set, &registry, &spec.schema_registry) {
            (Some(pin), ..) => unpin(pin).ok_or_else(|| wrong("its pin is damaged".to_owned()))?,
            (None, Some(file), ..) => {
                let bytes = read_file("descriptor_set", file, access)?;
                let pool = DescriptorPool::decode(bytes.as_slice()).map_err(|e| {
                    wrong(format!("{file} is no descriptor set ({e}): write it with `protoc --include_imports --descriptor_set_out`"))
                })?;
                let name = spec.message.as_deref().unwrap_or_default();
                find(&pool, name).map_err(|e| wrong(format!("{file}: {e}")))?
            }
            (None, None, Some(registry), Some(given)) => {
                let subject = registry::subject(given, topic);
                let schema = registry.version(&subject, given.version, KIND).await?;
                let file = compile(&schema).map_err(|e| wrong(format!("{subject}: {e}")))?;
                let found = match &spec.message {
                    Some(name) => find(file.parent_pool(), name),
                    None => file.messages().next().ok_or_else(|| "it defines no message".to_owned()),
                };
                found.map_err(|e| wrong(format!("{subject}: {e}")))?
            }
            _ => return Err(FormatError::Spec("protobuf needs a schema_registry or a descriptor_set".to_owned())),
        };
        let (fields, _) = plan::plan(&message, None).map_err(wrong)?;
        let writers = registry.map(|registry| Arc::new(Writers::new(registry, KIND)));
        Ok(Self { message, schema: Arc::new(arrow::datatypes::Schema::new(fields)), writers })
    }
}

fn find(pool: &DescriptorPool, name: &str) -> Result<MessageDescriptor, String> {
    pool.get_message_by_name(name).ok_or_else(|| {
        let mut known: Vec<String> = pool.all_messages().map(|message| message.full_name().to_owned()).collect();
        known.truncate(20);
        format!("there is no message {name}; there are {}", known.join(", "))
    })
}

/// Compiles a registry's schema with all that it imports.
fn compile(schema: &registry::Schema) -> Result<FileDescriptor, String> {
    let mut resolver = ChainFileResolver::new();
    let imported = schema.references.iter().cloned();
    resolver.add(Texts(imported.chain([(ROOT.to_owned(), schema.text.clone())]).collect()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file(ROOT).map_err(|e| e.to_string())?;
    let file = compiler.descriptor_pool().get_file_by_name(ROOT);
    file.ok_or_else(|| "the schema was compiled to nothing".to_owned())
}

/// Files by their names.
struct Texts(HashMap<String, String>);

impl FileResolver for Texts {
    fn resolve_path(&self, path: &std::path::Path) -> Option<String> {
        path.to_str().filter(|name| self.0.contains_key(*name)).map(str::to_owned)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let text = self.0.get(name).ok_or_else(|| protox::Error::file_not_found(name))?;
        File::from_source(name, text)
    }
}

/// The length of the message's name, the name, and all descriptors.
fn pin(message: &MessageDescriptor) -> Vec<u8> {
    let name = message.full_name().as_bytes();
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&length, name, &message.parent_pool().encode_to_vec()].concat()
}

fn unpin(pin: &[u8]) -> Option<MessageDescriptor> {
    let (length, rest) = pin.split_first_chunk::<2>()?;
    let (name, set) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    DescriptorPool::decode(set).ok()?.get_message_by_name(std::str::from_utf8(name).ok()?)
}

impl Format for Protobuf {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn name(&self) -> &'static str {
        "protobuf"
    }

    fn pin(&self) -> Vec<u8> {
        pin(&self.message)
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn Decoder>, FormatError> {
        let schema = project(&self.schema, columns)?;
        let (_, plan) = plan::plan(&self.message, Some(columns)).map_err(FormatError::Schema)?;
        let framed = self.writers.clone().map(|writers| Framed {
            writers,
            message: self.message.full_name().to_owned(),
            files: HashMap::new(),
            last: Vec::new(),
        });
        let columns = columns::empty(&schema).map_err(FormatError::rows)?;
        Ok(Box::new(ProtobufDecoder { schema, columns, plan, reader: Reader::default(), framed }))
    }
}

struct ProtobufDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    plan: plan::Message,
    reader: Reader,
    framed: Option<Framed>,
}

/// Takes values out of their framing.
struct Framed {
    writers: Arc<Writers<FileDescriptor>>,
    /// The message that rows are.
    message: String,
    files: HashMap<u32, Result<Arc<FileDescriptor>, String>>,
    /// What stood before the value of the last good record.
    last: Vec<u8>,
}

impl Framed {
    /// Asks for the schemas of `values`.
    async fn learn(&mut self, values: &BinaryArray) -> Result<(), FormatError> {
        const MAX_FILES: usize = 1000;
        if self.files.len() > MAX_FILES {
            self.files.clear();
        }
        for id in framing::ids(values) {
            if !self.files.contains_key(&id) {
                let file = self.writers.get(id, compile).await?;
                self.files.insert(id, file);
            }
        }
        Ok(())
    }

    /// The message in `value`, when it is one of those that rows are.
    fn message<'a>(&mut self, value: &'a [u8]) -> Result<&'a [u8], String> {
        if !self.last.is_empty()
            && let Some(message) = value.strip_prefix(self.last.as_slice())
        {
            return Ok(message);
        }
        let (id, rest) = framing::split(value)?;
        let file = match self.files.get(&id) {
            Some(Ok(file)) => file,
            Some(Err(e)) => return Err(e.clone()),
            None => return Err(format!("the schema with the id {id} is not known")),
        };
        let mut scan = Scan::new(rest);
        let found = named(file, &indexes(&mut scan)?)
            .ok_or_else(|| format!("the schema with the id {id} has no such message"))?;
        if found.full_name() != self.message {
            return Err(format!("it is a {}, and rows are {}", found.full_name(), self.message));
        }
        let message = rest.get(scan.at()..).unwrap_or_default();
        self.last = value.get(..value.len() - message.len()).unwrap_or_default().to_vec();
        Ok(message)
    }
}

/// The path to a message: its place in the file, its place in that message, and so on. The first one is written `0`.
fn indexes(scan: &mut Scan<'_>) -> Result<Vec<u64>, String> {
    let count = zigzag(scan.varint()?)?;
    if count > MAX_INDEXES {
        return Err(format!("the value names its message by {count} numbers"));
    }
    let path = (0..count).map(|_| zigzag(scan.varint()?)).collect::<Result<Vec<_>, _>>()?;
    Ok(if path.is_empty() { vec![0] } else { path })
}

fn zigzag(value: u64) -> Result<u64, String> {
    if value & 1 == 0 { Ok(value >> 1) } else { Err("the value names its message by a negative number".to_owned()) }
}

fn named(file: &FileDescriptor, path: &[u64]) -> Option<MessageDescriptor> {
    let mut path = path.iter().map(|at| usize::try_from(*at).ok());
    let first = file.messages().nth(path.next()??)?;
    // The entries of maps are messages of their own to the compiler, and none to those who count.
    path.try_fold(first, |message, at| message.child_messages().filter(|child| !child.is_map_entry()).nth(at?))
}

#[async_trait]
impl Decoder for ProtobufDecoder {
    async fn decode(&mut self, _keys: &BinaryArray, values: &BinaryArray) -> Result<Decoded, FormatError> {
        if let Some(framed) = &mut self.framed {
            framed.learn(values).await?;
        }
        let Self { schema, columns, plan, reader, framed } = self;
        decode_each(schema, columns, values, |columns, value| {
            let message = match framed {
                Some(framed) => framed.message(value),
                None => Ok(value),
            };
            message.and_then(|message| reader.message(plan, message, columns)).map_err(NoRow::Bad)
        })
    }
}
