"""The schema registry of a real router, by the client and serializers that the Kafka world uses, as they come from PyPI."""

from __future__ import annotations

import json
import struct
from typing import Any, Callable, Iterator

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.schema_registry.schema_registry_client import ConfigCompatibilityLevel, ServerConfig
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

from routers import Router

MAGIC = 0
STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
INT64 = descriptor_pb2.FieldDescriptorProto.TYPE_INT64
MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE


@pytest.fixture(scope="module")
def registry(router: Router) -> Iterator[Callable[[], SchemaRegistryClient]]:
    """Makes clients, each of which has an empty cache."""
    opened: list[SchemaRegistryClient] = []

    def client() -> SchemaRegistryClient:
        made = SchemaRegistryClient({"url": f"http://{router.admin}/registry"})
        opened.append(made)
        return made

    yield client
    for client_ in opened:
        client_.__exit__(None, None, None)


def avro(*optional: str, required: tuple[str, ...] = ("id",)) -> str:
    fields: list[dict[str, str]] = [{"name": name, "type": "string"} for name in required]
    fields += [{"name": name, "type": "string", "default": ""} for name in optional]
    return json.dumps({"type": "record", "name": "Order", "namespace": "shop", "fields": fields})


def context(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


def head(data: bytes) -> tuple[int, int]:
    """The magic byte and the schema's id."""
    magic, schema_id = struct.unpack(">bI", data[:5])
    return magic, schema_id


def refusal(work: Callable[[], Any]) -> tuple[int, int]:
    with pytest.raises(SchemaRegistryError) as refused:
        work()
    return refused.value.http_status_code, refused.value.error_code


def test_avro_is_written_and_read_as_the_schema_grows(registry: Callable[[], SchemaRegistryClient]) -> None:
    write = AvroSerializer(registry(), avro())
    data = write({"id": "o-1"}, context("avro/orders"))
    assert data is not None
    magic, schema_id = head(data)
    assert magic == MAGIC
    latest = registry().get_latest_version("avro/orders-value")
    assert (latest.schema_id, latest.version, latest.schema.schema_type) == (schema_id, 1, "AVRO")
    # Who has the next version reads what was written with this one.
    newer = AvroSerializer(registry(), avro("note"))
    grown = newer({"id": "o-2", "note": "soon"}, context("avro/orders"))
    assert grown is not None and head(grown)[1] != schema_id
    read = AvroDeserializer(registry(), avro("note"))
    assert read(data, context("avro/orders")) == {"id": "o-1", "note": ""}
    assert read(grown, context("avro/orders")) == {"id": "o-2", "note": "soon"}


def test_json_is_written_and_read(registry: Callable[[], SchemaRegistryClient]) -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Order", "type": "object",
              "properties": {"id": {"type": "string"}, "count": {"type": "integer"}}, "required": ["id"]}
    write = JSONSerializer(json.dumps(schema), registry())
    data = write({"id": "o-1", "count": 3}, context("json-orders"))
    assert data is not None and json.loads(data[5:]) == {"id": "o-1", "count": 3}
    found = registry().get_schema(head(data)[1])
    assert found.schema_type == "JSON" and json.loads(found.schema_str or "") == schema
    read = JSONDeserializer(None, schema_registry_client=registry())
    assert read(data, context("json-orders")) == {"id": "o-1", "count": 3}


