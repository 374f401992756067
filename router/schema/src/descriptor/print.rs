//! A file descriptor as `.proto` text.

use crate::error::SchemaError;
use crate::limits::PROTOBUF_INDEXES_MAX;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileOptions,
    ServiceDescriptorProto,
};
use std::fmt::Write;

/// What stands for "and all above" in a range of a message's field numbers.
const NUMBER_MAX: i32 = 536_870_911;

/// The text of a file.
///
/// # Errors
///
/// When it uses what this does not write, or messages lie in each other too deeply.
pub(super) fn file(file: &FileDescriptorProto) -> Result<String, SchemaError> {
    let mut printer = Printer { text: String::new(), depth: 0, is_proto3: file.syntax() == "proto3" };
    match file.syntax() {
        "" | "proto2" => printer.line("syntax = \"proto2\";"),
        "proto3" => printer.line("syntax = \"proto3\";"),
        other => return Err(unsupported(&format!("syntax `{other}`"))),
    }
    if !file.package().is_empty() {
        printer.line(format!("package {};", file.package()));
    }
    for (place, dependency) in (0..).zip(&file.dependency) {
        let kind = match place {
            place if file.public_dependency.contains(&place) => "public ",
            place if file.weak_dependency.contains(&place) => "weak ",
            _ => "",
        };
        printer.line(format!("import {kind}{};", quoted(dependency.as_bytes())));
    }
    printer.file_options(file.options.as_ref());
    file.enum_type.iter().for_each(|kind| printer.enumeration(kind));
    for message in &file.message_type {
        printer.message(message)?;
    }
    printer.extensions(&file.extension)?;
    file.service.iter().for_each(|service| printer.service(service));
    Ok(printer.text)
}

struct Printer {
    text: String,
    depth: usize,
    is_proto3: bool,
}

impl Printer {
    fn line(&mut self, line: impl std::fmt::Display) {
        // Writing to a text never fails.
        let _ = writeln!(self.text, "{:1$}{line}", "", 2 * self.depth);
    }

    fn open(&mut self, head: impl std::fmt::Display) {
        self.line(format!("{head} {{"));
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    fn file_options(&mut self, options: Option<&FileOptions>) {
        let Some(options) = options else { return };
        let texts = [
            ("csharp_namespace", &options.csharp_namespace),
            ("go_package", &options.go_package),
            ("java_outer_classname", &options.java_outer_classname),
            ("java_package", &options.java_package),
            ("objc_class_prefix", &options.objc_class_prefix),
            ("php_class_prefix", &options.php_class_prefix),
            ("php_metadata_namespace", &options.php_metadata_namespace),
            ("php_namespace", &options.php_namespace),
            ("ruby_package", &options.ruby_package),
            ("swift_prefix", &options.swift_prefix),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                self.line(format!("option {name} = {};", quoted(text.as_bytes())));
            }
        }
        let flags = [("deprecated", options.deprecated), ("java_multiple_files", options.java_multiple_files)];
        for (name, flag) in flags {
            if let Some(flag) = flag {
                self.line(format!("option {name} = {flag};"));
            }
        }
    }

    fn message(&mut self, message: &DescriptorProto) -> Result<(), SchemaError> {
        if self.depth > PROTOBUF_INDEXES_MAX {
            return Err(SchemaError::too_complex("messages lie in each other", PROTOBUF_INDEXES_MAX));
        }
        self.open(format!("message {}", message.name()));
        if let Some(options) = &message.options {
            let flags =
                [("deprecated", options.deprecated), ("message_set_wire_format", options.message_set_wire_format)];
            for (name, flag) in flags {
                if let Some(flag) = flag {
                    self.line(format!("option {name} = {flag};"));
                }
            }
        }
        message.enum_type.iter().for_each(|kind| self.enumeration(kind));
        for nested in message.nested_type.iter().filter(|nested| !is_map(nested)) {
            self.message(nested)?;
        }
        self.fields(message)?;
        self.extensions(&message.extension)?;
        for range in &message.extension_range {
            self.line(format!("extensions {};", span(range.start(), range.end() - 1, NUMBER_MAX)));
        }
        for range in &message.reserved_range {
            self.line(format!("reserved {};", span(range.start(), range.end() - 1, NUMBER_MAX)));
        }
        self.reserved_names(&message.reserved_name);
        self.close();
        Ok(())
    }

    /// Fields in their order; those of a choice together, at the place of the first.
    fn fields(&mut self, message: &DescriptorProto) -> Result<(), SchemaError> {
        let mut printed = vec![false; message.oneof_decl.len()];
        for field in &message.field {
            let choice = field.oneof_index.filter(|_| !field.proto3_optional());
            let Some(choice) = choice.and_then(|index| usize::try_from(index).ok()) else {
                self.field(message, field, true)?;
                continue;
            };
            let Some(decl) = message.oneof_decl.get(choice) else {
                return Err(SchemaError::malformed("Protobuf", "a field is of a oneof that is not there"));
            };
            if std::mem::replace(&mut printed[choice], true) {
                continue;
            }
            self.open(format!("oneof {}", decl.name()));
            let of_choice = |field: &&FieldDescriptorProto| {
                field.oneof_index.is_some_and(|index| usize::try_from(index) == Ok(choice))
            };
            for field in message.field.iter().filter(of_choice) {
                self.field(message, field, false)?;
            }
            self.close();
        }
        Ok(())
    }

