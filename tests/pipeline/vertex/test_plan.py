"""What a run costs, with a table of prices that are easy to add up by hand.

An hour of a small step: 1 for e2-standard-4 and 100 GB × 0.01 = 2. Of a large one, on
e2-standard-8: 2 + 1 = 3. Of training: 4 for n1-standard-8, 8 for its T4 and 200 GB × 0.01 = 14, and
2 for the small machine that starts it and waits: 16.
"""

import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_machines import machine_table
from pipeline.targets.vertex_settings import Home, vertex_settings
from pipeline.training_pipeline import STEPS
from pipeline.vertex.plan import (
    PlannedStep,
    _machine_with,
    expected_hours,
    plan_text,
    planned_steps,
)
from pipeline.vertex.prices import PRICES, read_prices
from trainer.errors import InputError

IMAGE = "registry.example/nextvlad-{kind}:fixed"
HOME = Home("my-project-1", "us-central1", "data")
TABLE = {
    "date": "2026-01-02", "region": "here-1", "currency": "EUR",
    "machines": {"e2-standard-4": 1, "e2-standard-8": 2.0, "n1-standard-8": 4,
                 "n1-standard-4": 0.5},
    "accelerators": {"NVIDIA_TESLA_T4": 8},
    "spot": {"machines": 0.5, "accelerators": 0.25},
    "pipeline_run": 0.03,
    "disk_gb_month": 7.3,
    # Not what training costs, so that one taken for the other is seen.
    "prediction_machines": {"n1-standard-4": 0.75, "n1-standard-2": 0.25},
    "prediction_accelerators": {"NVIDIA_TESLA_T4": 6},
    "dataflow": {"vcpu_hour": 0.5, "memory_gb_hour": 0.1, "shuffle_gb": 100},
}  # fmt: skip


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    path = tmp_path_factory.mktemp("prices") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TABLE))
    return read_prices(path)


def target_of(*given_settings, home=HOME):
    return vertex_target(IMAGE, vertex_settings(given_settings), home)


def steps_of(prices, *given_settings, expected=None):
    found = planned_steps(target_of(*given_settings), prices, expected)
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def test_the_tiny_table(prices):
    assert prices.disk_gb_hour == pytest.approx(0.01)  # 7.3 a month of 730 hours
    assert (prices.date, prices.region, prices.currency) == ("2026-01-02", "here-1", "EUR")


@pytest.mark.parametrize(
    ("machine", "accelerator", "count", "spot", "disk", "hour"),
    [
        ("n1-standard-8", "", 0, False, 0, 4),
        ("n1-standard-8", "", 5, False, 0, 4),
        ("n1-standard-8", "", 0, False, 200, 4 + 2),
        ("n1-standard-8", "NVIDIA_TESLA_T4", 1, False, 0, 4 + 8),
        ("n1-standard-8", "NVIDIA_TESLA_T4", 4, False, 100, 4 + 32 + 1),
        # A disk is not cheaper beside a spot machine.
        ("n1-standard-8", "NVIDIA_TESLA_T4", 4, True, 100, 2 + 8 + 1),
        ("n1-standard-8", "", 0, True, 100, 2 + 1),
        ("n1-standard-16", "", 0, False, 100, None),
        ("n1-standard-8", "NVIDIA_L4", 1, False, 100, None),
        ("n1-standard-16", "", 0, True, 100, None),
    ],
)
def test_an_hour_of_a_machine(prices, machine, accelerator, count, spot, disk, hour):
    found = prices.machine_hour(machine, accelerator, count, spot, disk)
    assert found == (None if hour is None else pytest.approx(hour))


def test_the_steps_of_a_run(prices):
    found = planned_steps(target_of(), prices)
    assert [(one.name, one.machines, one.hours, one.tries) for one in found] == [
        ("download", "e2-standard-4", 6, 2), ("statistics", "e2-standard-8", 6, 2),
        ("train", "n1-standard-8 + 1 × NVIDIA_TESLA_T4", 24, 4),
        ("evaluate", "e2-standard-8", 6, 2), ("gate", "e2-standard-4", 6, 2),
        ("export", "e2-standard-4", 6, 2), ("register", "e2-standard-4", 6, 2),
    ]  # fmt: skip
    assert [one.hour for one in found] == pytest.approx([2, 3, 16, 3, 2, 2, 2])
    # 2 × 6 h × 2, 3 × 6 h × 2, 16 × 24 h × 4
    assert [one.most for one in found] == pytest.approx([24, 36, 1536, 36, 24, 24, 24])
    assert all(one.expected is None and one.estimate is None for one in found)


