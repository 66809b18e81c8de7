"""The statistics step on Dataflow: settings become options that Beam itself has checked."""

import re

import pytest

from pipeline.targets.dataflow import dataflow_arguments
from trainer.errors import InputError

IMAGE = "registry.example/nextvlad-dataflow:fixed"
LEAST = ["project=my-project-1", "region=us-central1", "temp_location=gs://my-bucket/beam"]
GIVEN = {
    "project": "my-project-1", "region": "us-central1", "temp_location": "gs://my-bucket/beam",
    "service_account": "", "labels": "",
}  # fmt: skip
OPTIONS = (
    "--runner=DataflowRunner",
    "--project=my-project-1",
    "--region=us-central1",
    "--temp_location=gs://my-bucket/beam/temp",
    "--staging_location=gs://my-bucket/beam/staging",
    f"--sdk_container_image={IMAGE}",
    "--sdk_location=container",
    "--autoscaling_algorithm=THROUGHPUT_BASED",
    "--no_use_public_ips",
)
LABEL = "--labels=application=nextvlad-pipeline"


def options(*settings, **given):
    return dataflow_arguments(settings, IMAGE, given)


def test_without_settings_it_is_not_dataflow():
    assert dataflow_arguments([], IMAGE) == ()
    assert dataflow_arguments([], IMAGE, GIVEN) == ()


def test_the_least_that_it_needs():
    assert dataflow_arguments(LEAST, IMAGE) == (*OPTIONS, LABEL)
    assert options(*LEAST) == (*OPTIONS, LABEL)


def test_what_is_given_holds_where_the_settings_say_nothing():
    assert options("max_workers=9", **GIVEN) == (*OPTIONS, "--max_num_workers=9", LABEL)
    # One setting is enough to ask for it, as long as it does not change anything.
    assert options("public_ips=false", **GIVEN) == (*OPTIONS, LABEL)


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ("project=other-project", "--project=other-project"),
        ("region=europe-west4", "--region=europe-west4"),
        ("temp_location=gs://other/x/", "--temp_location=gs://other/x/temp"),
        ("service_account=other@example.com", "--service_account_email=other@example.com"),
        ("labels=team:audio", "--labels=team=audio"),
    ],
)
def test_a_setting_counts_more_than_what_is_given(setting, option):
    given = GIVEN | {"service_account": "me@example.com", "labels": "team:video"}
    name = option.partition("=")[0] if "--labels" not in option else "--labels=team"
    found = options(setting, **given)
    assert [one for one in found if one.startswith(f"{name}=")] == [option]


def test_labels_and_account_of_the_run_are_the_job_s():
    found = options("max_workers=2", **GIVEN | {"service_account": "me@x.com", "labels": "a:1,b:"})
    assert found == (
        *OPTIONS, "--service_account_email=me@x.com", "--max_num_workers=2", LABEL,
        "--labels=a=1", "--labels=b=",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ("service_account=me@example.com", "--service_account_email=me@example.com"),
        ("subnetwork=regions/us-central1/subnetworks/s",
         "--subnetwork=regions/us-central1/subnetworks/s"),
        ("machine_type=n2-standard-4", "--machine_type=n2-standard-4"),
        ("kms_key=projects/p/locations/l/keyRings/r/cryptoKeys/k",
         "--dataflow_kms_key=projects/p/locations/l/keyRings/r/cryptoKeys/k"),
        ("max_workers=1", "--max_num_workers=1"),
    ],
)  # fmt: skip
def test_a_setting_is_one_option_more(setting, option):
    assert sorted(options(*LEAST, setting)) == sorted((*OPTIONS, LABEL, option))


def test_the_key_of_the_run_is_the_job_s():
    assert "--dataflow_kms_key=k" in options("max_workers=2", **GIVEN | {"kms_key": "k"})
    assert not any("kms" in one for one in options("max_workers=2", **GIVEN | {"kms_key": ""}))


def test_public_addresses():
    found = options(*LEAST, "public_ips=true")
    assert "--use_public_ips" in found
    assert "--no_use_public_ips" not in found


def test_labels_are_pairs():
    found = options(*LEAST, "labels=team:video,cost:7")
    assert [one for one in found if one.startswith("--labels")] == [
        LABEL, "--labels=team=video", "--labels=cost=7",
    ]  # fmt: skip


@pytest.mark.parametrize("missing", range(3))
def test_what_is_missing_is_named(missing):
    name = LEAST[missing].partition("=")[0]
    rest = [setting for setting in LEAST if setting != LEAST[missing]]
    words = f"dataflow: {name} is missing, expected such as project=p-1"
    with pytest.raises(InputError, match=re.escape(words)):
        options(*rest)
    # What is given as nothing is not given.
    with pytest.raises(InputError, match=re.escape(words)):
        options(*rest, **{name: ""})
    options(*rest, **{name: LEAST[missing].partition("=")[2]})


def test_all_that_is_missing_is_named_at_once():
    with pytest.raises(InputError, match="dataflow: project, region, temp_location is missing"):
        options("max_workers=3")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("subnet=x", "dataflow setting 'subnet=x': expected name=value of project, region, "),
        ("subnet=x", "; did you mean subnetwork"),
        ("max_workers", "dataflow setting 'max_workers': expected name=value of project, "),
        ("max_workers=many", "max_workers is 'many' (str), expected a whole number"),
        ("max_workers=2.5", "max_workers is 2.5 (float), expected a whole number"),
        ("max_workers=-1", "-1"),
        ("public_ips=yes", "public_ips is 'yes' (str), expected true or false"),
        ("labels=team", "dataflow setting labels 'team': expected key:value"),
        ("labels=a:1,:2", "dataflow setting labels ':2': expected key:value"),
        ("project=My Project", "Invalid Project ID (My Project)"),
        ("project=815042", "815042"),
        ("temp_location=/tmp", "Invalid GCS path (/tmp/temp)"),
        ("temp_location=s3://b", "Invalid GCS path (s3://b/temp)"),
        ("temp_location=gs://", "Invalid GCS path (gs:/temp)"),
    ],
)
def test_what_can_not_be_is_said(setting, words):
    with pytest.raises(InputError, match=re.escape(words)):
        options(*LEAST, setting)
    with pytest.raises(InputError, match=re.escape(words)):
        options(setting, **GIVEN)


def test_the_workers_have_the_image_that_the_run_has():
    found = dataflow_arguments(LEAST, "x/nextvlad-dataflow:2")
    assert "--sdk_container_image=x/nextvlad-dataflow:2" in found
