"""VERTEX="name=value …": every setting at its ends, and one error for each that can not be."""

import dataclasses
import re
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.targets.vertex_settings import Home, VertexSettings, check_home, vertex_settings
from trainer.errors import InputError

FIELDS = {field.name: field for field in dataclasses.fields(VertexSettings)}
KINDS = typing.get_type_hints(VertexSettings)
NUMBERS = [name for name, kind in KINDS.items() if kind in (int, float)]
TEXTS = [name for name, kind in KINDS.items() if kind is str]

BESIDE = {
    ("accelerators", 16): ["machine=a2-megagpu-16g", "accelerator=NVIDIA_TESLA_A100"],
}
"""What else has to be given for an extreme value."""


def test_the_defaults_can_be():
    assert vertex_settings([]) == VertexSettings()
    assert (VertexSettings().machine, VertexSettings().accelerator) == (
        "n1-standard-8", "NVIDIA_TESLA_T4",
    )  # fmt: skip


def test_the_defaults_can_be_given():
    for name, field in FIELDS.items():
        text = str(field.default).lower() if KINDS[name] is bool else str(field.default)
        assert vertex_settings([f"{name}={text}"]) == VertexSettings(), name


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_described(name):
    assert len(FIELDS[name].metadata["description"]) > 8
    assert KINDS[name] in (int, float, bool, str)


def test_every_number_has_a_least_value():
    for name in NUMBERS:
        limits = FIELDS[name].metadata
        assert limits["minimum"] is not None or limits["above"] is not None, name


ENDS = [
    (name, FIELDS[name].metadata[end], end)
    for name in NUMBERS
    for end in ("minimum", "maximum")
    if FIELDS[name].metadata[end] is not None
]


@pytest.mark.parametrize(("name", "value", "end"), ENDS)
def test_the_extreme_values(name, value, end):
    beside = BESIDE.get((name, value), [])
    assert getattr(vertex_settings([*beside, f"{name}={value}"]), name) == value
    beyond = value - 1 if end == "minimum" else value + 1
    words = f"VERTEX setting {name} is {KINDS[name](beyond)}, expected at "
    words += f"{'least' if end == 'minimum' else 'most'} {value}"
    with pytest.raises(InputError, match=re.escape(words)):
        vertex_settings([*beside, f"{name}={beyond}"])


def test_limits_that_follow_from_what_they_are():
    limits = {
        name: (field.metadata["minimum"], field.metadata["maximum"])
        for name, field in FIELDS.items()
    }
    assert limits["traffic"] == (0, 100)  # percent
    assert limits["disk_gb"] == (100, 64_000)  # of Vertex AI's boot disks
    assert limits["train_hours"][1] == limits["step_hours"][1] == 7 * 24  # its longest job
    for name in ("train_retries", "step_retries", "evaluate_accelerators", "keep"):
        assert limits[name][0] == 0, name
    for name in ("accelerators", "workers", "replicas", "most_replicas", "batch_replicas"):
        assert limits[name][0] == 1, name


@pytest.mark.parametrize("name", ["train_hours", "step_hours"])
@pytest.mark.parametrize("hours", ["0", "-1", "0.0"])
def test_no_time_at_all_is_none(name, hours):
    with pytest.raises(InputError, match=f"VERTEX setting {name} is .*, expected "):
        vertex_settings([f"{name}={hours}"])


def test_every_field_gets_its_own_value():
    given_settings = {
        "machine": "n1-highmem-16", "accelerator": "NVIDIA_TESLA_V100", "accelerators": 8,
        "workers": 3, "spot": True, "disk_gb": 101,
        "tensorboard": "projects/p-1/locations/europe-west4/tensorboards/42", "train_hours": 1.5,
        "train_retries": 0, "evaluate_accelerators": 2, "extract_accelerator": True,
        "step_hours": 0.5, "step_retries": 4,
        "labels": "team:video,cost:", "email": "a@example.com,b.c+d@sub.example.org",
        "registered_model": "videos_1", "aliases": "prod,v-2", "endpoint": "Videos in prod",
        "traffic": 7, "keep": 0, "serving_machine": "g2-standard-12",
        "serving_accelerator": "NVIDIA_L4", "replicas": 2, "most_replicas": 5,
        "batch_source": "gs://a/x*,gs://b/y", "batch_destination": "gs://a/out",
        "batch_replicas": 9,
    }  # fmt: skip
    assert set(given_settings) == set(FIELDS)
    found = vertex_settings(
        [f"{k}={str(v).lower() if v is True else v}" for k, v in given_settings.items()]
    )
    assert dataclasses.asdict(found) == given_settings
    assert found.label_pairs() == {"team": "video", "cost": ""}
    assert found.recipients() == ["a@example.com", "b.c+d@sub.example.org"]
    assert found.alias_list() == ["prod", "v-2"]