def test_the_extra_steps_come_last_in_their_order(prices):
    everything = ["endpoint=e", "batch_source=gs://a/b"]
    assert list(steps_of(prices, *everything)) == [*STEPS, "register", "deploy", "batch_predict"]
    assert list(steps_of(prices, "registered_model=")) == list(STEPS)


@pytest.mark.parametrize(
    ("given_settings", "machines", "hour"),
    [
        ("", "n1-standard-8 + 1 × NVIDIA_TESLA_T4", 4 + 8 + 2 + 2),
        ("accelerators=4", "n1-standard-8 + 4 × NVIDIA_TESLA_T4", 4 + 32 + 2 + 2),
        ("disk_gb=1000", "n1-standard-8 + 1 × NVIDIA_TESLA_T4", 4 + 8 + 10 + 2),
        ("accelerator=", "n1-standard-8", 4 + 2 + 2),
        ("accelerator= accelerators=4", "n1-standard-8", 4 + 2 + 2),
        ("spot=true", "n1-standard-8 + 1 × NVIDIA_TESLA_T4 spot", 2 + 2 + 2 + 2),
        ("spot=true accelerator=", "n1-standard-8 spot", 2 + 2 + 2),
        ("workers=3", "3 × n1-standard-8 + 1 × NVIDIA_TESLA_T4", 3 * (4 + 8 + 2) + 2),
        (
            "workers=3 spot=true accelerators=2 disk_gb=300",
            "3 × n1-standard-8 + 2 × NVIDIA_TESLA_T4 spot",
            3 * (2 + 4 + 3) + 2,
        ),
        ("machine=n1-standard-16", "n1-standard-16 + 1 × NVIDIA_TESLA_T4", None),
        ("accelerator=NVIDIA_TESLA_P4", "n1-standard-8 + 1 × NVIDIA_TESLA_P4", None),
    ],
)
def test_an_hour_of_training(prices, given_settings, machines, hour):
    train = steps_of(prices, *given_settings.split())["train"]
    assert train.machines == machines
    assert train.hour == (None if hour is None else pytest.approx(hour))


def test_time_outs_and_retries(prices):
    found = steps_of(
        prices, "train_hours=2.5", "train_retries=0", "step_hours=0.5", "step_retries=3"
    )
    assert (found["train"].hours, found["train"].tries) == (2.5, 1)
    assert found["train"].most == pytest.approx(16 * 2.5)
    for name in ("download", "statistics", "evaluate", "gate", "export", "register"):
        assert (found[name].hours, found[name].tries) == (0.5, 4)
    assert found["statistics"].most == pytest.approx(3 * 0.5 * 4)


@pytest.mark.parametrize(
    ("given_settings", "machines", "hour"),
    [
        ("", "e2-standard-8", 2 + 1),
        ("evaluate_accelerators=1", "n1-standard-8 + 1 × NVIDIA_TESLA_T4", 4 + 8 + 1),
        # Spot, workers and disks are of the training alone.
        (
            "evaluate_accelerators=4 spot=true workers=3 disk_gb=999",
            "n1-standard-8 + 4 × NVIDIA_TESLA_T4",
            4 + 32 + 1,
        ),
        (
            "evaluate_accelerators=2 machine=g2-standard-8 accelerator=NVIDIA_L4",
            "g2-standard-24 + 2 × NVIDIA_L4",
            None,
        ),
        # The training's machine with its many GPUs is not the evaluation's.
        (
            "evaluate_accelerators=1 machine=a2-megagpu-16g accelerator=NVIDIA_TESLA_A100 "
            "accelerators=16",
            "a2-highgpu-1g + 1 × NVIDIA_TESLA_A100",
            None,
        ),
    ],
)
def test_the_evaluation(prices, given_settings, machines, hour):
    evaluate = steps_of(prices, *given_settings.split())["evaluate"]
    assert evaluate.machines == machines
    assert evaluate.hour == (None if hour is None else pytest.approx(hour))
    assert evaluate.tries == 2


def test_accelerators_of_the_evaluation_are_no_other_step_s(prices):
    without, found = steps_of(prices), steps_of(prices, "evaluate_accelerators=4")
    assert {name for name in found if found[name] != without[name]} == {"evaluate"}


