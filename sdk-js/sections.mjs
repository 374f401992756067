// Custom sections of a component, as `myelin filter build` writes them: the filter's name, and its self-test.

import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

/** Appends a custom section to a module or component. */
export function withSection(wasm, name, data) {
  const label = Buffer.from(name);
  const body = Buffer.concat([leb(label.length), label, data]);
  return Buffer.concat([wasm, Buffer.from([0]), leb(body.length), body]);
}

function leb(value) {
  const encoded = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) encoded.push((value % 0x80) | 0x80);
  return Buffer.from([...encoded, value]);
}

/** The lines of FOLDER/*.jsonl in the order of their names; each file begins without a configuration. */
export async function fixtures(folder) {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.jsonl')).sort();
  const lines = [];
  for (const name of names) {
    const text = await readFile(join(folder, name), 'utf8');
    const own = text.split('\n').filter((line) => line.trim() !== '');
    own.forEach((line, at) => check(line, `${name}:${at + 1}`));
    if (lines.length > 0) lines.push('{"config":null}');
    lines.push(...own.map(selfTest));
  }
  return lines;
}

// What `myelin filter test` expects and a router's self-test does not know.
const FURTHER_KEYS = ['headers', 'detail', 'emitted'];

/** The line as routers know it; all but its expectation stays to the byte. */
function selfTest(line) {
  const { expect } = JSON.parse(line);
  if (!FURTHER_KEYS.some((key) => expect?.[key] !== undefined)) return line;
  const known = Object.entries(expect).filter(([key]) => !FURTHER_KEYS.includes(key));
  const wanted = JSON.stringify(Object.fromEntries(known));
  for (const { index, 0: key } of line.matchAll(/"expect"\s*:\s*(?=\{)/g)) {
    const start = index + key.length;
    for (let end = start; (end = line.indexOf('}', end) + 1) > 0; ) {
      if (!isJson(line.slice(start, end))) continue;
      const written = line.slice(0, start) + wanted + line.slice(end);
      // A payload may hold such a key, too.
      if (JSON.stringify(JSON.parse(written).expect) === wanted) return written;
      break;
    }
  }
  throw new Error(`the expectation cannot be found in ${line}`);
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function check(line, place) {
  try {
    JSON.parse(line);
  } catch (error) {
    throw new Error(`${place}: the line is not JSON: ${error.message}`);
  }
}
