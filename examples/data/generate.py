#!/usr/bin/env python3
"""Makes the event data of the demo: orders, telemetry and payments of an invented company in three regions.

    python3 examples/data/generate.py            writes the files beside this script and ../bindings
    python3 examples/data/generate.py --check    compares them with what it would write; exit 1 on a difference

Everything follows from SEED: the same script gives the same bytes on every machine and Python version, which is why
the random numbers are made here (splitmix64) and not by `random`, whose algorithms may change. No person, card or
telephone number is real: names are common ones, addresses end in example.*, telephone numbers lie in the ranges that
regulators keep for fiction, card numbers are the test ranges of the card schemes with a correct check digit.
"""

import datetime
import json
import pathlib
import sys

SEED = 20260302
ORDERS = 1500
TELEMETRY = 1500
PAYMENTS = 1000
INVALID_EVERY = 33  # about 3 % of the orders break orders.schema.json
GUEST_EVERY = 5  # a guest's order carries e-mail and telephone number
CARD_EVERY = 2  # the other payments come from a wallet token, without personal data

START = datetime.datetime(2026, 3, 2, 8, 0, 0, tzinfo=datetime.timezone.utc)
REGIONS = {"eu": "EUR", "us": "USD", "ap": "AUD"}
REGION_WEIGHTS = ["eu", "eu", "eu", "eu", "us", "us", "us", "ap", "ap"]
TENANTS = ["acme", "acme", "acme", "globex", "globex", "initech"]
SITES = {"eu": ["fra1", "waw1", "dub2"], "us": ["iad1", "pdx2"], "ap": ["syd1", "sin1"]}
GIVEN_NAMES = ["Ada", "Bruno", "Chloe", "Daniel", "Elif", "Farid", "Grace", "Hana", "Ivan", "Jana", "Kofi", "Lena",
               "Marek", "Noor", "Olga", "Pedro", "Quinn", "Rosa", "Sven", "Tara"]
FAMILY_NAMES = ["Baker", "Costa", "Dvorak", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jansen", "Kowalski",
                "Lopez", "Meyer", "Novak", "Okafor", "Petrov", "Rossi", "Singh", "Tanaka", "Weber", "Young"]
MAIL_HOSTS = ["example.com", "example.org", "example.net"]
# Kept for fiction by Ofcom (GB), NANPA (US) and ACMA (AU).
PHONES = {"eu": ["+44 7700 900%03d" % n for n in range(1000)],
          "us": ["+1 202 555 01%02d" % n for n in range(100)],
          "ap": ["+61 491 570 006", "+61 491 570 156", "+61 491 570 157", "+61 491 570 158", "+61 491 570 159"]}
CARDS = [("visa", "400000", 16), ("visa", "424242", 16), ("mastercard", "555555", 16), ("amex", "378282", 15)]
PRODUCTS = [("SKU-1001", "Field sensor", 4900), ("SKU-1002", "Gateway", 18900), ("SKU-1003", "Mounting kit", 1250),
            ("SKU-1004", "Battery pack", 2990), ("SKU-1005", "Antenna 868 MHz", 3450), ("SKU-1006", "Edge node", 54900),
            ("SKU-1007", "Cable 5 m", 990), ("SKU-1008", "Weather shield", 2150)]
ORDER_STATES = ["created", "created", "created", "paid", "paid", "shipped", "cancelled"]
PAYMENT_STATES = ["authorized", "authorized", "captured", "captured", "captured", "declined", "refunded"]
# metric, unit, base value and spread, both in thousandths of the unit
METRICS = [("temperature", "celsius", 21500, 6000), ("humidity", "percent", 48000, 15000),
           ("vibration", "mm/s", 1800, 1500), ("power", "watt", 312000, 90000)]