@pytest.mark.parametrize(
    ("accelerator", "count", "cpus", "memory", "machine"),
    [
        ("NVIDIA_TESLA_T4", 1, 8, 30, "n1-standard-8"),
        ("NVIDIA_TESLA_T4", 1, 8, 31, "n1-highmem-8"),
        ("NVIDIA_TESLA_T4", 1, 9, 1, "n1-highcpu-16"),
        ("NVIDIA_TESLA_T4", 1, 1, 1, "n1-highmem-2"),
        ("NVIDIA_TESLA_T4", 1, 3, 13, "n1-standard-4"),
        ("NVIDIA_TESLA_T4", 4, 33, 1, "n1-highcpu-64"),
        ("NVIDIA_TESLA_T4", 2, 17, 29, "n1-standard-32"),
        ("NVIDIA_L4", 1, 17, 1, "g2-standard-32"),
        ("NVIDIA_L4", 4, 1, 1, "g2-standard-48"),
        ("NVIDIA_TESLA_T4", 1, 17, 1, None),
        ("NVIDIA_TESLA_T4", 3, 1, 1, None),
        ("NVIDIA_L4", 8, 1, 385, None),
    ],
)
def test_the_smallest_machine_with_accelerators(accelerator, count, cpus, memory, machine):
    if machine:
        assert _machine_with(accelerator, count, cpus, memory) == machine
        return
    with pytest.raises(InputError, match=f"no machine has {count} of {accelerator}"):
        _machine_with(accelerator, count, cpus, memory)


def test_an_evaluation_that_no_machine_takes(prices):
    # At once, or at the latest here.
    words = "VERTEX setting evaluate_accelerators.*NVIDIA_TESLA_T4"
    with pytest.raises(InputError, match=words):
        steps_of(prices, "evaluate_accelerators=3")


@pytest.mark.parametrize(
    ("given_settings", "hour"),
    [
        ("", 2 + 0.75),
        ("batch_replicas=4", 2 + 4 * 0.75),
        ("batch_replicas=2 serving_accelerator=NVIDIA_TESLA_T4", 2 + 2 * (0.75 + 6)),
        ("serving_machine=n1-standard-2", 2 + 0.25),
        # What costs the same as in training is not there twice.
        ("serving_machine=n1-standard-8 batch_replicas=3", 2 + 3 * 4),
        ("serving_machine=n1-highmem-2", None),
        ("serving_machine=g2-standard-4 serving_accelerator=NVIDIA_L4", None),
    ],
)
def test_batch_prediction_has_machines_beside_its_step(prices, given_settings, hour):
    found = steps_of(prices, "batch_source=gs://a/b", *given_settings.split())["batch_predict"]
    assert found.hour == (None if hour is None else pytest.approx(hour))
    number = re.search(r"batch_replicas=(\d)", given_settings)
    machine = re.search(r"serving_machine=(\S+)", given_settings)
    words = f"{number[1] if number else 1} × {machine[1] if machine else 'n1-standard-4'}"
    assert found.machines.startswith(f"e2-standard-4 + {words}")


@pytest.mark.parametrize(
    ("options", "words", "hour"),
    [
        # 4 vCPUs × 0.5 and 15 GB × 0.1 are 3.5
        ("--max_num_workers=9 --machine_type=n1-standard-4", "9 × n1-standard-4", 3 + 9 * 3.5),
        ("--max_num_workers=1 --machine_type=n1-standard-2", "1 × n1-standard-2", 3 + 1.75),
        # Dataflow's own choice: 0.5 + 3.75 × 0.1
        ("--max_num_workers=8", "8 × n1-standard-1", 3 + 8 * 0.875),
        ("--machine_type=n1-standard-4", "any number of × n1-standard-4", None),
        ("--labels=a=b", "any number of × n1-standard-1", None),
        ("--max_num_workers=9 --machine_type=t2d-standard-4", "9 × t2d-standard-4", None),
    ],
)
def test_statistics_on_dataflow(prices, options, words, hour):
    arguments = ["--runner=DataflowRunner", "--no_use_public_ips", *options.split()]
    target = vertex_target(IMAGE, vertex_settings([]), HOME, arguments)
    found = {one.name: one for one in planned_steps(target, prices)}
    assert found["statistics"].machines == f"e2-standard-8 + {words}"
    assert found["statistics"].hour == (None if hour is None else pytest.approx(hour))
    other = steps_of(prices)
    assert {name for name in found if found[name] != other[name]} == {"statistics"}
    machines = ", ".join(one.machines for one in found.values() if one.hour is None)
    said = " ".join(plan_text(target, prices, {}).split())
    assert (f"so not in the sums: {machines}." in said) == (hour is None)


