// SDK for authors of Myelin filters in JavaScript: the world `easy` of wit/, with the parts that every filter needs.
//
//   import { filter, allow, deny, header } from 'myelin-filter';
//
//   export const easyFilter = filter({
//     name: 'tenant', version: '1.0.0',
//     needs: { headers: ['x-tenant'] },
//     reasons: ['no tenant'],
//     onEvent: (event) => (header(event, 'x-tenant') === undefined ? deny('no tenant') : allow()),
//   });

import * as host from 'myelin:filter/host@0.1.0';

// The most text that is made in one call: the arguments lie on QuickJS's stack.
const CHUNK_BYTES = 4096;

// What `easyFilter` must be. `spec` has
//   name, version   what the module is called
//   needs           { headers: [names], allHeaders: bool, identity: bool, payload: 'none' | 'full' | bytes of a prefix };
//                   by default nothing but the topic
//   routes          'topic:NAME' or 'site:NAME', at most 32; the binding grants them
//   reasons         texts of deny and deadLetter
//   counters        names of metrics for `count`
//   maxOutput       bytes that a verdict may put out for one event: payload, attributes, detail, emitted events
//   setup           (config, previous) => nothing: the binding's configuration (parsed JSON; undefined where none was
//                   given) and what `save` of the version before gave (Uint8Array or undefined). Throwing refuses the
//                   configuration: say which key is wrong and how to mend it
//   onEvent         (event, now) => verdict
//   save            () => Uint8Array for the next version
// A list may also be a function that gives it, where it follows from the configuration: asked after `setup`.
export function filter(spec) {
  const given = (list) => (typeof list === 'function' ? list() : (list ?? []));
  return {
    init({ config, previousState }) {
      spec.setup?.(configuration(config), previousState ?? undefined);
      declared = given(spec.counters);
      counted = declared.map(() => 0);
      const needs = spec.needs ?? {};
      return {
        name: spec.name,
        version: spec.version,
        needs: {
          headers: needs.headers ?? [],
          allHeaders: needs.allHeaders ?? false,
          identity: needs.identity ?? false,
          payload: payloadNeed(needs.payload ?? 'none'),
        },
        routes: given(spec.routes),
        reasons: given(spec.reasons),
        counters: declared,
        maxOutput: typeof spec.maxOutput === 'function' ? spec.maxOutput() : (spec.maxOutput ?? 0),
      };
    },
    onBatch(events, now) {
      const verdicts = events.map((event) => spec.onEvent(event, now));
      flush();
      return verdicts;
    },
    save: () => spec.save?.() ?? new Uint8Array(0),
  };
}

function configuration(bytes) {
  if (bytes.length === 0) return undefined;
  try {
    return JSON.parse(text(bytes));
  } catch (error) {
    throw `the configuration is not JSON: ${error.message}`;
  }
}

function payloadNeed(need) {
  if (need === 'none' || need === 'full') return { tag: need };
  return { tag: 'prefix', val: need };
}

// Verdicts. `more` may have `payload` (Uint8Array), `attributes`, `detail` (text) and `emit` (events).

/** The event goes on. */
export const allow = (more) => verdict({ tag: 'allow' }, more);
/** It is refused for one of the declared reasons. */
export const deny = (reason, more) => verdict({ tag: 'deny', val: reason }, more);
/** It goes to the dead-letter topic for one of the declared reasons. */
export const deadLetter = (reason, more) => verdict({ tag: 'dead-letter', val: reason }, more);
/** It vanishes, counted. */
export const drop = (more) => verdict({ tag: 'drop' }, more);
/** It goes to these of the declared routes only. */
export const redirect = (routes, more) => verdict({ tag: 'redirect', val: routes }, more);
/** It goes on, and a copy to each of these of the declared routes. */
export const add = (routes, more) => verdict({ tag: 'add', val: routes }, more);

function verdict(decision, more) {
  return { decision, payload: null, attributes: null, detail: null, emit: [], ...more };
}

/** An event for `emit`, with headers as an object of texts. */
export const emitted = (topic, payload, headers = {}) => ({ topic, attributes: attributesOf(headers), payload });

function attributesOf(headers) {
  return {
    id: null,
    source: null,
    eventType: null,
    time: null,
    key: null,
    contentType: null,
    schema: null,
    traceparent: null,
    ttlMs: null,
    replyTo: null,
    correlation: null,
    headers: Object.entries(headers).map(([name, value]) => ({ name, value })),
  };
}

/** The value of the first header called `name`; undefined where there is none. */
export const header = (event, name) => event.attributes.headers.find((each) => each.name === name)?.value;

/** The event's attributes with these headers in place of all of the same name; null takes a header away. */
export function attributesWith(event, changes) {
  const kept = event.attributes.headers.filter((each) => !(each.name in changes));
  const set = Object.entries(changes).filter(([, value]) => value !== null);
  return { ...event.attributes, headers: [...kept, ...set.map(([name, value]) => ({ name, value }))] };
}

/** The payload's JSON; undefined where it is none. */
export function json(event) {
  try {
    return JSON.parse(text(event.payload));
  } catch {
    return undefined;
  }
}

/** UTF-8 as text; throws where the bytes are none. QuickJS has no TextDecoder, but this runs at its native speed. */
export function text(bytes) {
  let units = '';
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    units += String.fromCharCode.apply(null, bytes.subarray(at, at + CHUNK_BYTES));
  }
  return decodeURIComponent(escape(units));
}

/** Text as UTF-8. */
export function bytes(text) {
  const units = unescape(encodeURIComponent(text));
  const encoded = new Uint8Array(units.length);
  for (let at = 0; at < units.length; at += 1) encoded[at] = units.charCodeAt(at);
  return encoded;
}

// Host calls.

let declared = [];
let counted = [];

/** Raises a declared counter. The host is told once for each counter and batch. */
export function count(name, by = 1) {
  const at = declared.indexOf(name);
  if (at < 0) throw new Error(`the counter ${name} is not declared`);
  counted[at] += by;
}

function flush() {
  counted.forEach((by, at) => {
    if (by > 0) host.count(at, by);
    counted[at] = 0;
  });
}

/** Writes a line to the binding's log; `level` is 'debug', 'info', 'warn' or 'error'. */
export const log = (level, line) => host.log(level, line);
/** Takes `n` out of a bucket that fills up by `rate` = { amount, periodMs, burst }; says whether it held as many. */
export const take = (bucket, n, rate) => host.take(bucket, n, rate);
/** Whether `key` is remembered; where it is not, it is from now on, for `ttlMs`. */
export const seen = (key, ttlMs) => host.seen(key, ttlMs);
/** A part of the payload of event number `event` of the running batch. */
export const payloadPart = (event, offset, len) => host.payload(event, offset, len);
