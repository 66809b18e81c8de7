"""Building images: what is said, what is passed on, what can not be; the engine is not needed."""

import io
import re
import subprocess
import sys
import tarfile

import pytest

from pipeline import image_names
from pipeline.docker_engine import what_to_do
from pipeline.image_layers import Layer, _line, _lines_that_weigh, size_table
from pipeline.image_names import dockerfile
from pipeline.images import _PUSH_CAUSES, BASE_IMAGE, BEAM_IMAGE, Settings, _cause, main
from tests.conftest import ROOT
from trainer.errors import InputError

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def test_names_are_of_what_is_in_them(tmp_path, monkeypatch):
    for name in ("trainer", "components", "requirements", "docker"):
        (tmp_path / name).mkdir()
    for lock in image_names.LOCKS:
        (tmp_path / "requirements" / f"{lock}.txt").write_text("a==1")
    (tmp_path / "docker" / "steps.Dockerfile").write_text("FROM x")
    monkeypatch.setattr(image_names, "ROOT", tmp_path)
    seen = {image_names.image_name("cpu")}
    assert re.fullmatch(r"nextvlad-pipeline-cpu:[0-9a-f]{16}", *seen)
    for path in ("docker/steps.Dockerfile", "requirements/serving.txt", "components/a.py"):
        (tmp_path / path).write_text("other")
        seen.add(image_names.image_name("cpu"))
    assert len(seen) == 4
    # The context has the files of the digest, readable by all, and nothing between them.
    for path in (
        "trainer/.env",
        "components/key.json",
        "docker/x/models.config",
        "trainer/page.css",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("secret")
    (tmp_path / "components/a.py").chmod(0o600)
    file = io.BytesIO()
    image_names.write_context(file)
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        assert {one.name for one in archive} == {
            "components/a.py", "trainer/page.css", "docker/steps.Dockerfile",
            *(f"requirements/{name}.txt" for name in image_names.LOCKS),
        }  # fmt: skip
        assert {one.mode for one in archive} == {0o644}
        assert archive.extractfile("components/a.py").read() == b"other"
    (tmp_path / "trainer/page.css").unlink()
    # What only tests and checks use is in no image.
    (tmp_path / "requirements" / "dev.txt").write_text("b==2")
    assert image_names.image_name("cpu", "r.example/p/") in {f"r.example/p/{one}" for one in seen}


@pytest.mark.parametrize("kind", image_names.KINDS)
def test_every_kind_has_its_dockerfile(kind):
    text = dockerfile(kind).read_text()
    assert ":latest" not in text
    if kind == "dataflow":
        assert f"ARG BEAM_IMAGE={BEAM_IMAGE}\n" in text
    else:
        assert f"ARG BASE_IMAGE={BASE_IMAGE}\n" in text
        assert text.rstrip().count("\nUSER 10001:10001") == 1


def test_beam_s_image_is_of_the_locked_version():
    locked = re.search(r"^apache-beam\S*==(\S+)", (ROOT / "requirements/cpu.txt").read_text(), re.M)
    assert BEAM_IMAGE.endswith(f":{locked[1]}")


@pytest.mark.parametrize(
    ("created_by", "line"),
    [
        ("", "the base image"),
        ("/bin/sh -c #(nop)  USER 10001:10001", "USER 10001:10001"),
        ("|3 COMMIT=unknown KIND=cpu VERSION=0 /bin/sh -c echo x", "RUN echo x"),
        ("RUN |2 KIND=cpu A=b c /bin/sh -c echo x # buildkit", "RUN echo x"),
        ("/bin/sh -c python3 -m compileall  .", "RUN python3 -m compileall ."),
        ("COPY trainer trainer # buildkit", "COPY trainer trainer"),
    ],
)
def test_a_layer_in_words(created_by, line):
    assert _line(created_by) == line


def test_the_lines_of_the_last_stage_that_make_layers():
    text = "FROM a AS b\nRUN x\n\nFROM c\n# Said.\nENV A=1 \\\n  B=2\nCOPY d \\\n  e\nRUN f\n"
    assert _lines_that_weigh(text) == ["COPY d e", "RUN f"]


def test_sizes_for_people():
    assert size_table([Layer(145_100_000, "the base image"), Layer(2_000_000_000, "COPY a b")]) == (
        "      145.1 MB  the base image\n    2,000.0 MB  COPY a b\n    2,145.1 MB  in all"
    )


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            "pull access denied for nowhere/base, repository does not exist",
            "can not be pulled: nam",
        ),
        ('Get "https://registry-1.docker.io/v2/": dial tcp: lookup', "docker/debian_base.sh"),
        ("cause: invalid peer certificate: UnknownIssuer", "CA=file.pem"),
        ("write /layers/x: no space left on device", "docker system prune"),
        ("cause: failed to write `/tmp/x`: No space left on device (os error 28)", "system prune"),
        ("error: Failed to fetch: x\n cause: dns error", "PIP_INDEX_URL"),
        ("E: Failed to fetch http://deb.debian.org/x", "Debian's packages can not be reached"),
        ("THESE PACKAGES do not match the hashes", "its hash differs"),
        ("Step 1\nunknown instruction: FORM\n", "Docker: unknown instruction: FORM"),
        (
            "\x1b[91merror: it is broken\n\x1b[0mThe command 'x' returned a non-zero code: 3",
            "Docker: error: it is broken",
        ),
        (  # as BuildKit says the same
            "#5 0.207 error: it is broken\n#5 ERROR: executor failed running [x]: exit code: 3\n"
            "------\n > [2/2] RUN x:\n------\nexecutor failed running [x]: exit code: 3",
            "Docker: error: it is broken",
        ),
        ("", "docker said nothing"),
    ],
)
def test_why_a_build_failed(output, words):
    assert words in _cause(output)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("denied: requested access to the resource is denied", "log in with docker login"),
        (
            'Get "https://r.example/v2/": dial tcp: lookup r.example: no such host',
            "REGISTRY right?",
        ),
    ],
)
def test_why_a_push_failed(output, words):
    assert words in _cause(output, _PUSH_CAUSES)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "Error while fetching server API version: ('Connection aborted.', PermissionError(13, "
            "'Permission denied'))",
            "usermod -aG docker",
        ),
        (
            "Error while fetching server API version: ('Connection aborted.', FileNotFoundError())",
            "no Docker engine answers at /var/run/docker.sock: start it",
        ),
        ("mkdir /var/lib/docker: no space left on device", "docker system prune"),
        (
            "500 Server Error: could not select device driver with capabilities: [[gpu]]",
            "container toolkit",
        ),
        ("something\n else", "Docker: something else"),
    ],
)
def test_what_docker_says_and_what_to_do(message, words, monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert words in what_to_do(message)


def test_what_a_build_is_given(tmp_path, monkeypatch):
    (tmp_path / "ca.pem").write_text(f"# Société\n{CERTIFICATE}", encoding="utf-8")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    given = Settings("base:1", ca=tmp_path / "ca.pem").build_arguments("gpu")
    assert given["BASE_IMAGE"] == "base:1"
    assert given["KIND"] == "gpu"
    assert given["VERSION"] == "0.1.0"
    assert given["CA_CERTIFICATES"] == CERTIFICATE
    assert given["PIP_INDEX_URL"] == "https://mirror.example/simple"
    workers = Settings("base:1", beam_image="beam:2").build_arguments("dataflow")
    assert workers["BASE_IMAGE"] == image_names.image_name("cpu")
    assert workers["BEAM_IMAGE"] == "beam:2"
    assert not {"PIP_INDEX_URL", "CA_CERTIFICATES"} & workers.keys()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("key", "expected certificates in PEM form"),
        ("é", "expected certificates in PEM form"),
        (CERTIFICATE * 3000, "expected at most 100,000"),
    ],
)
def test_certificates_that_can_not_be(content, words, tmp_path):
    (tmp_path / "ca.pem").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        Settings(ca=tmp_path / "ca.pem").build_arguments("cpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tpu"], "image kind 'tpu': expected one of cpu, gpu, serving, dataflow"),
        (["--push"], "images are pushed to a registry: REGISTRY is missing"),
        (["cpu"], "no Docker engine answers at unix:///absent.sock"),
    ],
)
def test_what_can_not_be_is_one_line(arguments, words, monkeypatch, capsys):
    monkeypatch.setenv("DOCKER_HOST", "unix:///absent.sock")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {words}")


def test_the_linter_passes_the_dockerfiles_and_no_others(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian\n")
    program = [f"{sys.prefix}/bin/hadolint"]
    files = sorted((ROOT / "docker").glob("*.Dockerfile"))
    assert len(files) == 3
    assert subprocess.run([*program, *files], check=False).returncode == 0
    bad = subprocess.run([*program, tmp_path / "Dockerfile"], capture_output=True, check=False)
    assert bad.returncode != 0
