//! The bounds of schemas, and of what judging a payload may cost. Each with its reason.

/// Bytes of one schema's text, as in Confluent's registry.
pub const SCHEMA_BYTES_MAX: usize = 1024 * 1024;
/// Schemas that one refers to, directly or not: parsing them all is one upload's work.
pub const REFERENCES_MAX: usize = 64;
/// Bytes of a schema and of all that it refers to.
pub const TOTAL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Objects and arrays inside each other in a schema's text: what parsers that recurse survive on a worker's stack.
pub const DEPTH_MAX: usize = 64;
/// Values of a JSON schema, its references included: compiling makes a node of each.
pub const JSON_NODES_MAX: usize = 100_000;
/// Schemas that judge one value, one after the other, counted each time anew: where a schema names another twice, which
/// names a third twice, and so on, judging one value takes so many steps.
pub const JSON_EXPANDED_MAX: u64 = 10_000;
/// References and combinations (`allOf`, ...) that lead from one to the next for the same value. Together with the depth of
/// payloads it bounds the stack that judging takes.
pub const JSON_IN_PLACE_DEPTH_MAX: usize = 32;
/// Schemas that lead to each other in a row, all of a circle counted: compiling recurses through them.
pub const JSON_CHAIN_MAX: usize = 1_000;
/// What judging one payload may take, in nanoseconds, before it is refused unjudged: a worker judges in the way of all its
/// other clients. It is estimated from above, by what the schema asks of each value, on two cores that are busy: where
/// nothing else runs it is about half of that, and the same again where a reason is looked for. An ordinary schema takes
/// some fifty nanoseconds for a value, so that a payload of a megabyte, up to half a million values, is far below.
pub const JSON_WORK_NS_MAX: u64 = 200_000_000;
/// How deep payloads are, in the classes by which a recursive schema's work is estimated. Nothing deeper than the last is
/// read.
pub const PAYLOAD_DEPTHS: [usize; 3] = [8, 32, 128];
/// Nanoseconds that reading a byte of a payload takes at most, whatever the format.
pub const READ_BYTE_NS: u64 = 16;
/// Nanoseconds that judging a value of an Avro payload takes at most: a `null` is no byte.
pub const AVRO_VALUE_NS: u64 = 16;
/// Errors that are looked at for the reason why a payload is not as its schema says: the library collects those of all
/// branches of a choice, some hundred bytes each.
pub const JSON_REASONS_MAX: u32 = 4_096;
/// Parts of the objects that those errors are about: an error may list all names of an object.
pub const JSON_REASON_PARTS_MAX: usize = 65_536;
/// Steps of finding out how much work a schema makes.
pub const ANALYSIS_STEPS_MAX: usize = 5_000_000;
/// Bytes of one regular expression, compiled.
pub const REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Regular expressions of one JSON schema, each up to [`REGEX_BYTES_MAX`].
pub const REGEXES_MAX: usize = 256;
/// Steps that a backtracking expression (look-around, back references) takes back before the value is refused. Times the
/// texts of a payload it is part of [`JSON_WORK_NS_MAX`]: more would leave less room for texts.
pub const REGEX_STEPS_MAX: usize = 2_000;
/// Named types, fields, symbols and branches of an Avro schema.
pub const AVRO_NODES_MAX: usize = 50_000;
/// Values in one Avro payload. A `null` takes no byte, so that the payload's size does not bound them.
pub const AVRO_VALUES_MAX: u64 = 1_000_000;
/// Values inside each other in an Avro payload, for each of which judging recurses.
pub const AVRO_DEPTH_MAX: usize = 256;
/// Messages inside each other in a Protobuf payload, as Protobuf's own libraries have it.
pub const PAYLOAD_DEPTH_MAX: usize = 100;
/// Messages, enums and fields of a Protobuf schema, its imports included.
pub const PROTOBUF_NODES_MAX: usize = 50_000;
/// Messages inside each other in a Protobuf schema: the length of the indexes in Confluent's wire format.
pub const PROTOBUF_INDEXES_MAX: usize = 32;
/// Bytes of a fault's path and of its text: they go to the publisher in a refusal and into headers of dead letters.
pub const FAULT_TEXT_MAX: usize = 200;
/// Texts about what is incompatible: nobody reads more, and they go into one answer.
pub const INCOMPATIBILITIES_MAX: usize = 100;
/// Pairs of schemas that one comparison looks at: recursive types are compared once for each pair.
pub const COMPARED_PAIRS_MAX: usize = 100_000;
/// Schemas inside each other that a comparison follows: it recurses through them.
pub const COMPARED_DEPTH_MAX: usize = 128;
