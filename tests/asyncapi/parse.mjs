// Reads an AsyncAPI document with AsyncAPI's own parser, and prints what it found as JSON.
import { Parser } from '@asyncapi/parser';
import { AvroSchemaParser } from '@asyncapi/avro-schema-parser';
import { ProtoBuffSchemaParser } from '@asyncapi/protobuf-schema-parser';
import { readFileSync } from 'node:fs';

const parser = new Parser();
parser.registerSchemaParser(AvroSchemaParser());
parser.registerSchemaParser(ProtoBuffSchemaParser());
const { document, diagnostics } = await parser.parse(readFileSync(process.argv[2], 'utf8'));
const channels = (document?.channels().all() ?? []).map((channel) => ({
  id: channel.id(),
  address: channel.address(),
  messages: channel.messages().all().map((message) => ({ id: message.id(), payload: message.payload()?.json() })),
}));
// Severity 0 is an error, 1 a warning, more is advice.
const faults = diagnostics.filter(({ severity }) => severity < 2).map(({ code, message }) => `${code}: ${message}`);
console.log(JSON.stringify({ faults, channels }));