def test_dataflow_without_prices_of_its_own(tmp_path):
    prices = read_prices(spoiled(tmp_path / "p.yaml", {("dataflow",): KeyError}))
    target = vertex_target(IMAGE, vertex_settings([]), HOME, ["--max_num_workers=9"])
    found = {one.name: one.hour for one in planned_steps(target, prices)}
    assert found["statistics"] is None
    assert found["download"] == pytest.approx(2)
    assert steps_of(prices)["statistics"].hour == pytest.approx(3)


@pytest.mark.parametrize(
    ("machine", "accelerator", "hour"),
    [
        ("n1-standard-4", "", 0.75),
        ("n1-standard-4", "NVIDIA_TESLA_T4", 0.75 + 6),
        ("n1-standard-8", "NVIDIA_TESLA_T4", 4 + 6),
        ("n1-standard-2", "", 0.25),
        ("n1-highmem-2", "", None),
        ("n1-highmem-2", "NVIDIA_TESLA_T4", None),
        ("n1-standard-4", "NVIDIA_L4", None),
    ],
)
def test_an_hour_of_a_machine_that_serves(prices, machine, accelerator, hour):
    found = prices.serving_hour(machine, accelerator)
    assert found == (None if hour is None else pytest.approx(hour))


def test_serving_without_prices_of_its_own_costs_what_training_costs(tmp_path):
    changes = {("prediction_machines",): KeyError, ("prediction_accelerators",): KeyError}
    prices = read_prices(spoiled(tmp_path / "p.yaml", changes))
    assert prices.serving_hour("n1-standard-4", "NVIDIA_TESLA_T4") == pytest.approx(0.5 + 8)
    assert prices.serving_hour("n1-standard-2", "") is None


@pytest.mark.parametrize(("cpus", "memory", "hour"), [(1, 0, 0.5), (0, 10, 1), (4, 15, 3.5)])
def test_an_hour_of_a_dataflow_worker(prices, cpus, memory, hour):
    assert prices.worker_hour(cpus, memory) == pytest.approx(hour)


def test_a_table_without_the_small_machine(tmp_path):
    prices = read_prices(spoiled(tmp_path / "p.yaml", {("machines", "e2-standard-4"): KeyError}))
    found = steps_of(prices, "batch_source=gs://a/b")
    known = {name: one.hour for name, one in found.items() if one.hour is not None}
    # The training's own machine is most of what it costs.
    assert known == pytest.approx({"statistics": 3, "train": 14, "evaluate": 3})


def test_hours_that_are_expected(prices):
    found = steps_of(prices, expected={"train": 8, "gate": 0})
    assert (found["train"].expected, found["train"].estimate) == (8, pytest.approx(16 * 8))
    assert (found["gate"].expected, found["gate"].estimate) == (0, 0)
    assert found["export"].estimate is None


@pytest.mark.parametrize(
    ("hour", "expected", "most", "estimate"),
    [(2.0, 3.0, 2.0 * 5 * 4, 6.0), (2.0, None, 40.0, None), (None, 3.0, None, None),
     (0.0, 3.0, 0.0, 0.0)],
)  # fmt: skip
def test_a_step(hour, expected, most, estimate):
    one = PlannedStep("train", "m", hour, 5.0, 4, expected)
    assert (one.most, one.estimate) == (most, estimate)


def text_of(prices, *given_settings, home=HOME, expected=None, checkpoints=""):
    parameters = {"checkpoint_root": checkpoints}
    return plan_text(target_of(*given_settings, home=home), prices, parameters, expected)


def test_the_whole_plan(prices):
    rows = [line.split() for line in text_of(prices).splitlines()]
    assert ["download", "e2-standard-4", "2.00", "6", "h", "×", "2", "24.00"] in rows
    assert ["statistics", "e2-standard-8", "3.00", "6", "h", "×", "2", "36.00"] in rows
    assert ["train", "n1-standard-8", "+", "1", "×", "NVIDIA_TESLA_T4", "16.00", "24", "h", "×",
            "4", "1,536.00"] in rows  # fmt: skip
    assert ["step", "machines", "EUR/hour", "ends", "after", "at", "most", "expected"] in rows
    # 24 + 36 + 1536 + 36 + 24 + 24 + 24, and 0.03 for the run
    assert "\nnever above  1,704.03 EUR: every step and every retry" in text_of(prices)
    assert "\nan hour of training costs 16.00 EUR; HOURS=" in text_of(prices)
    assert "\nList prices of here-1 of 2026-01-02 (tiny.yaml; PRICES=file" in text_of(prices)
    for words in ("Without a price", "Spot machines", "goes on after the run", "\nexpected  "):
        assert words not in text_of(prices)


