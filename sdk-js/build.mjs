#!/usr/bin/env node
// Makes the component of a filter's package: `node build.mjs [DIR] [--out FILE]`.
//
// The package's `main` is the filter, its `name` and `version` are the module's. It imports the SDK as `myelin-filter`
// without having it installed, and other packages from its own `node_modules`. The lines of `fixtures/*.jsonl`, or of
// the folder that `myelin.fixtures` names, travel in the component as the self-test that every router runs.

import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { tmpdir } from 'node:os';
import { componentize } from 'componentize-qjs';
import { fixtures, withSection } from './sections.mjs';

const SDK = dirname(fileURLToPath(import.meta.url));
const WIT = join(SDK, '../wit/0.1.0');
// What a filter's modules are not looked for in.
const PASSED_OVER = /(^|\/)(target|fixtures|\.git)(\/|$)/;

const [folder, out] = parse(process.argv.slice(2));
await build(folder, out);

function parse(given) {
  const at = given.indexOf('--out');
  const out = at < 0 ? undefined : given.splice(at, 2)[1];
  if (given.length > 1 || (at >= 0 && out === undefined)) {
    console.error('usage: node build.mjs [DIR] [--out FILE]');
    process.exit(2);
  }
  return [resolve(given[0] ?? '.'), out];
}

async function build(folder, out) {
  const manifest = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
  const tests = join(folder, manifest.myelin?.fixtures ?? 'fixtures');
  const lines = existsSync(tests) ? await fixtures(tests) : [];
  const component = await compile(folder, manifest.main ?? 'filter.js');
  let wasm = withSection(component, 'myelin:label', Buffer.from(`${manifest.name}\0${manifest.version}`));
  if (lines.length > 0) wasm = withSection(wasm, 'myelin:vectors', Buffer.from(`${lines.join('\n')}\n`));
  const path = resolve(out ?? join(folder, 'target/myelin', `${manifest.name}-${manifest.version}.wasm`));
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, wasm);
  console.log(`${manifest.name}@${manifest.version}  ${Math.ceil(wasm.length / 1024)} KiB\n  ${path}`);
}

// The modules are read from a copy, in which the SDK lies as a package: the reader follows no link out of its root.
async function compile(folder, main) {
  const root = await mkdtemp(join(tmpdir(), 'myelin-filter-'));
  try {
    const isWanted = (path) => !PASSED_OVER.test(path.slice(folder.length));
    await cp(folder, root, { recursive: true, dereference: true, filter: isWanted });
    const sdk = join(root, 'node_modules/myelin-filter');
    await mkdir(sdk, { recursive: true });
    for (const file of ['package.json', 'index.js']) await cp(join(SDK, file), join(sdk, file));
    const entry = join(root, main);
    const { component } = await componentize({
      witPath: WIT,
      world: 'easy',
      jsSource: await readFile(entry, 'utf8'),
      jsPath: entry,
      moduleRoot: root,
      // A filter has no system below it; and no asynchronous calls.
      stubWasi: true,
      sync: true,
      optSize: true,
    });
    return component;
  } finally {
    await rm(root, { recursive: true });
  }
}
