"""TF_CONFIG: the cluster that it describes, or one line about what is wrong with it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.workers import THREE, config_text
from trainer.cluster import Cluster, read_cluster
from trainer.errors import InputError


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_no_variable_is_no_cluster(text):
    assert read_cluster(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            config_text(
                {"chief": ["pool0-0:2222"], "worker": ["pool1-0:2222", "pool1-1:2222"]},
                index=1, environment="cloud", job="{}",
            ),
            Cluster(("pool0-0:2222", "pool1-0:2222", "pool1-1:2222"), 2, True),
        ),
        (
            config_text({"worker": ["w:2"], "chief": ["c.x-y.z.:1"], "ps": []}, "chief", "0"),
            Cluster(("c.x-y.z.:1", "w:2"), 0, True),
        ),
        (
            config_text({"worker": ["127.0.0.1:65535", "[::1]:1"]}, index="01"),
            Cluster(("127.0.0.1:65535", "[::1]:1"), 1, False),
        ),
        (config_text({"chief": ["127.0.0.1:2222"]}, "chief"), None),
        (config_text({"worker": ["localhost:2222"]}), None),
    ],
)  # fmt: skip
def test_a_cluster_is_read_in_the_order_of_ranks(text, expected):
    assert read_cluster(text) == expected


def test_what_follows_from_a_rank():
    assert (THREE.count, THREE.is_chief, THREE.peers) == (3, False, [0, 2])
    assert THREE.tasks == [("chief", 0), ("worker", 0), ("worker", 1)]
    workers = Cluster(("a:1", "b:2"), 0, has_chief=False)
    assert workers.is_chief
    assert workers.tasks == [("worker", 0), ("worker", 1)]


TWO = {"chief": ["a:1"], "worker": ["b:2"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "TF_CONFIG is '{', expected JSON (Expecting"),
        ("[" * 100_000, "expected JSON (maximum recursion"),
        ("9" * 5000, "expected JSON (Exceeds the limit"),
        ("[]", "TF_CONFIG is [], expected a JSON object"),
        ("{}", "TF_CONFIG.cluster is None, expected an object of the addresses of chief"),
        (config_text({}), "TF_CONFIG.cluster is {}, expected"),
        (config_text({"worker": []}), "TF_CONFIG.cluster is {'worker': []}, expected"),
        (config_text(["a:1"]), "TF_CONFIG.cluster is ['a:1'], expected an object"),
        (config_text(TWO | {"ps": ["c:3"]}), "there are no parameter servers or evaluators here"),
        (config_text(TWO | {"evaluator": ["c:3"]}), "expected chief and worker alone"),
        (config_text({"master": ["a:1"]}, "master"), "expected chief and worker alone"),
        (config_text({"worker": "a:1"}), "TF_CONFIG.cluster.worker is 'a:1', expected a list"),
        (config_text({"worker": {"0": "a:1"}}), "expected a list of host:port"),
        (config_text(TWO | {"chief": ["a:1", "c:3"]}), "is ['a:1', 'c:3'], expected one address"),
        (config_text(TWO | {"worker": ["a:1"]}), "TF_CONFIG.cluster has a:1 twice"),
        (config_text({"worker": ["b:2", "b:2"]}), "TF_CONFIG.cluster has b:2 twice"),
        (json.dumps({"cluster": TWO}), "TF_CONFIG.task is None, expected an object of type"),
        (config_text(TWO, None), "TF_CONFIG.task.type is None, expected chief or worker"),
        (config_text(TWO, ["chief"]), "TF_CONFIG.task.type is ['chief'], expected"),
        (config_text(TWO, "evaluator"), "TF_CONFIG.task.type is 'evaluator', expected chief or"),
        (config_text({"worker": ["b:2"]}, "chief"), "is 'chief', expected worker, as"),
        (config_text(TWO, index=1), "TF_CONFIG.task.index is 1, expected a whole number of 0 to 0"),
        (config_text(TWO, index=-1), "TF_CONFIG.task.index is -1"),
        (config_text(TWO, index=True), "TF_CONFIG.task.index is True"),
        (config_text(TWO, index=0.0), "TF_CONFIG.task.index is 0.0"),
        (config_text(TWO, index="x"), "TF_CONFIG.task.index is 'x'"),
        (config_text(TWO, index="٠"), "TF_CONFIG.task.index is '٠'"),
        (config_text(TWO, index=None), "TF_CONFIG.task.index is None"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(text, words):
    with pytest.raises(InputError) as caught:
        read_cluster(text)
    message = str(caught.value)
    assert words in message
    assert message.startswith("TF_CONFIG")
    assert len(message) < 300
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "address",
    [
        "a", "a:", ":1", "a:0", "a:65536", "a:-1", "a:1x", "a b:1", "a..b:1", "http://a:1", "a:1\n",
        "::1:1", "x" * 64 + ":1", ".".join(["x" * 60] * 5) + ":1", "ä:1", 1, None, ["a:1"],
    ],
)  # fmt: skip
def test_an_address_is_host_and_port(address):
    with pytest.raises(InputError, match=r"^TF_CONFIG\.cluster\.chief is .*, expected host:port"):
        read_cluster(config_text(TWO | {"chief": [address]}))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ADDRESSES = st.lists(st.from_regex(r"[ab]\.?:[0-9]{1,5}", fullmatch=True) | VALUES, max_size=3)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "cluster": VALUES
        | st.dictionaries(st.sampled_from(["chief", "worker", "ps"]), ADDRESSES | VALUES),
        "task": VALUES
        | st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["chief", "worker", "evaluator"]) | VALUES,
                "index": st.integers(-1, 3) | st.sampled_from(["0", "1"]) | VALUES,
            },
        ),
    },
)


@settings(max_examples=500, deadline=None)
@given(text=st.text() | VALUES.map(json.dumps) | NEARLY.map(json.dumps))
def test_any_text_is_a_cluster_or_none_or_one_line(text):
    try:
        found = read_cluster(text)
    except InputError as error:
        assert str(error).startswith("TF_CONFIG")  # noqa: PT017
    else:
        assert found is None or (found.count >= 2 and 0 <= found.index < found.count)
