"""The protocol buffers `tf.train.Example` and `tf.train.SequenceExample`, without TensorFlow.

Reading records is all that the download and the statistics step need of TensorFlow, whose import
takes seconds and 400 MB in every worker. The messages are built here from the public definition
(https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/core/example/feature.proto and
example.proto) in a descriptor pool of their own, so they never collide with TensorFlow's; a test
holds the bytes of the two against each other.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "nextvlad"


def _field(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    kind: int,
    type_name: str = "",
    repeated: bool = False,
) -> descriptor_pb2.FieldDescriptorProto:
    label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, type=kind, label=label)  # type: ignore[arg-type]
    if type_name:
        field.type_name = f".{_PACKAGE}.{type_name}"
    return field


def _add_map(message: descriptor_pb2.DescriptorProto, name: str, value_type: str) -> None:
    """Add `map<string, value_type> name = 1`, which is a repeated nested entry on the wire."""
    entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
    entry = message.nested_type.add(name=entry_name)
    entry.options.map_entry = True
    _field(entry, "key", 1, _FIELD.TYPE_STRING)
    _field(entry, "value", 2, _FIELD.TYPE_MESSAGE, value_type)
    _field(message, name, 1, _FIELD.TYPE_MESSAGE, f"{message.name}.{entry_name}", repeated=True)


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="nextvlad/example.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, kind in (
        ("BytesList", _FIELD.TYPE_BYTES),
        ("FloatList", _FIELD.TYPE_FLOAT),
        ("Int64List", _FIELD.TYPE_INT64),
    ):
        _field(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("BytesList", "FloatList", "Int64List"), start=1):
        member = f"{name[:-4].lower()}_list"
        _field(feature, member, number, _FIELD.TYPE_MESSAGE, name).oneof_index = 0
    _add_map(file.message_type.add(name="Features"), "feature", "Feature")
    feature_list = file.message_type.add(name="FeatureList")
    _field(feature_list, "feature", 1, _FIELD.TYPE_MESSAGE, "Feature", repeated=True)
    _add_map(file.message_type.add(name="FeatureLists"), "feature_list", "FeatureList")
    example = file.message_type.add(name="Example")
    _field(example, "features", 1, _FIELD.TYPE_MESSAGE, "Features")
    sequence = file.message_type.add(name="SequenceExample")
    _field(sequence, "context", 1, _FIELD.TYPE_MESSAGE, "Features")
    _field(sequence, "feature_lists", 2, _FIELD.TYPE_MESSAGE, "FeatureLists")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}")
        )
        for message in file.message_type
    }


_MESSAGES = _build()
Example: Any = _MESSAGES["Example"]
SequenceExample: Any = _MESSAGES["SequenceExample"]