def said(prices, *given_settings, **more):
    """The plan on one line: sentences are broken where they become too long."""
    return " ".join(text_of(prices, *given_settings, **more).split())


def test_no_sentence_is_longer_than_a_terminal_is_wide(prices):
    found = text_of(prices, "endpoint=e", "spot=true", checkpoints="gs://data/c").splitlines()
    assert all(line == line.rstrip() for line in found)
    sentences = found[len(found) - found[::-1].index("") :]
    assert sentences[0].startswith("an hour of training costs")
    assert max(map(len, sentences)) <= 100


def test_prices_of_another_region(prices):
    words = "Prices of us-central1 differ from these."
    assert words in said(prices)
    assert words not in said(read_prices())
    assert "differ from these" not in said(prices, home=Home("p-12345", "here-1", "data"))


def test_the_columns_end_at_the_same_place(prices):
    names = [*STEPS, "register"]
    for expected in ({}, dict.fromkeys(names, 1.5)):
        found = text_of(prices, "workers=3", "spot=true", expected=expected).splitlines()
        head = next(number for number, line in enumerate(found) if line.startswith("step "))
        rows = found[head : head + 1 + len(names)]
        assert [row.split()[0] for row in rows] == ["step", *names]
        assert found[head + len(rows)] == ""
        assert len({len(row) for row in rows[1:]}) == 1
        end = rows[0].index("at most") + len("at most")
        assert all(row[end - 1].isdigit() and row[end : end + 1].strip() == "" for row in rows[1:])
        assert len(rows[1]) == (len(rows[0]) if expected else end)


@pytest.mark.parametrize(
    ("expected", "line"),
    [
        # 3 × 1 + 16 × 8 + 0.03
        ({"statistics": 1, "train": 8}, "expected     131.03 EUR, of the steps with hours"),
        ({"statistics": 1, "train": 8, "gate": 0.5}, "expected     132.03 EUR, "),
        ({"statistics": 0, "train": 0}, "expected     0.03 EUR, "),
        ({"train": 8}, "an hour of training costs 16.00 EUR; "),
        ({"statistics": 8, "evaluate": 1}, "an hour of training costs 16.00 EUR; "),
        ({}, "an hour of training costs 16.00 EUR; "),
    ],
)
def test_what_is_expected_of_the_whole(prices, expected, line):
    found = text_of(prices, expected=expected)
    assert f"\n{line}" in found
    assert ("\nexpected " in found) == line.startswith("expected")


def test_what_a_step_is_expected_to_cost(prices):
    rows = [line.split() for line in text_of(prices, expected={"train": 1.5}).splitlines()]
    assert ["4", "1,536.00", "1.5", "h", "24.00"] in [row[-5:] for row in rows]


def test_what_has_no_price_is_named_and_in_no_sum(prices):
    found = text_of(prices, "machine=n1-standard-16", expected={"train": 2, "statistics": 1})
    machines = "n1-standard-16 + 1 × NVIDIA_TESLA_T4"
    assert f"Without a price there, so not in the sums: {machines}." in " ".join(found.split())
    (row,) = (line for line in found.splitlines() if line.startswith("train "))
    assert row.split()[6:] == ["?", "24", "h", "×", "4", "?", "2", "h", "?"]
    assert "1,704.03" not in found
    assert "168.03 EUR" in found  # the other steps'
    assert "\nan hour of training costs ? EUR" in text_of(prices, "machine=n1-standard-16")


@pytest.mark.parametrize(
    ("home", "lines"),
    [
        (HOME, ["project my-project-1, us-central1, gs://data, as the default service account"]),
        (Home("p-12345", "eu-west1", "b-1", "me@x.com", "projects/1/global/networks/n", "k"),
         ["project p-12345, eu-west1, gs://b-1, as me@x.com\n",
          "\nnetwork projects/1/global/networks/n\n", "\nkms_key k\n"]),
    ],
)  # fmt: skip
def test_whose_money_it_is(prices, home, lines):
    found = text_of(prices, home=home)
    for line in lines:
        assert line in found
    assert ("\nnetwork " in found) == bool(home.network)
    assert ("\nkms_key " in found) == bool(home.kms_key)


@pytest.mark.parametrize(
    ("given_settings", "gpu"),
    [([], True), (["accelerator="], False), (["evaluate_accelerators=1"], True)],
)
def test_the_images_that_a_run_uses(prices, given_settings, gpu):
    found = text_of(prices, *given_settings)
    assert "images  registry.example/nextvlad-cpu:fixed" in found
    assert ("registry.example/nextvlad-gpu:fixed" in found) == gpu
    assert "registry.example/nextvlad-serving:fixed" in found