def messages() -> tuple[Any, Any]:
    """The classes of a message and of one that it refers to, in files of their own."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    money = descriptor_pb2.FileDescriptorProto(name="shop/money.proto", package="shop", syntax="proto3")
    money.message_type.add(name="Money").field.add(name="cents", number=1, type=INT64, label=1)
    order = descriptor_pb2.FileDescriptorProto(name="shop/order.proto", package="shop", syntax="proto3",
                                               dependency=["shop/money.proto", "google/protobuf/timestamp.proto"])
    order.message_type.add(name="Other").field.add(name="x", number=1, type=STRING, label=1)
    message = order.message_type.add(name="Order")
    message.field.add(name="id", number=1, type=STRING, label=1)
    message.field.add(name="price", number=2, type=MESSAGE, type_name=".shop.Money", label=1)
    message.field.add(name="at", number=3, type=MESSAGE, type_name=".google.protobuf.Timestamp", label=1)
    for file in (money, order):
        pool.Add(file)
    classes = [message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in ("shop.Order", "shop.Money")]
    return classes[0], classes[1]


def test_protobuf_is_written_and_read_with_what_it_refers_to(registry: Callable[[], SchemaRegistryClient]) -> None:
    order, money = messages()
    write = ProtobufSerializer(order, registry())
    sent = order(id="o-1", price=money(cents=250))
    data = write(sent, context("proto-orders"))
    assert data is not None and head(data)[0] == MAGIC
    read = ProtobufDeserializer(order, {}, registry())
    assert read(data, context("proto-orders")) == sent
    # A second producer finds the same schema, which people can read.
    again = ProtobufSerializer(order, registry())(sent, context("proto-orders"))
    assert again == data
    latest = registry().get_latest_version("proto-orders-value")
    text = latest.schema.schema_str or ""
    assert "message Order {" in text and 'import "shop/money.proto";' in text, text
    assert [(reference.name, reference.subject, reference.version) for reference in latest.schema.references or []] == [
        ("shop/money.proto", "shop/money.proto", 1)]


def test_what_breaks_readers_is_refused(registry: Callable[[], SchemaRegistryClient]) -> None:
    client = registry()
    client.register_schema("strict-value", Schema(avro(), "AVRO"))
    broken = Schema(avro(required=("id", "note")), "AVRO")
    assert refusal(lambda: client.register_schema("strict-value", broken)) == (409, 409)
    assert not client.test_compatibility("strict-value", broken)
    assert client.test_compatibility("strict-value", Schema(avro("note"), "AVRO"))
    write = AvroSerializer(registry(), avro(required=("id", "note")))
    assert refusal(lambda: write({"id": "x", "note": "y"}, context("strict"))) == (409, 409)
    client.set_config("strict-value", ServerConfig(compatibility=ConfigCompatibilityLevel.NONE))
    assert client.get_config("strict-value").compatibility_level.value == "NONE"
    client.register_schema("strict-value", broken)
    assert client.get_versions("strict-value") == [1, 2]
    assert refusal(lambda: client.register_schema("strict-value", Schema("{", "AVRO"))) == (422, 42201)


def test_a_schema_is_looked_up_referred_to_and_deleted(registry: Callable[[], SchemaRegistryClient]) -> None:
    client = registry()
    money = json.dumps({"type": "record", "name": "Money", "namespace": "shop",
                        "fields": [{"name": "cents", "type": "long"}]})
    bill = json.dumps({"type": "record", "name": "Bill", "namespace": "shop",
                       "fields": [{"name": "sum", "type": "shop.Money"}]})
    money_id = client.register_schema("money", Schema(money, "AVRO"))
    with_reference = Schema(bill, "AVRO", [SchemaReference("shop.Money", "money", 1)])
    bill_id = client.register_schema("bill", with_reference)
    assert client.get_referenced_by("money", 1) == [bill_id]
    write = AvroSerializer(registry(), with_reference)
    data = write({"sum": {"cents": 5}}, context("bills"))
    assert data is not None and head(data) == (MAGIC, bill_id), "the same schema in another subject"
    read = AvroDeserializer(registry())
    assert read(data, context("bills")) == {"sum": {"cents": 5}}
    assert client.delete_subject("bills-value") == [1] and client.delete_subject("bills-value", permanent=True) == [1]
    found = registry().lookup_schema("bill", with_reference)
    assert (found.schema_id, found.version, found.subject) == (bill_id, 1, "bill")
    assert refusal(lambda: registry().lookup_schema("bill", Schema(money, "AVRO"))) == (404, 40403)
    assert refusal(lambda: registry().lookup_schema("nothing", Schema(money, "AVRO"))) == (404, 40401)
    assert refusal(lambda: client.delete_subject("money")) == (422, 42206)
    assert client.delete_subject("bill") == [1]
    assert registry().get_schema(bill_id).schema_str == bill, "who has the id can still read events"
    assert client.delete_subject("bill", permanent=True) == [1]
    assert refusal(lambda: registry().get_schema(bill_id)) == (404, 40403)
    assert client.delete_version("money", 1) == 1
    assert "money" not in registry().get_subjects() and "money" in registry().get_subjects(deleted=True)
    assert registry().register_schema("money", Schema(money, "AVRO")) == money_id
    assert registry().get_versions("money") == [2]


def test_modes_and_levels_are_set_and_taken_back(registry: Callable[[], SchemaRegistryClient]) -> None:
    client = registry()
    assert client.get_global_mode() == "READWRITE"
    assert client.get_config().compatibility_level.value == "BACKWARD"
    assert refusal(lambda: client.get_mode("closed")) == (404, 40409)
    assert client.update_mode("closed", "READONLY") == "READONLY"
    assert refusal(lambda: client.register_schema("closed", Schema(avro(), "AVRO"))) == (422, 42205)
    assert client.delete_mode("closed") == "READONLY"
    assert client.register_schema("closed", Schema(avro(), "AVRO")) > 0


def test_what_there_is_not_is_refused_with_the_numbers_that_clients_read(
        registry: Callable[[], SchemaRegistryClient]) -> None:
    assert refusal(lambda: registry().get_contexts()) == (404, 404)