def test_the_shortest_time_is_no_hour():
    found = vertex_settings(["train_hours=0.1", "step_hours=0.1"])
    assert (found.train_hours, found.step_hours) == (0.1, 0.1)


def test_nothing_is_an_empty_list():
    found = VertexSettings()
    assert (found.label_pairs(), found.recipients(), found.alias_list()) == ({}, [], [])


@pytest.mark.parametrize(
    "given_settings",
    [
        ["accelerator="],
        ["accelerator=", "machine=e2-standard-4"],
        ["accelerator=", "accelerators=16"],  # of none
        ["evaluate_accelerators=1"],
        ["extract_accelerator=true"],
        ["registered_model="],
        ["serving_machine=e2-highmem-2"],
        ["serving_machine=n1-standard-2"],
        ["serving_machine=e2-standard-2"],
        ["replicas=3", "most_replicas=3"],
        ["batch_source=gs://data/test-*"],  # the destination follows from the bucket
        ["email=a@b.cd,a@b.ce,a@b.cf"],
        ["registered_model=" + "m" * 63, "aliases=" + "a" * 128],
        ["labels=" + "k" * 63 + ":" + "v" * 63],
        ["labels=k:0-_9"],
        ["labels=" + ",".join(f"k{number}:v" for number in range(60))],
    ],
)
def test_what_can_be(given_settings):
    vertex_settings(given_settings)


