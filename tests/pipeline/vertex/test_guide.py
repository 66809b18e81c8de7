"""docs/vertex.md has every setting, field of the form and command, and a plan that is true."""

import dataclasses
import re

from pipeline.run import main
from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_settings import VertexSettings
from pipeline.training_pipeline import build
from pipeline.vertex.manage import COMMANDS
from tests.conftest import ROOT
from tests.vertex_server import IMAGE

GUIDE = (ROOT / "docs" / "vertex.md").read_text(encoding="utf-8")


def code_of_tables():
    """What stands as code in the first cells of the guide's tables."""
    rows = [line.split("|")[1] for line in GUIDE.splitlines() if line.startswith("|")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def test_every_setting_and_field_is_in_a_table():
    names = {field.name for field in dataclasses.fields(VertexSettings)}
    parameters = build(vertex_target(IMAGE)).component_spec.inputs
    assert names | set(parameters) <= code_of_tables()


def test_every_command_is_shown_and_is_a_target_of_make():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"make vertex-{name}" in GUIDE
        assert re.search(rf"^vertex-{name}: ", makefile, re.M)
    for target in set(re.findall(r"make (vertex-\w+)", GUIDE)):
        assert re.search(rf"^{target}: ", makefile, re.M)


def test_the_plan_is_what_the_command_prints(capsys):
    registry = "us-central1-docker.pkg.dev/my-project-1/nextvlad"
    place = f"{registry}/nextvlad-pipeline-{{kind}}:63f1b1de539d04be"
    main([
        "--target", "vertex", "--dry-run", "--project", "my-project-1", "--region", "us-central1",
        "--bucket", "gs://my-bucket", "--image", place, "--service-account",
        "nextvlad-pipeline@my-project-1.iam.gserviceaccount.com",
        "--hours", "statistics=1", "train=8", "--vertex", "machine=g2-standard-8",
        "accelerator=NVIDIA_L4", "spot=true", "workers=2", "endpoint=videos",
    ])  # fmt: skip
    plan = capsys.readouterr().out.strip()
    assert plan in GUIDE


def test_links_of_the_guide_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", GUIDE):
        assert (ROOT / "docs" / target).exists(), target
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in GUIDE.splitlines()
        if line.startswith("#")
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", GUIDE):
        assert anchor in headings, anchor
