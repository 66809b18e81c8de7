"""Flags of the command line: whose project, which images, and places that its machines have."""

import argparse
import dataclasses
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.targets.vertex_settings import Home, VertexSettings
from pipeline.vertex.flags import (
    add_run_flags,
    add_vertex_flags,
    check_image,
    check_parameters,
    given_flags,
    home_of,
    with_places,
)
from trainer.errors import InputError

WHOLE = ["--project", "my-project-1", "--region", "us-central1", "--bucket", "data"]


def parser():
    one = argparse.ArgumentParser(exit_on_error=False)
    add_vertex_flags(one)
    add_run_flags(one)
    return one


def options(*arguments):
    return parser().parse_args(arguments)


def test_nothing_is_given():
    assert given_flags(options()) == []
    assert given_flags(options("--vertex", "--dataflow", "--hours")) == []
    assert given_flags(options("--project", "", "--prices", "")) == []


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--project", "p"], "PROJECT"), (["--region", "r"], "REGION"),
        (["--bucket", "b"], "BUCKET"), (["--service-account", "s"], "SERVICE_ACCOUNT"),
        (["--network", "n"], "NETWORK"), (["--kms-key", "k"], "KMS_KEY"),
        (["--vertex", "spot=true"], "VERTEX"), (["--dataflow", "a=b", "c=d"], "DATAFLOW"),
        (["--display-name", "d"], "DISPLAY_NAME"), (["--prices", "p"], "PRICES"),
        (["--hours", "train=1"], "HOURS"), (["--dry-run"], "DRY_RUN"),
    ],
)  # fmt: skip
def test_what_is_given_has_the_name_that_make_has(arguments, name):
    assert given_flags(options(*arguments)) == [name]


def test_every_flag_is_one_of_them():
    names = {action.dest for action in parser()._actions} - {"help"}
    # The registry is of the images, on every target.
    everything = argparse.Namespace(**dict.fromkeys(names, "x"))
    assert set(given_flags(everything)) == {name.upper() for name in names - {"registry"}}


def test_every_flag_is_explained():
    for action in parser()._actions:
        assert len(action.help) > 10, action.dest
    text = " ".join(parser().format_help().split())
    for field in dataclasses.fields(VertexSettings):
        assert re.search(rf"\b{field.name}\b", text), field.name


def test_a_list_may_have_many():
    found = options("--vertex", "spot=true", "labels=a:b,c:d", "--hours", "train=1", "gate=2")
    assert found.vertex == ["spot=true", "labels=a:b,c:d"]
    assert found.hours == ["train=1", "gate=2"]
    assert options().vertex == options().dataflow == options().hours == []


@pytest.mark.parametrize("bucket", ["data", "gs://data", "gs://data/", "data/"])
def test_whose_project_it_is(bucket):
    assert home_of(options(*WHOLE, "--bucket", bucket)) == Home(
        "my-project-1", "us-central1", "data", "", "", ""
    )


def test_every_part_of_a_home_has_its_flag():
    found = home_of(
        options(
            *WHOLE, "--service-account", "sa@x.com", "--network", "projects/1/global/networks/n",
            "--kms-key", "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k",
        )
    )  # fmt: skip
    assert dataclasses.astuple(found) == (
        "my-project-1", "us-central1", "data", "sa@x.com", "projects/1/global/networks/n",
        "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "TARGET=vertex: PROJECT is missing, expected a value such as my-project-1"),
        (["--project", "my-project-1"], "TARGET=vertex: REGION is missing"),
        (WHOLE[:4], "TARGET=vertex: BUCKET is missing, expected a value such as my-bucket"),
        ([*WHOLE, "--bucket", "gs://"], "TARGET=vertex: BUCKET is missing"),
        ([*WHOLE, "--bucket", "gs://data/folder"], "BUCKET is 'data/folder', expected"),
        ([*WHOLE, "--bucket", "s3://data"], "BUCKET is 's3://data', expected"),
    ],
)
def test_homes_that_can_not_be(arguments, words):
    with pytest.raises(InputError, match=re.escape(words)):
        home_of(options(*arguments))


def test_a_file_for_any_project_has_no_home():
    assert home_of(options(), needed=()) == Home()
    assert home_of(options(*WHOLE), needed=()) == Home("my-project-1", "us-central1", "data")


@pytest.mark.parametrize("flag", ["project", "region", "bucket"])
def test_a_file_for_any_project_may_know_a_part_of_it(flag):
    value = {"project": "my-project-1", "region": "us-central1", "bucket": "data"}[flag]
    assert home_of(options(f"--{flag}", value), needed=()) == Home(**{flag: value})
    assert home_of(options(f"--{flag}", value), needed=(flag,)) == Home(**{flag: value})
    with pytest.raises(InputError, match=r"TARGET=vertex: (PROJECT|REGION) is missing"):
        home_of(options(f"--{flag}", value))


@pytest.mark.parametrize(
    "flag", ["project", "region", "bucket", "service-account", "network", "kms-key"]
)
def test_a_part_that_is_given_has_its_form_all_the_same(flag):
    name = flag.upper().replace("-", "_")
    with pytest.raises(InputError, match=f"{name} is 'a b', expected "):
        home_of(options(f"--{flag}", "a b"), needed=())