def test_without_a_registered_model_nothing_is_served(prices):
    assert "nextvlad-serving" not in text_of(prices, "registered_model=")


def test_what_spot_machines_mean(prices):
    found = said(prices, "spot=true", checkpoints="gs://data/c")
    assert found.endswith(" training goes on at its last checkpoint in gs://data/c.")
    assert said(prices, "spot=true").endswith(" in none: checkpoint_root is empty.")
    place = "gs://a-bucket-with-a-long-name/check-points"
    assert f"{place}." in text_of(prices, "spot=true", checkpoints=place)  # in one piece


def endpoint_of(prices, *given_settings):
    """A day of each version, and how many of them."""
    found = said(prices, "endpoint=my-videos", *given_settings)
    match = re.search(
        r" The endpoint my-videos goes on after the run: (\S+(?: \(.*\))?) EUR a day for each "
        r"deployed version, up to (\d+) of them, until it is undeployed",
        found,
    )
    return match[1], int(match[2])


def test_an_endpoint_goes_on(prices):
    # 0.75 × 24 h; the accelerator makes it (0.75 + 6) × 24 h
    assert endpoint_of(prices)[0] == "18.00"
    assert endpoint_of(prices, "replicas=3", "most_replicas=3")[0] == "54.00"
    assert endpoint_of(prices, "replicas=2", "most_replicas=5")[0] == (
        "36.00 (under load up to 90.00)"
    )
    assert endpoint_of(prices, "serving_accelerator=NVIDIA_TESLA_T4")[0] == "162.00"
    assert endpoint_of(prices, "serving_machine=n1-highmem-2", "most_replicas=2")[0] == "unknown"


@pytest.mark.parametrize(
    ("given_settings", "copies"),
    [
        # The new one, and those that stay to roll back to.
        ("", 2), ("keep=0", 1), ("keep=4", 5),
        # With a part of the traffic the new one is beside the one that has the rest.
        ("traffic=20 keep=0", 2), ("traffic=99", 3), ("traffic=0 keep=2", 4),
    ],
)  # fmt: skip
def test_the_versions_that_stay_deployed(prices, given_settings, copies):
    assert endpoint_of(prices, *given_settings.split())[1] == copies


@pytest.mark.parametrize(
    ("given_hours", "found"),
    [
        ([], {}),
        (["train=8"], {"train": 8.0}),
        (["train=8", "statistics=.5", "gate=0"], {"train": 8.0, "statistics": 0.5, "gate": 0.0}),
        (["train=8", "train=1e1"], {"train": 10.0}),
    ],
)
def test_expected_hours(given_hours, found):
    assert expected_hours(given_hours, STEPS) == found


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "trian=8",
            "HOURS 'trian=8': expected step=hours with one of download, statistics, train,",
        ),
        ("trian=8", "; did you mean train"),
        ("register=8", "HOURS 'register=8': expected step=hours with one of"),  # not of this run
        ("=8", "HOURS '=8': expected step=hours"),
        ("8", "HOURS '8': expected step=hours"),
        ("train", "HOURS 'train': expected hours such as 1.5"),
        ("train=", "HOURS 'train=': expected hours such as 1.5"),
        ("train=8h", "HOURS 'train=8h': expected hours"),
        ("train=-1", "HOURS 'train=-1': expected hours"),
        ("train=nan", "HOURS 'train=nan': expected hours"),
        ("train=inf", "HOURS 'train=inf': expected hours"),
        ("train=1e999", "HOURS 'train=1e999': expected hours"),
        ("train=1=2", "HOURS 'train=1=2': expected hours"),
    ],
)
def test_hours_that_are_none(setting, words):
    with pytest.raises(InputError, match=re.escape(words)):
        expected_hours(["train=1", setting], STEPS)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(STEPS), st.floats(0, allow_infinity=False)))
def test_hours_come_back(hours):
    assert expected_hours([f"{step}={value!r}" for step, value in hours.items()], STEPS) == hours


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["train=", "", "gate"]), st.text())
def test_whatever_the_hours_are_only_an_input_error_comes(begin, text):
    try:
        found = expected_hours([begin + text], STEPS)
    except InputError:
        return
    assert all(0 <= value < float("inf") for value in found.values())


