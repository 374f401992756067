//! Protobuf schemas as compilers hand them on: a serialized `FileDescriptorProto`, in base 64.
//!
//! The Protobuf serializers of some languages have no `.proto` text and register this in its place; their deserializers ask
//! for it. A registry is read by people and by all languages, so that texts are kept, and translated both ways here.

use crate::error::SchemaError;
use crate::format::{Format, Source};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_types::FileDescriptorProto;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

mod print;
#[cfg(test)]
mod tests;

/// What the file of a schema is called where nothing says, as in other registries.
const FILE_NAME: &str = "default";

/// The `.proto` text of a serialized schema; none where `text` is no base 64, as no `.proto` text is.
///
/// Comments are not in it, and neither are custom options.
///
/// # Errors
///
/// When it is base 64 of something else, or uses what cannot be written here: groups and editions.
pub fn from_serialized(text: &str) -> Option<Result<String, SchemaError>> {
    let text = text.trim();
    let is_base64 = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    is_base64.then(|| {
        let bytes = STANDARD.decode(text).map_err(|error| SchemaError::malformed("Protobuf", error))?;
        let file = FileDescriptorProto::decode(&*bytes).map_err(|error| SchemaError::malformed("Protobuf", error))?;
        print::file(&file)
    })
}

/// A Protobuf schema, serialized.
///
/// # Errors
///
/// When it is none.
pub fn serialized(source: &Source<'_>) -> Result<String, SchemaError> {
    source.check_size()?;
    if source.format != Format::Protobuf {
        let message = format!("a schema in {} has no file descriptor; only those in PROTOBUF have", source.format);
        return Err(SchemaError::new("schema-format-unsupported", message));
    }
    let mut files = ChainFileResolver::new();
    let given = source.references.iter().map(|reference| (reference.name.to_owned(), reference.text.to_owned()));
    files.add(Given(given.chain([(FILE_NAME.to_owned(), source.text.to_owned())]).collect()));
    files.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.include_imports(false).include_source_info(false);
    let malformed = |error: protox::Error| SchemaError::malformed("Protobuf", error);
    compiler.open_file(FILE_NAME).map_err(malformed)?;
    let compiled = compiler.file_descriptor_set().file.into_iter().find(|file| file.name() == FILE_NAME);
    let file = compiled.ok_or_else(|| SchemaError::malformed("Protobuf", "it is not among what was compiled"))?;
    Ok(STANDARD.encode(file.encode_to_vec()))
}

/// The texts that were handed in; nothing else is opened.
struct Given(Vec<(String, String)>);

impl FileResolver for Given {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((name, text)) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}
