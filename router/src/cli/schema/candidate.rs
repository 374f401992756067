//! A schema in a file, as it is named on the command line.

use super::super::failure::{Exit, Failure, Result};
use super::super::values::read_text;
use clap::Args;
use myelin_catalog::limits::SCHEMA_LEN_MAX_BYTES;
use myelin_catalog::{SchemaFormat, SubjectName};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A schema for a subject.
#[derive(Args, Clone, Debug)]
pub(super) struct Candidate {
    /// Name of the subject
    pub(super) subject: SubjectName,
    /// File with the schema
    pub(super) file: PathBuf,
    /// Its language: json, avro or protobuf [default: as the file's name ends, .json, .avsc or .proto]
    #[arg(long = "type", value_name = "TYPE")]
    format: Option<SchemaFormat>,
    /// What its text refers to, as NAME=SUBJECT:VERSION; may be repeated
    #[arg(long, value_name = "REFERENCE", value_parser = reference)]
    pub(super) reference: Vec<(String, SubjectName, i64)>,
}

impl Candidate {
    /// Its text.
    ///
    /// # Errors
    /// When the file cannot be read, or holds more than a schema may have.
    pub(super) fn text(&self) -> Result<String> {
        let read = read_text(&self.file, SCHEMA_LEN_MAX_BYTES);
        read.map_err(|why| {
            Failure::new(Exit::Usage, format!("{}: {why}", self.file.display()))
                .next("give the file with the schema's text: .json, .avsc or .proto")
        })
    }

    /// Its language.
    ///
    /// # Errors
    /// When nothing says.
    pub(super) fn format(&self) -> Result<SchemaFormat> {
        self.format.or_else(|| format_of(&self.file)).ok_or_else(|| {
            let what =
                format!("{}: its name does not say in which language the schema is written", self.file.display());
            Failure::new(Exit::Usage, what).next("give --type json, avro or protobuf")
        })
    }

    /// The body of a request about it.
    ///
    /// # Errors
    /// See [`Candidate::text`] and [`Candidate::format`].
    pub(super) fn body(&self) -> Result<Value> {
        let references = self
            .reference
            .iter()
            .map(|(name, subject, version)| json!({"name": name, "subject": subject, "version": version}));
        let references: Vec<Value> = references.collect();
        Ok(json!({"schema": self.text()?, "schemaType": self.format()?, "references": references}))
    }
}

/// The language of the schema in a file, as its name ends.
pub(in super::super) fn format_of(file: &Path) -> Option<SchemaFormat> {
    match file.extension()?.to_str()? {
        "json" => Some(SchemaFormat::Json),
        "avsc" | "avro" => Some(SchemaFormat::Avro),
        "proto" => Some(SchemaFormat::Protobuf),
        _ => None,
    }
}

fn reference(text: &str) -> Result<(String, SubjectName, i64), String> {
    let told = || format!("`{text}` is no reference; write NAME=SUBJECT:VERSION, such as money.proto=money:1");
    let (name, place) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(told)?;
    let (subject, version) = place.rsplit_once(':').ok_or_else(told)?;
    let version = if version == "latest" { Ok(-1) } else { version.parse().map_err(|_| told()) };
    Ok((name.to_owned(), subject.parse().map_err(|error: myelin_catalog::SchemaRefusal| error.to_string())?, version?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn candidate(file: &std::path::Path) -> Candidate {
        let reference = vec![reference("money.proto=money:1").unwrap()];
        Candidate { subject: "s".parse().unwrap(), file: file.to_owned(), format: None, reference }
    }

    #[test]
    fn references_name_subject_and_version() {
        assert_eq!(reference("a/b.proto=x:y:3").unwrap(), ("a/b.proto".into(), "x:y".parse().unwrap(), 3));
        assert_eq!(reference("a=x:latest").unwrap().2, -1);
        for bad in ["a", "a=x", "=x:1", "a=x:one", "a=:1"] {
            assert!(reference(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_becomes_a_request() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("order.proto");
        std::fs::write(&file, "syntax = \"proto3\";").unwrap();
        let body = candidate(&file).body().unwrap();
        assert_eq!(body["schemaType"], "PROTOBUF");
        assert_eq!(body["references"][0], json!({"name": "money.proto", "subject": "money", "version": 1}));
        std::fs::write(&file, "x".repeat(SCHEMA_LEN_MAX_BYTES + 1)).unwrap();
        assert!(candidate(&file).body().is_err_and(|failure| failure.exit == Exit::Usage));
        assert!(candidate(&folder.path().join("none.avsc")).body().is_err());
        assert!(candidate(&folder.path().join("order")).format().is_err());
    }
}