LABEL = "expected up to 63 of a-z, 0-9, - and _, a letter first in the key"


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        (["machin=x"], "VERTEX setting 'machin=x': expected name=value of machine, "),
        (["machin=x"], "; did you mean machine"),
        (["spot"], "VERTEX setting 'spot': expected name=value of machine, "),
        (["spot=yes"], "VERTEX setting spot is 'yes' (str), expected true or false"),
        (["accelerators=one"], "VERTEX setting accelerators is 'one' (str), expected a whole num"),
        (["train_hours=8h"], "VERTEX setting train_hours is '8h' (str), expected a number"),
        (["machine=n1-standard-7"], "machine 'n1-standard-7': Vertex AI has no such machine type"),
        (["machine=n1-standard-7"], "; did you mean n1-standard-"),
        (["machine="], "machine '': Vertex AI has no such machine type"),
        # Serves predictions, and does not train.
        (["machine=e2-standard-2", "accelerator="], "machine 'e2-standard-2': Vertex AI has no su"),
        (["machine=c2-standard-8"], "machine c2-standard-8: takes no NVIDIA_TESLA_T4, expected one"
                                    " of n1-standard-4, n1-standard-8, "),
        (["machine=g2-standard-8", "accelerator="],
         "machine g2-standard-8: comes with NVIDIA_L4, expected it as accelerator"),
        (["accelerator=NVIDIA_T4"],
         "accelerator 'NVIDIA_T4': expected one of NVIDIA_TESLA_T4, NVIDIA_L4, "),
        (["accelerators=3"], "machine n1-standard-8: takes 1, 2, 4 of NVIDIA_TESLA_T4, found 3"),
        (["machine=n1-standard-96"],
         "machine n1-standard-96: takes 4 of NVIDIA_TESLA_T4, found 1"),
        (["serving_machine=n1-standard-5"],
         "serving_machine 'n1-standard-5': Vertex AI has no such machine type"),
        (["serving_machine=g2-standard-4"],
         "serving_machine g2-standard-4: comes with NVIDIA_L4, expected it"),
        (["serving_accelerator=NVIDIA_L4"], "serving_machine n1-standard-4: takes no NVIDIA_L4"),
        (["serving_accelerator=NVIDIA_L4", "serving_machine=g2-standard-24"],
         "serving_machine g2-standard-24: takes 2 of NVIDIA_L4, found 1"),
        (["accelerator=", "evaluate_accelerators=1"],
         "VERTEX setting evaluate_accelerators: needs an accelerator"),
        (["accelerator=", "extract_accelerator=true"],
         "VERTEX setting extract_accelerator: needs an accelerator"),
        (["labels=team"], "VERTEX setting labels 'team': expected key:value"),
        (["labels=:video"], "VERTEX setting labels ':video': expected key:value"),
        (["labels=Team:x"], f"VERTEX setting labels: Team:x: {LABEL}"),
        (["labels=1:x"], f"VERTEX setting labels: 1:x: {LABEL}"),
        (["labels=_a:x"], f"VERTEX setting labels: _a:x: {LABEL}"),
        (["labels=a:1,b:X"], f"VERTEX setting labels: b:X: {LABEL}"),
        (["labels=a:1:2"], f"VERTEX setting labels: a:1:2: {LABEL}"),
        (["labels=a:b c"], f"VERTEX setting labels: a:b c: {LABEL}"),
        (["labels=" + "k" * 64 + ":v"], LABEL),
        (["labels=k:" + "v" * 64], LABEL),
        (["labels=" + ",".join(f"k{number}:v" for number in range(61))],
         "VERTEX setting labels: 61, expected at most 60"),
        (["email=me"], "VERTEX setting email 'me': expected an e-mail address"),
        (["email=a@b.cd,@b.cd"], "VERTEX setting email '@b.cd': expected"),
        (["email=a@localhost"], "VERTEX setting email 'a@localhost': expected"),
        (["email=a@b@c.de"], "VERTEX setting email 'a@b@c.de': expected"),
        (["email=a@b.cd, e@f.gh"], "VERTEX setting email ' e@f.gh': expected"),
        (["email=a@b.cd,a@b.ce,a@b.cf,a@b.cg"], "VERTEX setting email: expected at most 3"),
        (["tensorboard=42"], "VERTEX setting tensorboard '42': expected projects/P/locations/L/"),
        (["tensorboard=projects/p/locations/l/tensorboards/x"], "tensorboards/NUMBER"),
        (["tensorboard=projects/p/locations/l/tensorboards/1/x"], "tensorboards/NUMBER"),
        (["tensorboard=x/projects/p/locations/l/tensorboards/1"], "tensorboards/NUMBER"),
        (["registered_model=NeXtVLAD"], "registered model 'NeXtVLAD': expected up to 63 of a-z"),
        (["registered_model=7seconds"], "registered model '7seconds': expected up to 63 of a-z"),
        (["aliases=prod,2"], "alias '2' of model nextvlad: expected 2 to 128 of a-z"),
        (["registered_model=", "endpoint=e"], "need a registered_model"),
        (["registered_model=", "batch_source=gs://a"], "need a registered_model"),
        (["replicas=2"],
         "VERTEX setting most_replicas is 1, expected at least replicas, 2"),
        (["replicas=9", "most_replicas=8"], "most_replicas is 8, expected at least replicas, 9"),
        (["batch_source=/data/x"], "VERTEX setting batch_source '/data/x': expected gs://"),
        (["batch_source=gs://a,b"], "VERTEX setting batch_source 'b': expected gs://"),
        (["batch_source=xgs://a"], "VERTEX setting batch_source 'xgs://a': expected gs://"),
        (["batch_destination=out"], "VERTEX setting batch_destination 'out': expected gs://"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_said(given_settings, words):
    with pytest.raises(InputError, match=re.escape(words)):
        vertex_settings(given_settings)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TEXTS), st.text(), st.sampled_from(["", "gs://", "a:", "a@b.cd", "n1-"]))
def test_a_text_comes_back_or_is_an_input_error(name, text, begin):
    try:
        found = vertex_settings([f"{name}={begin}{text}"])
    except InputError:
        return
    assert found == dataclasses.replace(VertexSettings(), **{name: begin + text})


KEY = "projects/p-1/locations/us-central1/keyRings/r/cryptoKeys/k"
RIGHT = Home("my-project-1", "us-central1", "data")