def spoiled(path, changes):
    content = {key: dict(one) if isinstance(one, dict) else one for key, one in TABLE.items()}
    for (*parents, last), value in changes.items():
        place = content
        for key in parents:
            place = place[key]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    "name",
    ["date", "region", "currency", "machines", "accelerators", "spot", "pipeline_run",
     "disk_gb_month"],
)  # fmt: skip
def test_a_table_that_lacks_a_part(name, tmp_path):
    path = spoiled(tmp_path / "p.yaml", {(name,): KeyError})
    words = f"prices {path}: expected {name}, as prices.yaml of this project has"
    with pytest.raises(InputError, match=re.escape(words)):
        read_prices(path)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("machines", "n1-standard-8"), -0.1, "machines.n1-standard-8 is -0.1, expected a price"),
        (("machines", "n1-standard-8"), "4 $", "machines.n1-standard-8 is '4 $', expected a price"),
        (("machines", "n1-standard-8"), True, "machines.n1-standard-8 is True, expected a price"),
        (("machines", "other"), None, "machines.other is None, expected a price"),
        (("accelerators", "NVIDIA_TESLA_T4"), [8], "accelerators.NVIDIA_TESLA_T4 is [8], expected"),
        (("spot", "machines"), "half", "spot.machines is 'half', expected a price"),
        (("pipeline_run",), None, "pipeline_run is None, expected a price"),
        (("disk_gb_month",), {}, "disk_gb_month is {}, expected a price"),
        (("machines",), [4], "machines: expected a mapping of names to prices"),
        (("accelerators",), None, "accelerators: expected a mapping of names to prices"),
        (("spot",), 0.5, "spot: expected a mapping of names to prices"),
        (("prediction_machines",), None, "prediction_machines: expected a mapping of names to"),
        (("prediction_machines", "x"), "y", "prediction_machines.x is 'y', expected a price"),
        (("prediction_accelerators", "x"), -1, "prediction_accelerators.x is -1, expected a"),
        (("dataflow", "vcpu_hour"), "", "dataflow.vcpu_hour is '', expected a price"),
        (("spot", "machines"), KeyError, "spot: expected machines and accelerators"),
        (("spot", "accelerators"), KeyError, "spot: expected machines and accelerators"),
    ],
)
def test_a_table_with_what_is_no_price(place, value, words, tmp_path):
    path = spoiled(tmp_path / "p.yaml", {place: value})
    with pytest.raises(InputError, match=re.escape(f"prices {path}: {words}")):
        read_prices(path)


def test_what_costs_nothing_is_a_price(tmp_path):
    path = spoiled(tmp_path / "p.yaml", {("machines", "e2-standard-4"): 0, ("disk_gb_month",): 0})
    prices = read_prices(path)
    assert prices.machine_hour("e2-standard-4", "", 0, False, 1000) == 0
    assert steps_of(prices)["train"].hour == pytest.approx(4 + 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping"),
        ("- 1", "expected a mapping"),
        ("[", "while parsing a flow node"),
        ("machines: {", "while parsing"),
        ("x: !!python/none 1", "could not determine a constructor"),
        (b"\xff", "can't decode byte"),
        (None, "No such file"),
    ],
)
def test_a_table_that_can_not_be_read(text, words, tmp_path):
    path = tmp_path / "p.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=re.escape(f"prices {path}: ")) as caught:
        read_prices(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


RATES = st.dictionaries(st.sampled_from(["a", "b", "c-1"]), st.floats(0, 1e6))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RATES, RATES, st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1e6))
def test_prices_come_back(tmp_path_factory, machines, accelerators, share, run, disk):
    path = spoiled(
        tmp_path_factory.getbasetemp() / "prices.yaml",
        {("machines",): machines, ("accelerators",): accelerators, ("spot", "machines"): share,
         ("pipeline_run",): run, ("disk_gb_month",): disk},
    )  # fmt: skip
    found = read_prices(path)
    assert (found.machines, found.accelerators) == (machines, accelerators)
    assert (found.spot["machines"], found.pipeline_run) == (share, run)
    assert found.disk_gb_hour * 730 == pytest.approx(disk)
    assert found.path == str(path)


# The project's own table.