class Rng:
    """splitmix64: eight lines, the same everywhere."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return (z ^ (z >> 31)) % bound

    def pick(self, items):
        return items[self.below(len(items))]


def timestamp(milliseconds):
    moment = START + datetime.timedelta(milliseconds=milliseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + "%03dZ" % (moment.microsecond // 1000)


def event(topic, kind, key, tenant, payload):
    return {"topic": topic, "type": kind, "key": key, "headers": {"x-tenant": tenant}, "payload": payload}


def person(rng, region):
    given, family = rng.pick(GIVEN_NAMES), rng.pick(FAMILY_NAMES)
    return {"name": "%s %s" % (given, family),
            "email": "%s.%s%d@%s" % (given.lower(), family.lower(), rng.below(90) + 10, rng.pick(MAIL_HOSTS)),
            "phone": rng.pick(PHONES[region])}


def card_number(rng, prefix, length):
    digits = [int(c) for c in prefix] + [rng.below(10) for _ in range(length - len(prefix) - 1)]
    # Luhn: the check digit makes the sum a multiple of ten.
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = digit * 2 if place % 2 == 0 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return "".join(map(str, digits)) + str(-total % 10)


def break_order(rng, payload):
    """Makes one fault that orders.schema.json must find; returns its name."""
    fault = rng.pick(["missing-total", "missing-customer", "quantity-text", "price-negative", "unknown-currency",
                      "no-items", "total-fraction"])
    if fault == "missing-total":
        del payload["total_cents"]
    elif fault == "missing-customer":
        del payload["customer"]
    elif fault == "quantity-text":
        payload["items"][0]["quantity"] = "two"
    elif fault == "price-negative":
        payload["items"][0]["unit_price_cents"] = -payload["items"][0]["unit_price_cents"]
    elif fault == "unknown-currency":
        payload["currency"] = "euro"
    elif fault == "no-items":
        payload["items"] = []
    else:
        payload["total_cents"] = payload["total_cents"] / 100 + 0.005
    return fault


def orders(rng):
    events, summary = [], {"events": 0, "invalid": 0, "personal_data": 0, "by_region": {}, "faults": {}}
    for number in range(ORDERS):
        region, tenant = rng.pick(REGION_WEIGHTS), rng.pick(TENANTS)
        status = rng.pick(ORDER_STATES)
        items = []
        for _ in range(rng.below(3) + 1):
            sku, name, price = rng.pick(PRODUCTS)
            items.append({"sku": sku, "name": name, "quantity": rng.below(4) + 1, "unit_price_cents": price})
        customer = {"id": "cus-%05d" % rng.below(20000)}
        guest = number % GUEST_EVERY == 3
        if guest:
            customer.update(person(rng, region))
        payload = {"order_id": "ord-%06d" % (100000 + number), "region": region, "status": status,
                   "customer": customer, "items": items,
                   "total_cents": sum(i["quantity"] * i["unit_price_cents"] for i in items),
                   "currency": REGIONS[region], "at": timestamp(number * 40 + rng.below(40))}
        if number % INVALID_EVERY == 17:
            fault = break_order(rng, payload)
            summary["invalid"] += 1
            summary["faults"][fault] = summary["faults"].get(fault, 0) + 1
        summary["personal_data"] += 1 if "email" in payload.get("customer", {}) else 0
        summary["by_region"][region] = summary["by_region"].get(region, 0) + 1
        events.append(event("orders/%s/%s" % (region, status), "com.example.order.%s" % status, payload["order_id"],
                            tenant, payload))
    return events, finish(summary, events)


def telemetry(rng):
    events, summary = [], {"events": 0, "invalid": 0, "personal_data": 0, "by_region": {}}
    sequences = {}
    for number in range(TELEMETRY):
        region, tenant = rng.pick(REGION_WEIGHTS), rng.pick(TENANTS)
        site = rng.pick(SITES[region])
        metric, unit, base, spread = rng.pick(METRICS)
        device = "%s-dev-%03d" % (site, rng.below(40))
        sequences[device] = sequences.get(device, 0) + 1
        value = base - spread // 2 + rng.below(spread)
        payload = {"device_id": device, "region": region, "site": site, "metric": metric, "value": value / 1000,
                   "unit": unit, "sequence": sequences[device], "battery_percent": 100 - rng.below(70),
                   "at": timestamp(number * 40 + rng.below(40))}
        summary["by_region"][region] = summary["by_region"].get(region, 0) + 1
        events.append(event("telemetry/%s/%s/%s" % (region, site, metric), "com.example.telemetry.%s" % metric, device,
                            tenant, payload))
    return events, finish(summary, events)


def payments(rng):
    events, summary = [], {"events": 0, "invalid": 0, "personal_data": 0, "by_region": {}}
    for number in range(PAYMENTS):
        region, tenant = rng.pick(REGION_WEIGHTS), rng.pick(TENANTS)
        status = rng.pick(PAYMENT_STATES)
        payload = {"payment_id": "pay-%06d" % (700000 + number), "order_id": "ord-%06d" % (100000 + rng.below(ORDERS)),
                   "region": region, "status": status, "amount_cents": 990 + rng.below(150000),
                   "currency": REGIONS[region], "at": timestamp(number * 60 + rng.below(60))}
        if number % CARD_EVERY == 0:
            brand, prefix, length = rng.pick(CARDS)
            payload["method"] = "card"
            payload["card"] = {"brand": brand, "number": card_number(rng, prefix, length),
                               "expires": "%02d/%02d" % (rng.below(12) + 1, 27 + rng.below(5))}
            payload["customer"] = person(rng, region)
            summary["personal_data"] += 1
        else:
            payload["method"] = "wallet"
            payload["wallet_token"] = "tok-%08x" % rng.below(1 << 32)
        summary["by_region"][region] = summary["by_region"].get(region, 0) + 1
        events.append(event("payments/%s/%s" % (region, status), "com.example.payment.%s" % status,
                            payload["payment_id"], tenant, payload))
    return events, finish(summary, events)


def finish(summary, events):
    summary["events"] = len(events)
    summary["by_region"] = dict(sorted(summary["by_region"].items()))
    if "faults" in summary:
        summary["faults"] = dict(sorted(summary["faults"].items()))
    return summary


def order_schema():
    text = {"type": "string", "minLength": 1}
    cents = {"type": "integer", "minimum": 0}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Order",
        "type": "object",
        "required": ["order_id", "region", "status", "customer", "items", "total_cents", "currency", "at"],
        "properties": {
            "order_id": {"type": "string", "pattern": "^ord-[0-9]{6}$"},
            "region": {"enum": sorted(REGIONS)},
            "status": {"enum": sorted(set(ORDER_STATES))},
            "customer": {"type": "object", "required": ["id"],
                         "properties": {"id": text, "name": text, "email": text, "phone": text}},
            "items": {"type": "array", "minItems": 1, "items": {
                "type": "object", "required": ["sku", "quantity", "unit_price_cents"],
                "properties": {"sku": text, "name": text, "quantity": {"type": "integer", "minimum": 1},
                               "unit_price_cents": cents}}},
            "total_cents": cents,
            "currency": {"enum": sorted(REGIONS.values())},
            "at": text,
        },
    }


def binding(name, module, pattern, order, config, topics=()):
    return {"name": name, "module": module, "pattern": pattern, "stage": "ingress", "order": order, "config": config,
            "on_fault": "reject", "grant": {"topics": list(topics)}}


def bindings(schema):
    return {
        "orders-schema.json": binding("orders-schema", "schema-json@0.1.0", "orders/**", 10,
                                      {"schema": schema, "on_invalid": "deny"}),
        "payments-redact.json": binding(
            "payments-redact", "redact@0.1.0", "payments/**", 10,
            {"fields": ["card.number", "customer.name", "customer.email", "customer.phone"], "action": "mask",
             "mask": "***"}),
        # Adds a topic, so subscribers of orders/** keep what they had.
        "orders-route.json": binding(
            "orders-route", "content-route@0.1.0", "orders/**", 20,
            {"field": "region", "mode": "add", "routes": {r: "fulfilment/%s" % r for r in REGIONS}, "default": None},
            ["fulfilment/*"]),
    }


def pretty(value):
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def lines(events):
    return "".join(json.dumps(e, separators=(",", ":"), ensure_ascii=False) + "\n" for e in events)


def files():
    """Every file this script owns, as path -> text."""
    here = pathlib.Path(__file__).resolve().parent
    made, summary = {}, {"seed": SEED}
    for place, maker in enumerate((orders, telemetry, payments)):
        # A stream of its own for each kind: a change of one leaves the others' bytes alone.
        events, summary[maker.__name__] = maker(Rng(SEED + place))
        made[here / (maker.__name__ + ".jsonl")] = lines(events)
    made[here / "summary.json"] = pretty(summary)
    schema = order_schema()
    made[here / "orders.schema.json"] = pretty(schema)
    for name, value in bindings(schema).items():
        made[here.parent / "bindings" / name] = pretty(value)
    return made


def main():
    check, stale = sys.argv[1:] == ["--check"], []
    if sys.argv[1:] and not check:
        sys.exit("usage: generate.py [--check]")
    for path, text in files().items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            print("wrote %s (%d bytes)" % (path.name, len(text.encode())))
        elif not path.exists() or path.read_bytes() != text.encode():
            stale.append(path.name)
    if stale:
        sys.exit("not what generate.py makes: %s. Run python3 examples/data/generate.py and commit the result."
                 % ", ".join(stale))


if __name__ == "__main__":
    main()