@pytest.mark.parametrize(
    "image",
    [
        "nextvlad-{kind}:1", "registry.example:5000/a/nextvlad-pipeline-{kind}:0123abcd",
        "us-central1-docker.pkg.dev/p/{kind}/image:v1", "x-{kind}:latest-2",
    ],
)  # fmt: skip
def test_images(image):
    check_image(image)


@pytest.mark.parametrize(
    "image",
    [
        "", "nextvlad:1", "nextvlad-cpu:1", "nextvlad-{knd}:1", "nextvlad-kind:1",
        "nextvlad-{kind}", "nextvlad-{kind}:", "nextvlad-{kind}:latest",
        "registry.example:5000/nextvlad-{kind}", "registry.example:5000/nextvlad-{kind}:latest",
        "nextvlad-{kind}-{gpu}:1", "{kind}/nextvlad-{kind}:1", "{{kind}}:1",
    ],
)  # fmt: skip
def test_images_that_a_cache_would_mistake(image):
    words = f"image is {image!r}, expected a name with {{kind}} for cpu or gpu and a tag of one"
    with pytest.raises(InputError, match=re.escape(words)):
        check_image(image)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(), st.text(), st.sampled_from(["", ":1", ":latest", "/a:2", ":"]))
def test_whatever_an_image_is_only_an_input_error_comes(before, after, end):
    image = f"{before}{{kind}}{after}{end}"
    try:
        check_image(image)
    except InputError:
        return
    tag = image.rpartition("/")[2].partition(":")[2]
    assert tag not in ("", "latest")
    assert "{" not in image.replace("{kind}", "", 1)


HOME = Home("my-project-1", "us-central1", "data")
PARAMETERS = {
    "data_source": "sample", "destination": "", "checkpoint_root": "", "champion": "", "epochs": 3,
}  # fmt: skip


def test_places_in_the_bucket_for_what_outlives_a_run():
    before = dict(PARAMETERS)
    found = with_places(before, HOME)
    assert found == PARAMETERS | {
        "destination": "gs://data/nextvlad/data",
        "checkpoint_root": "gs://data/nextvlad/checkpoints",
    }
    assert before == PARAMETERS


@pytest.mark.parametrize("name", ["destination", "checkpoint_root"])
def test_a_place_that_is_given_stays(name):
    other = {"destination": "checkpoint_root", "checkpoint_root": "destination"}[name]
    found = with_places(PARAMETERS | {name: "gs://mine/x"}, HOME)
    assert found[name] == "gs://mine/x"
    assert found[other].startswith("gs://data/nextvlad/")


def test_without_a_bucket_there_are_no_places():
    assert with_places(PARAMETERS, Home()) == PARAMETERS
    assert with_places(PARAMETERS, Home("my-project-1", "us-central1")) == PARAMETERS


NAMES = ("data_source", "destination", "checkpoint_root", "champion")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["/data/x", "~/x", "./x", "../x", ".", "/", "/gcs", "/gcsx/y"])
def test_folders_of_this_machine(name, value):
    words = f"{name} {value}: no machine of Vertex AI has this folder, expected gs://"
    with pytest.raises(InputError, match=re.escape(words)):
        check_parameters(PARAMETERS | {name: value}, VertexSettings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_source", "sample"), ("data_source", "youtube8m:2/frame"),
        ("champion", "projects/p/locations/l/models/m@champion"), ("champion", ""),
        ("destination", ""), ("checkpoint_root", ""),
        *((name, "gs://data/x") for name in NAMES), *((name, "/gcs/data/x") for name in NAMES),
    ],
)  # fmt: skip
def test_places_that_its_machines_have(name, value):
    check_parameters(PARAMETERS | {name: value}, VertexSettings())


def test_what_it_takes_to_have_the_folder_there_is_said():
    with pytest.raises(InputError, match="gcloud storage cp --recursive /my/data gs://BUCKET/"):
        check_parameters(PARAMETERS | {"data_source": "/my/data"}, VertexSettings())


def test_several_workers_share_their_checkpoints():
    two, one = VertexSettings(workers=2), VertexSettings(workers=1)
    with pytest.raises(InputError, match=r"checkpoint_root is empty, expected gs://"):
        check_parameters(PARAMETERS, two)
    check_parameters(PARAMETERS, one)
    check_parameters(PARAMETERS | {"checkpoint_root": "gs://data/c"}, two)
    check_parameters(with_places(PARAMETERS, HOME), two)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("destination", "out/x"), ("checkpoint_root", "ckpt"), ("data_source", "data/yt"),
        ("data_source", "s3://b/x"), ("destination", "file:///x"), ("champion", "runs/1"),
        ("data_source", "samples"), ("champion", "registered-by-me"),
        ("destination", "https://x"),
    ],
)  # fmt: skip
def test_places_that_no_machine_there_has(name, value):
    places = {"data_source": "sample", "destination": "", "checkpoint_root": "", "champion": ""}
    check_parameters(places, VertexSettings())
    with pytest.raises(InputError, match=f"{name} {re.escape(value)}: no machine of Vertex AI"):
        check_parameters(places | {name: value}, VertexSettings())


@pytest.mark.parametrize(
    "image",
    ["x-{kind}}:1", "a b-{kind}:1", "x:{kind}", "x-{kind}@sha256:aa"],
)
def test_images_that_are_no_names(image):
    with pytest.raises(InputError, match="expected a name with"):
        check_image(image)
