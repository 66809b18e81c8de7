"""The table of machines is consistent, and what is checked against it is what it says."""

import itertools
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.targets.vertex_machines import (
    check_machine,
    machine_table,
    quota_metric,
    serving_metric,
    step_machine,
)
from trainer.errors import InputError

MACHINES = machine_table()["machines"]
ACCELERATORS = machine_table()["accelerators"]

# Compute Engine's families: GB for each vCPU.
MEMORY = {
    "e2-standard": 4, "e2-highmem": 8, "e2-highcpu": 1,
    "n1-standard": 3.75, "n1-highmem": 6.5, "n1-highcpu": 0.9,
    "n2-standard": 4, "n2-highmem": 8, "n2-highcpu": 1,
    "c2-standard": 4, "g2-standard": 4,
}  # fmt: skip
# vCPUs and GB for each GPU, where a machine's name has their number.
BY_GPU = {
    "a2-highgpu": (12, 85), "a2-ultragpu": (12, 170), "a2-megagpu": (6, 85),
    "a3-highgpu": (26, 234),
}  # fmt: skip
L4S = {4: 1, 8: 1, 12: 1, 16: 1, 24: 2, 32: 1, 48: 4, 96: 8}
"""Of a g2 machine by its vCPUs."""


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_is_what_its_name_says(machine):
    family, size = re.fullmatch(r"([a-z]\d-[a-z]+)-(\d+)g?", machine).groups()
    if family in MEMORY:
        cpus, memory = int(size), int(size) * MEMORY[family]
    else:
        cpus, memory = (int(size) * one for one in BY_GPU[family])
    assert MACHINES[machine] == {"cpus": cpus, "memory_gb": pytest.approx(memory)}


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_the_machines_of_an_accelerator_are_in_the_list(accelerator):
    fitting = ACCELERATORS[accelerator]["machines"]
    assert set(fitting) <= set(MACHINES)
    assert fitting
    for machine, counts in fitting.items():
        assert counts == sorted(set(counts)), machine
        assert set(counts) <= {1, 2, 4, 8, 16}, machine
    assert set(ACCELERATORS[accelerator]) == {"quota", "machines"}


def test_a_machine_that_brings_its_gpus_has_that_number_of_one_kind():
    for machine in MACHINES:
        kinds = {
            name: one["machines"][machine]
            for name, one in ACCELERATORS.items()
            if machine in one["machines"]
        }
        family, _, size = machine.rpartition("-")
        if family in BY_GPU:
            assert list(kinds.values()) == [[int(size.removesuffix("g"))]], machine
        elif family == "g2-standard":
            assert kinds == {"NVIDIA_L4": [L4S[int(size)]]}, machine
        elif not machine.startswith("n1-"):
            assert kinds == {}, machine


def test_more_vcpus_of_n1_never_need_fewer_gpus():
    for name, one in ACCELERATORS.items():
        for family in ("n1-standard", "n1-highmem", "n1-highcpu"):
            sizes = {
                MACHINES[machine]["cpus"]: counts
                for machine, counts in one["machines"].items()
                if machine.startswith(family)
            }
            ordered = [min(counts) for _, counts in sorted(sizes.items())]
            assert ordered == sorted(ordered), (name, family)


def takes(machine, accelerator, count, **more):
    try:
        check_machine("machine", machine, accelerator, count, **more)
    except InputError:
        return False
    return True


def test_every_machine_with_every_accelerator_in_every_number():
    counts = range(18)
    found = {
        each for each in itertools.product(MACHINES, ACCELERATORS, counts) if takes(*each)
    }  # fmt: skip
    assert found == {
        (machine, name, count)
        for name, one in ACCELERATORS.items()
        for machine, numbers in one["machines"].items()
        for count in numbers
    }


@pytest.mark.parametrize("count", [0, 1, 16])
def test_every_machine_alone(count):
    alone = {machine for machine in MACHINES if takes(machine, "", count)}
    assert alone == {one for one in MACHINES if one[:2] in ("e2", "n1", "n2", "c2")}


