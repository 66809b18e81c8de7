"""Where a champion comes from: a folder, a bucket of an emulator, a registry on loopback."""

import concurrent.futures

import google.auth.credentials
import grpc
import pytest
from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports import (
    ModelServiceGrpcTransport,
)
from google.cloud.aiplatform_v1.types import GetModelRequest, Model

from components.download import bucket_folder
from components.download.bucket_folder import local_folder
from components.evaluate import champion
from components.evaluate.champion import resolved
from trainer.errors import InputError

NAME = "projects/p/locations/europe-west4/models/123"


@pytest.fixture
def registry(monkeypatch):
    """Models by name, served as Vertex AI serves them."""
    models = {}

    def get(request, context):
        if request.name not in models:
            context.abort(grpc.StatusCode.NOT_FOUND, "The Model does not exist.")
        return Model(name=request.name, artifact_uri=models[request.name], version_id="7")

    handler = grpc.unary_unary_rpc_method_handler(get, GetModelRequest.deserialize, Model.serialize)
    service = grpc.method_handlers_generic_handler(
        "google.cloud.aiplatform.v1.ModelService", {"GetModel": handler}
    )
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    asked = []

    def client(location):
        asked.append(location)
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        return ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel))

    monkeypatch.setattr(champion, "_model_service", client)
    models["asked"] = asked
    yield models
    server.stop(None)


def test_no_champion():
    assert resolved("") == ("", "")


def test_a_folder_and_its_digest(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"one")
    uri, digest = resolved(str(tmp_path))
    assert uri == str(tmp_path)
    assert resolved(str(tmp_path)) == (uri, digest)
    (tmp_path / "model.keras").write_bytes(b"two")
    assert resolved(str(tmp_path))[1] != digest
    with local_folder(uri, "champion") as folder:
        assert folder == tmp_path


def test_a_folder_above_the_model_is_refused_before_anything_is_trained(tmp_path):
    (tmp_path / "trained_model").mkdir()
    (tmp_path / "trained_model" / "model.keras").write_bytes(b"one")
    with pytest.raises(InputError, match=r"has no model: expected model\.keras, "):
        resolved(str(tmp_path))


def test_an_absent_folder(tmp_path):
    with pytest.raises(InputError, match=r"champion .*/none: no such folder"):
        resolved(str(tmp_path / "none"))


def test_a_bucket(bucket):
    for name in ("best/saved_model/saved_model.pb", "best/export.json", "bestseller/other"):
        bucket.blob(name).upload_from_string(name)
    uri, digest = resolved("gs://data/best")
    with local_folder(uri, "champion") as folder:
        found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")}
        assert found == {
            "saved_model/saved_model.pb": b"best/saved_model/saved_model.pb",
            "export.json": b"best/export.json",
        }
    assert not folder.exists()
    bucket.blob("best/export.json").upload_from_string("another")
    assert resolved("gs://data/best")[1] != digest
    bucket.blob("empty/other").upload_from_string("no model")
    with pytest.raises(InputError, match="champion gs://data/empty: has no model"):
        resolved("gs://data/empty")
    with pytest.raises(InputError, match="gs://data/none: nothing is there"):
        resolved("gs://data/none")


def test_an_object_that_would_leave_the_folder(bucket, monkeypatch):
    # Cloud Storage has such names; the emulator has not.
    names = {"gs://data/evil/../../x": None}
    monkeypatch.setattr(bucket_folder, "objects_under", lambda *_: names)
    with (
        pytest.raises(InputError, match="has an object with the name"),
        local_folder("gs://data/evil", "champion"),
    ):
        pass


def test_the_registry_says_where_a_model_is(registry, tmp_path, capsys):
    (tmp_path / "saved_model.pb").write_bytes(b"model")
    registry[NAME] = str(tmp_path)
    assert resolved(NAME) == resolved(str(tmp_path))
    assert registry["asked"] == ["europe-west4"]
    assert f"champion {NAME}: version 7 at {tmp_path}" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"models/9: Vertex AI does not give it: .*not exist"):
        resolved("projects/p/locations/europe-west4/models/9")
    registry[NAME] = ""
    with pytest.raises(InputError, match="the registry has no files of it"):
        resolved(NAME)


@pytest.mark.parametrize("name", ["projects/p", "projects/p/locations/l/models/m/n"])
def test_a_name_that_no_model_has(name):
    with pytest.raises(InputError, match="expected projects/PROJECT/locations/LOCATION/models/"):
        resolved(name)


def test_without_credentials_the_registry_is_not_asked(monkeypatch):
    def none(*_, **__):
        raise google.auth.exceptions.DefaultCredentialsError("no credentials here")

    monkeypatch.setattr(google.auth, "default", none)
    with pytest.raises(InputError, match="Vertex AI does not give it: no credentials here"):
        resolved(NAME)
