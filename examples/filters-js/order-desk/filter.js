// The order desk in JavaScript: the twin of the Rust filter in examples/filters/order-desk, which says what it does.
// Both pass the same fixtures, and the end-to-end tests hold their verdicts against each other.

import {
  add, allow, attributesWith, bytes, count, deadLetter, deny, drop, emitted, filter, header, json, redirect, seen, take,
} from 'myelin-filter';

// From here on an order is audited.
const LARGE_CENTS = 100_000;
// An order is known again for so long.
const DUPLICATE_MS = 60_000;

let tenants;
let perMinute;
let judged;

export const easyFilter = filter({
  name: 'order-desk-js',
  version: '1.0.0',
  needs: { headers: ['x-tenant'], identity: true, payload: 'full' },
  routes: ['topic:audit/orders', 'topic:desk/review'],
  reasons: ['no tenant', 'unknown tenant', 'not an order', 'too many orders'],
  counters: ['duplicates', 'masked'],
  maxOutput: 4096,

  setup(config, previous) {
    tenants = config?.tenants;
    if (!Array.isArray(tenants) || tenants.length === 0) {
      throw 'configuration key `tenants` is missing or empty; write for example "tenants": ["acme", "globex"]';
    }
    perMinute = config.per_minute ?? 60;
    if (!Number.isInteger(perMinute) || perMinute < 1 || perMinute > 1_000_000) {
      throw 'configuration key `per_minute` is no whole number from 1 to 1000000; write for example "per_minute": 60';
    }
    judged = previous === undefined ? 0 : previous[0] + 256 * previous[1];
  },

  onEvent(event, now) {
    judged = (judged + 1) % 65_536;
    if (event.attributes.eventType === 'test') return drop();
    const tenant = header(event, 'x-tenant');
    if (tenant === undefined) return deny('no tenant', { detail: `from ${event.identity}` });
    if (!tenants.includes(tenant)) return deny('unknown tenant');
    const order = json(event);
    if (typeof order?.id !== 'string') return deadLetter('not an order', { detail: '/id' });
    if (!take(tenant, 1, { amount: perMinute, periodMs: 60_000, burst: perMinute })) return deny('too many orders');
    if (seen(`${tenant}/${order.id}`, DUPLICATE_MS)) {
      count('duplicates');
      return drop();
    }
    return judge(event, order, now);
  },

  save: () => new Uint8Array([judged % 256, Math.floor(judged / 256)]),
});

function judge(event, order, now) {
  if (order.review === true) return redirect(['topic:desk/review']);
  if (typeof order.card === 'string') {
    count('masked');
    const masked = { ...order, card: `****${order.card.slice(-4)}` };
    return allow({ payload: bytes(JSON.stringify(masked)) });
  }
  if (order.refund === true) {
    const notice = bytes(JSON.stringify({ id: order.id, at: now.seconds }));
    return allow({ emit: [emitted('audit/refunds', notice, { 'x-kind': 'refund' })] });
  }
  if (typeof order.cents === 'number' && order.cents >= LARGE_CENTS) {
    return add(['topic:audit/orders'], { attributes: attributesWith(event, { 'x-large': 'yes', 'x-tenant': null }) });
  }
  return allow();
}