@pytest.mark.parametrize(
    ("machine", "accelerator", "count", "words"),
    [
        ("n1-standard-8", "NVIDIA_L4", 1,
         "place n1-standard-8: takes no NVIDIA_L4, expected one of g2-standard-4, g2-standard-8, "),
        ("e2-standard-4", "NVIDIA_TESLA_T4", 1, "place e2-standard-4: takes no NVIDIA_TESLA_T4"),
        ("n1-standard-64", "NVIDIA_TESLA_P100", 4, "place n1-standard-64: takes no NVIDIA_TESLA_P"),
        ("n1-standard-32", "NVIDIA_TESLA_T4", 1,
         "place n1-standard-32: takes 2, 4 of NVIDIA_TESLA_T4, found 1"),
        ("g2-standard-24", "NVIDIA_L4", 1, "place g2-standard-24: takes 2 of NVIDIA_L4, found 1"),
        ("a2-megagpu-16g", "NVIDIA_TESLA_A100", 8,
         "place a2-megagpu-16g: takes 16 of NVIDIA_TESLA_A100, found 8"),
        ("a2-ultragpu-1g", "NVIDIA_TESLA_A100", 1, "expected one of a2-highgpu-1g, "),
        ("a2-highgpu-1g", "", 0,
         "place a2-highgpu-1g: comes with NVIDIA_TESLA_A100, expected it as accelerator"),
        ("a2-ultragpu-8g", "", 0, "place a2-ultragpu-8g: comes with NVIDIA_A100_80GB"),
        ("a3-highgpu-8g", "", 0, "place a3-highgpu-8g: comes with NVIDIA_H100_80GB"),
        ("g2-standard-96", "", 0, "place g2-standard-96: comes with NVIDIA_L4"),
        ("n1-standard-8", "NVIDIA_TESLA_K80", 1,
         "'NVIDIA_TESLA_K80': expected one of NVIDIA_TESLA_T4, NVIDIA_L4, NVIDIA_TESLA_A100, "),
        ("n1-standard-12", "", 0, "place 'n1-standard-12': Vertex AI has no such machine type"),
        ("n1-standard-12", "", 0, "; did you mean n1-standard-"),
        # A type of Compute Engine that custom training does not take.
        ("e2-standard-2", "", 0, "place 'e2-standard-2': Vertex AI has no such machine type"),
        ("", "", 0, "place '': Vertex AI has no such machine type"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said(machine, accelerator, count, words):
    with pytest.raises(InputError, match=re.escape(words)):
        check_machine("place", machine, accelerator, count)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(st.text(), st.sampled_from(list(MACHINES))),
    st.one_of(st.text(), st.sampled_from(list(ACCELERATORS))),
    st.integers(),
)
def test_whatever_is_given_only_an_input_error_comes(machine, accelerator, count):
    if takes(machine, accelerator, count):
        assert machine in MACHINES
        assert accelerator == "" or count in ACCELERATORS[accelerator]["machines"][machine]


@pytest.mark.parametrize(
    ("accelerator", "spot", "metric"),
    [
        ("NVIDIA_TESLA_T4", False, "custom_model_training_nvidia_t4_gpus"),
        ("NVIDIA_TESLA_T4", True, "custom_model_training_preemptible_nvidia_t4_gpus"),
        ("NVIDIA_L4", False, "custom_model_training_nvidia_l4_gpus"),
        ("NVIDIA_TESLA_A100", True, "custom_model_training_preemptible_nvidia_a100_gpus"),
        ("NVIDIA_A100_80GB", False, "custom_model_training_nvidia_a100_80gb_gpus"),
        ("NVIDIA_H100_80GB", False, "custom_model_training_nvidia_h100_gpus"),
        ("NVIDIA_TESLA_V100", False, "custom_model_training_nvidia_v100_gpus"),
    ],
)
def test_the_quota_of_an_accelerator(accelerator, spot, metric):
    assert quota_metric(accelerator, spot) == f"aiplatform.googleapis.com/{metric}"


@pytest.mark.parametrize("machine", ["n1-standard-2", "e2-standard-2"])
def test_small_machines_serve_and_do_not_train(machine):
    assert takes(machine, "", 0, serving=True)
    assert not takes(machine, "", 0)
    assert not takes(machine, "NVIDIA_L4", 1, serving=True)


def test_what_trains_serves_as_well():
    for each in itertools.product(MACHINES, ("", *ACCELERATORS), (1, 2)):
        assert takes(*each) == takes(*each, serving=True)
    assert not takes("n1-standard-1", "", 0, serving=True)


@pytest.mark.parametrize(
    ("accelerator", "metric"),
    [
        ("NVIDIA_TESLA_T4", "custom_model_serving_nvidia_t4_gpus"),
        ("NVIDIA_L4", "custom_model_serving_nvidia_l4_gpus"),
        ("NVIDIA_A100_80GB", "custom_model_serving_nvidia_a100_80gb_gpus"),
    ],
)
def test_the_quota_of_an_accelerator_that_serves(accelerator, metric):
    assert serving_metric(accelerator) == f"aiplatform.googleapis.com/{metric}"


def test_every_accelerator_has_a_quota_of_its_own():
    metrics = [quota_metric(*each) for each in itertools.product(ACCELERATORS, (False, True))]
    metrics += map(serving_metric, ACCELERATORS)
    assert len(set(metrics)) == 3 * len(ACCELERATORS)


@pytest.mark.parametrize(
    ("cpus", "memory", "machine"),
    [
        (1, 1, "e2-standard-4"), (4, 16, "e2-standard-4"), (5, 16, "e2-standard-8"),
        (4, 17, "e2-standard-8"), (8, 30, "e2-standard-8"), (8, 32, "e2-standard-8"),
        (8, 33, "e2-standard-16"), (32, 128, "e2-standard-32"),
    ],
)  # fmt: skip
def test_the_machine_of_a_step(cpus, memory, machine):
    assert step_machine(cpus, memory) == machine


@pytest.mark.parametrize(("cpus", "memory"), [(33, 16), (4, 129), (96, 624)])
def test_a_step_that_no_machine_has(cpus, memory):
    with pytest.raises(InputError, match=f"no e2 machine has {cpus} vCPUs and {memory} GB"):
        step_machine(cpus, memory)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 32), st.integers(1, 128))
def test_a_step_has_what_it_asks_for_and_no_smaller_machine_of_the_kind_has(cpus, memory):
    found = step_machine(cpus, memory)
    assert found.startswith("e2-")
    assert MACHINES[found]["cpus"] >= cpus
    assert MACHINES[found]["memory_gb"] >= memory
    kind, _, size = found.rpartition("-")
    smaller = f"{kind}-{int(size) // 2}"
    if smaller in MACHINES:
        assert MACHINES[smaller]["cpus"] < cpus or MACHINES[smaller]["memory_gb"] < memory