# By family, Compute Engine's prices of a vCPU and a GB an hour, and Vertex AI's fee (prices.yaml).
PARTS = {
    "e2": (0.02181159, 0.00292353, 1.15), "n1": (0.031611, 0.004237, 1.15),
    "n2": (0.031611, 0.004237, 1.15), "g2": (0.024988212, 0.002927448, 1.15),
    "a2": (0.031611, 0.004237, 1.15), "a3": (0.0293227, 0.0025534, 1.0),
}  # fmt: skip
GPUS = {
    "NVIDIA_TESLA_T4": 0.35, "NVIDIA_TESLA_P4": 0.60, "NVIDIA_TESLA_P100": 1.46,
    "NVIDIA_TESLA_V100": 2.48, "NVIDIA_L4": 0.560040239, "NVIDIA_TESLA_A100": 2.933908,
    "NVIDIA_A100_80GB": 3.92808, "NVIDIA_H100_80GB": 9.79655057,
}  # fmt: skip
UNPRICED = {
    "the prices of its parts are noted down, nobody has added them up": {
        "e2-highcpu-16", "e2-highcpu-32",
        "n1-highcpu-16", "n1-highcpu-32", "n1-highcpu-64", "n1-highcpu-96",
        "n2-highcpu-16", "n2-highcpu-32", "n2-highcpu-48", "n2-highcpu-64", "n2-highcpu-80",
        "n2-standard-48", "n2-standard-64", "n2-standard-80",
        "n2-highmem-2", "n2-highmem-32", "n2-highmem-48", "n2-highmem-64", "n2-highmem-80",
    },
    "Compute Engine's price of the whole machine is not noted down": {
        "c2-standard-30", "c2-standard-60",
    },
}  # fmt: skip
"""Machines that settings accept and the table does not have: the plan says `?`."""


@pytest.fixture(scope="module")
def own():
    return read_prices()


def test_every_machine_has_a_price_or_a_reason_why_not(own):
    unpriced = set().union(*UNPRICED.values())
    assert set(machine_table()["machines"]) - set(own.machines) == unpriced
    # Only that of Compute Engine's which batch and online prediction take.
    assert set(own.machines) - set(machine_table()["machines"]) == {"e2-standard-2"}


def test_every_accelerator_has_a_price(own):
    assert set(own.accelerators) == set(machine_table()["accelerators"]) == set(GPUS)


def test_the_prices_follow_from_their_parts(own):
    machines = machine_table()["machines"] | {"e2-standard-2": {"cpus": 2, "memory_gb": 8}}
    checked = set()
    for name, price in own.machines.items():
        if name[:2] in PARTS:
            cpu, memory, fee = PARTS[name[:2]]
            parts = machines[name]["cpus"] * cpu + machines[name]["memory_gb"] * memory
            assert price == pytest.approx(parts * fee, abs=1e-7), name
            checked.add(name)
    assert {name[:2] for name in set(own.machines) - checked} == {"c2"}
    for name, price in GPUS.items():
        assert own.accelerators[name] == pytest.approx(price * 1.15, abs=1e-7), name
    assert 730 * own.disk_gb_hour == pytest.approx(0.17 * 1.15)


def test_a_larger_machine_is_never_cheaper(own):
    machines = machine_table()["machines"]
    for one in own.machines.keys() & machines.keys():
        for other in own.machines.keys() & machines.keys():
            family = one.rpartition("-")[0]
            if (
                family == other.rpartition("-")[0]
                and machines[one]["cpus"] < machines[other]["cpus"]
            ):
                assert own.machines[one] < own.machines[other], (one, other)


def test_the_table_says_when_and_where(own):
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", own.date)
    assert (own.region, own.currency) == ("us-central1", "USD")
    assert own.path == str(PRICES)
    assert all(0 < share < 1 for share in own.spot.values())


def test_what_prediction_costs_beside_what_training_costs():
    table = yaml.safe_load(PRICES.read_text())
    # Both have the same parts and the same fee, but for what the page rounds.
    for kind in ("machines", "accelerators"):
        for name, price in table[f"prediction_{kind}"].items():
            if name in table[kind]:
                assert price == pytest.approx(table[kind][name], rel=0.01), name
    assert set(table["prediction_accelerators"]) == set(GPUS)


def test_the_default_run_in_dollars(own):
    # n1-standard-8 0.4369977, T4 0.4025, 200 GB × 0.1955 / 730; e2-standard-4 0.1541263 and 100 GB
    train = 0.4369977 + 0.4025 + 200 * 0.1955 / 730 + 0.1541263 + 100 * 0.1955 / 730
    assert steps_of(own)["train"].hour == pytest.approx(train)
    assert "?" not in text_of(own)


def test_hours_beyond_the_limit_are_refused():
    """Else the estimate would be above what it never is above."""
    target = vertex_target("r.example/x-{kind}:1", vertex_settings(["train_hours=2"]))
    with pytest.raises(InputError, match="HOURS train=9: the step is ended after 2 h × 4"):
        planned_steps(target, read_prices(), {"train": 9.0})