def with_(**values):
    return dataclasses.replace(RIGHT, **values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"project": "abcdef"},
        {"project": "p" + "1" * 29},
        {"project": "example.com:my-project"},
        {"region": "europe-west12"},
        {"region": "northamerica-northeast1"},
        {"bucket": "abc"},
        {"bucket": "a" * 63},
        {"bucket": "my_bucket.example.com"},
        {"service_account": "nextvlad@my-project-1.iam.gserviceaccount.com"},
        {"network": "projects/815042/global/networks/default"},
        {"kms_key": KEY},
    ],
)
def test_homes(values):
    check_home(with_(**values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"project": ""}, "TARGET=vertex: PROJECT is missing, expected a value such as my-proj"),
        ({"region": ""}, "TARGET=vertex: REGION is missing, expected a value such as us-central1"),
        ({"bucket": ""}, "TARGET=vertex: BUCKET is missing, expected a value such as my-bucket"),
        ({"project": "815042"}, "PROJECT is '815042', expected such as my-project-1"),
        ({"project": "My-Project"}, "PROJECT is 'My-Project', expected such as"),
        ({"project": "abcde"}, "PROJECT is 'abcde'"),
        ({"project": "a" * 31}, "PROJECT is 'aaaa"),
        ({"project": "my-project-"}, "PROJECT is 'my-project-'"),
        ({"project": "my-project-1\n"}, "PROJECT is 'my-project-1\\n'"),
        ({"region": "us-central1-a"}, "REGION is 'us-central1-a', expected such as us-central1"),
        ({"region": "us"}, "REGION is 'us', expected"),
        ({"region": "US-CENTRAL1"}, "REGION is 'US-CENTRAL1', expected"),
        ({"bucket": "data/folder"}, "BUCKET is 'data/folder', expected such as my-bucket"),
        ({"bucket": "gs://data"}, "BUCKET is 'gs://data', expected"),
        ({"bucket": "ab"}, "BUCKET is 'ab', expected"),
        ({"bucket": "-abc"}, "BUCKET is '-abc', expected"),
        ({"bucket": "abc-"}, "BUCKET is 'abc-', expected"),
        ({"bucket": "Data"}, "BUCKET is 'Data', expected"),
        ({"service_account": "me"}, "SERVICE_ACCOUNT is 'me', expected an e-mail address"),
        ({"service_account": "a@b c"}, "SERVICE_ACCOUNT is 'a@b c', expected"),
        ({"network": "default"}, "NETWORK is 'default', expected projects/NUMBER/global/networks/"),
        ({"network": "projects/my-project-1/global/networks/default"}, "number, not its id"),
        ({"kms_key": "k"}, "KMS_KEY is 'k', expected projects/P/locations/L/keyRings/R/crypto"),
        ({"kms_key": KEY + "/cryptoKeyVersions/1"}, "KMS_KEY is '"),
        ({"kms_key": KEY, "region": "europe-west4"},
         f"KMS_KEY {KEY}: is not in the region europe-west4"),
        ({"kms_key": KEY.replace("us-central1", "us-central10")},
         "is not in the region us-central1"),
        ({"kms_key": KEY.replace("us-central1", "global")}, "is not in the region us-central1"),
    ],
)  # fmt: skip
def test_homes_that_are_none(values, words):
    with pytest.raises(InputError, match=re.escape(words)):
        check_home(with_(**values))


def test_what_is_missing_is_said_in_the_order_of_the_flags():
    with pytest.raises(InputError, match="PROJECT is missing"):
        check_home(Home())


def test_where_no_home_is_needed_a_part_may_be_missing():
    check_home(Home(), needed=())
    for name in ("project", "region", "bucket"):
        check_home(with_(**{name: ""}), needed=())
        check_home(with_(**{name: ""}), needed={"project", "region", "bucket"} - {name})
        with pytest.raises(InputError, match=f"{name.upper()} is missing"):
            check_home(with_(**{name: ""}), needed=(name,))
        with pytest.raises(InputError, match=f"{name.upper()} is 'X', expected "):
            check_home(Home(**{name: "X"}), needed=())
    check_home(Home(kms_key=KEY), needed=())
    check_home(Home(kms_key=KEY, region="us-central1"), needed=())
    with pytest.raises(InputError, match="is not in the region europe-west4"):
        check_home(Home(kms_key=KEY, region="europe-west4"), needed=())


def test_the_pipeline_s_part_of_the_bucket():
    assert RIGHT.root == "gs://data/nextvlad"


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([field.name for field in dataclasses.fields(Home)]), st.text())
def test_whatever_a_home_is_only_an_input_error_comes(name, text):
    home = with_(**{name: text})
    try:
        check_home(home)
    except InputError:
        return
    # Nothing that would have to be escaped in a URL, a resource's name or a shell.
    assert not re.search(r"[\s'\"\\?#%]", text) or name in ("service_account", "kms_key")
