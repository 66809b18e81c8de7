"""The files for a stock TensorFlow Serving have the fields that it knows, and name what we export.

Its messages, by their public definitions: `tensorflow_serving/config/model_server_config.proto`,
`monitoring_config.proto` and `servables/tensorflow/session_bundle_config.proto`. Protocol Buffers'
text parser refuses a field that is not among them.
"""

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from components.serving.settings import ServingSettings

FOLDER = Path(__file__).parents[2] / "docker" / "tensorflow_serving"
FIELDS = {
    "Int64Value": [("value", "int64", False)],
    "ModelConfig": [("name", "string", False), ("base_path", "string", False),
                    ("model_platform", "string", False)],
    "ModelConfigList": [("config", "ModelConfig", True)],
    "ModelServerConfig": [("model_config_list", "ModelConfigList", False)],
    "PrometheusConfig": [("enable", "bool", False), ("path", "string", False)],
    "MonitoringConfig": [("prometheus_config", "PrometheusConfig", False)],
    "BatchingParameters": [
        (name, "Int64Value", False)
        for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches",
                     "num_batch_threads")
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def messages():
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package="s", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {"int64": kinds.TYPE_INT64, "string": kinds.TYPE_STRING, "bool": kinds.TYPE_BOOL}
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, repeated) in enumerate(fields, 1):
            added = message.field.add(name=field, number=number)
            added.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added.type = scalars.get(kind, kinds.TYPE_MESSAGE)
            if kind not in scalars:
                added.type_name = f".s.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"s.{name}"))
        for name in FIELDS
    }


def parsed(message, name):
    return text_format.Parse((FOLDER / name).read_text(), message())


def test_the_model_is_where_the_guide_mounts_it(messages):
    (model,) = parsed(messages["ModelServerConfig"], "models.config").model_config_list.config
    assert (model.name, model.model_platform) == (ServingSettings().name, "tensorflow")
    guide = (FOLDER.parents[1] / "docs" / "serving.md").read_text()
    assert f":{model.base_path}/1:ro" in guide
    for name in FOLDER.iterdir():
        assert f"/config/{name.name}" in guide


def test_batches_are_as_our_servers(messages):
    ours = ServingSettings()
    batching = parsed(messages["BatchingParameters"], "batching.config")
    assert batching.max_batch_size.value == ours.max_batch
    assert batching.batch_timeout_micros.value == ours.batch_milliseconds * 1000
    assert batching.max_enqueued_batches.value * ours.max_batch == ours.max_queue


def test_prometheus_has_its_metrics(messages):
    assert parsed(messages["MonitoringConfig"], "monitoring.config").prometheus_config.enable
