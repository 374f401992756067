//! From texts to descriptors.

use super::canonical::check_depth;
use crate::error::SchemaError;
use crate::format::Source;
use crate::limits::PROTOBUF_NODES_MAX;
use prost_reflect::FileDescriptor;
use prost_types::DescriptorProto;
use protox::file::{File, FileResolver, GoogleFileResolver};

/// What the schema's own file is called among its imports.
const MAIN: &str = "$schema.proto";

/// Compiles the schema's file with its imports.
pub(super) fn compile(source: &Source<'_>) -> Result<FileDescriptor, SchemaError> {
    let mut given = Vec::with_capacity(source.references.len() + 1);
    let mut nodes = 0;
    let texts = source.references.iter().map(|reference| (reference.name, reference.text));
    for (name, text) in texts.chain([(MAIN, source.text)]) {
        let file = parse(name, text)?;
        nodes += file.file_descriptor_proto().message_type.iter().map(count).sum::<usize>();
        nodes += file.file_descriptor_proto().enum_type.iter().map(|one| one.value.len() + 1).sum::<usize>();
        if nodes > PROTOBUF_NODES_MAX {
            return Err(SchemaError::too_complex("the schema has more messages, enums and fields", PROTOBUF_NODES_MAX));
        }
        given.push((name.to_owned(), file));
    }
    let mut compiler = protox::Compiler::with_file_resolver(Given(given));
    if let Err(error) = compiler.open_file(MAIN) {
        return Err(refused(&error));
    }
    let file = compiler.descriptor_pool().get_file_by_name(MAIN);
    file.ok_or_else(|| SchemaError::malformed("Protobuf", "the file was not compiled"))
}

/// A text as a file, unless it is nested too deeply.
fn parse(name: &str, text: &str) -> Result<File, SchemaError> {
    check_depth(text)?;
    File::from_source(name, text).map_err(|error| match bad_import(&error, name, text) {
        Some(import) => SchemaError::unresolved(import),
        None => refused(&error),
    })
}

/// The import that the parser does not take for a path. It says "invalid group name" of it, and where it stands.
fn bad_import<'a>(error: &protox::Error, name: &str, text: &'a str) -> Option<&'a str> {
    let told = format!("{error:?}");
    let place = told.strip_prefix(name)?.strip_prefix(':')?.strip_suffix("invalid group name")?;
    let mut numbers = place.split(':').map_while(|number| number.trim().parse::<usize>().ok());
    let (line, column) = (numbers.next()?, numbers.next()?);
    let there = text.lines().nth(line.checked_sub(1)?)?.get(column.checked_sub(1)?..)?;
    // A group's name has no quotes.
    let quote = there.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    there[1..].split_once(quote).map(|(import, _)| import)
}

fn count(message: &DescriptorProto) -> usize {
    let enums = message.enum_type.iter().map(|one| one.value.len() + 1).sum::<usize>();
    1 + message.field.len() + enums + message.nested_type.iter().map(count).sum::<usize>()
}

fn refused(error: &protox::Error) -> SchemaError {
    // The other form of this error says nothing about the line.
    let text = format!("{error:?}");
    if error.is_file_not_found() {
        let name = error.to_string();
        return SchemaError::unresolved(name.split('\'').nth(1).unwrap_or(&name));
    }
    SchemaError::malformed("Protobuf", text)
}

/// The files that were handed in, and those that Protobuf itself brings along. There is no other place to look.
struct Given(Vec<(String, File)>);

impl FileResolver for Given {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, file)) => Ok(file.clone()),
            None => GoogleFileResolver::new().open_file(name),
        }
    }
}