    fn field(
        &mut self,
        message: &DescriptorProto,
        field: &FieldDescriptorProto,
        is_labelled: bool,
    ) -> Result<(), SchemaError> {
        let map = message.nested_type.iter().find(|nested| is_map(nested) && is_of(field, message, nested));
        let (label, kind) = match map {
            Some(map) => {
                let part = |number| map.field.iter().find(|field| field.number() == number);
                let (Some(key), Some(value)) = (part(1), part(2)) else {
                    return Err(SchemaError::malformed("Protobuf", "a map has no key or no value"));
                };
                ("", format!("map<{}, {}>", kind(key)?, kind(value)?))
            }
            None if is_labelled => (self.label(field), kind(field)?),
            None => ("", kind(field)?),
        };
        let options = options(field);
        self.line(format!("{label}{kind} {} = {}{options};", field.name(), field.number()));
        Ok(())
    }

    fn label(&self, field: &FieldDescriptorProto) -> &'static str {
        match field.label() {
            Label::Repeated => "repeated ",
            Label::Required => "required ",
            Label::Optional if self.is_proto3 && !field.proto3_optional() => "",
            Label::Optional => "optional ",
        }
    }

    fn extensions(&mut self, extensions: &[FieldDescriptorProto]) -> Result<(), SchemaError> {
        for extension in extensions {
            self.open(format!("extend {}", extension.extendee()));
            self.field(&DescriptorProto::default(), extension, true)?;
            self.close();
        }
        Ok(())
    }

    fn enumeration(&mut self, kind: &EnumDescriptorProto) {
        self.open(format!("enum {}", kind.name()));
        if let Some(options) = &kind.options {
            for (name, flag) in [("allow_alias", options.allow_alias), ("deprecated", options.deprecated)] {
                if let Some(flag) = flag {
                    self.line(format!("option {name} = {flag};"));
                }
            }
        }
        for value in &kind.value {
            let is_deprecated = value.options.as_ref().is_some_and(|options| options.deprecated());
            let options = if is_deprecated { " [deprecated = true]" } else { "" };
            self.line(format!("{} = {}{options};", value.name(), value.number()));
        }
        for range in &kind.reserved_range {
            self.line(format!("reserved {};", span(range.start(), range.end(), i32::MAX)));
        }
        self.reserved_names(&kind.reserved_name);
        self.close();
    }

    fn reserved_names(&mut self, names: &[String]) {
        for name in names {
            self.line(format!("reserved {};", quoted(name.as_bytes())));
        }
    }

    fn service(&mut self, service: &ServiceDescriptorProto) {
        self.open(format!("service {}", service.name()));
        for method in &service.method {
            let stream = |is_stream| if is_stream { "stream " } else { "" };
            let (asks, answers) = (stream(method.client_streaming()), stream(method.server_streaming()));
            self.line(format!(
                "rpc {}({asks}{}) returns ({answers}{});",
                method.name(),
                method.input_type(),
                method.output_type()
            ));
        }
        self.close();
    }
}

/// Whether the type of a field is this map of its message.
fn is_of(field: &FieldDescriptorProto, message: &DescriptorProto, map: &DescriptorProto) -> bool {
    let end = format!(".{}.{}", message.name(), map.name());
    field.r#type() == Type::Message && field.label() == Label::Repeated && field.type_name().ends_with(&end)
}

fn is_map(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

/// The type of a field; names are whole, with a dot at their beginning.
fn kind(field: &FieldDescriptorProto) -> Result<String, SchemaError> {
    Ok(match field.r#type() {
        Type::Double => "double",
        Type::Float => "float",
        Type::Int64 => "int64",
        Type::Uint64 => "uint64",
        Type::Int32 => "int32",
        Type::Fixed64 => "fixed64",
        Type::Fixed32 => "fixed32",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Uint32 => "uint32",
        Type::Sfixed32 => "sfixed32",
        Type::Sfixed64 => "sfixed64",
        Type::Sint32 => "sint32",
        Type::Sint64 => "sint64",
        Type::Group => return Err(unsupported("a group")),
        Type::Message | Type::Enum => return Ok(field.type_name().to_owned()),
    }
    .to_owned())
}

/// What stands behind a field.
fn options(field: &FieldDescriptorProto) -> String {
    let mut parts = Vec::new();
    if let Some(default) = &field.default_value {
        parts.push(match field.r#type() {
            Type::String => format!("default = {}", quoted(default.as_bytes())),
            // They are escaped already.
            Type::Bytes => format!("default = \"{default}\""),
            _ => format!("default = {default}"),
        });
    }
    if let Some(name) = &field.json_name
        && *name != json_name(field.name())
    {
        parts.push(format!("json_name = {}", quoted(name.as_bytes())));
    }
    if let Some(options) = &field.options {
        for (name, flag) in [("packed", options.packed), ("deprecated", options.deprecated), ("lazy", options.lazy)] {
            parts.extend(flag.map(|flag| format!("{name} = {flag}")));
        }
    }
    if parts.is_empty() { String::new() } else { format!(" [{}]", parts.join(", ")) }
}

/// The name in JSON of a field that says nothing about it.
fn json_name(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len());
    let mut is_next_upper = false;
    for letter in name.chars() {
        match letter {
            '_' => is_next_upper = true,
            letter if std::mem::take(&mut is_next_upper) => spelled.push(letter.to_ascii_uppercase()),
            letter => spelled.push(letter),
        }
    }
    spelled
}

/// Numbers from `start` to `end`, which is one of them.
fn span(start: i32, end: i32, max: i32) -> String {
    match end {
        end if end == start => start.to_string(),
        end if end == max => format!("{start} to max"),
        end => format!("{start} to {end}"),
    }
}

fn quoted(bytes: &[u8]) -> String {
    let text: String = bytes.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
    format!("\"{text}\"")
}

fn unsupported(what: &str) -> SchemaError {
    let message = format!("the file descriptor uses {what}, which is not read here; register the `.proto` text");
    SchemaError::new("schema-format-unsupported", message)
}
