"""A project is set up; `gcloud` is a script that keeps one in a file and notes it all."""

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "pipeline" / "vertex" / "setup_project.sh"
# All that the script may use beside gcloud: where these are, no other gcloud is found.
TOOLS = ("awk", "bash", "cat", "env", "grep", "mktemp", "rm", "sed", "tr")

PROJECT, NUMBER, REGION = "my-project-1", "815042", "europe-west4"
USER = "user:jane@example.com"
RUNNER = f"serviceAccount:nextvlad-pipeline@{PROJECT}.iam.gserviceaccount.com"
AGENTS = f"serviceAccount:service-{NUMBER}"
VERTEX = f"{AGENTS}@gcp-sa-aiplatform.iam.gserviceaccount.com"
CODE = f"{AGENTS}@gcp-sa-aiplatform-cc.iam.gserviceaccount.com"
STORAGE = f"{AGENTS}@gs-project-accounts.iam.gserviceaccount.com"
KEY = f"projects/keys-1/locations/{REGION}/keyRings/ring/cryptoKeys/key"
NEEDED = [f"--project={PROJECT}", f"--region={REGION}", "--bucket=gs://runs-1"]
APIS = [
    "aiplatform", "storage", "artifactregistry", "iam", "cloudresourcemanager", "serviceusage",
    "cloudquotas", "logging", "compute",
]  # fmt: skip

# gcloud's commands as in its version 528: how many names they take (9: some), the API that they
# need, with a "!" where they change something, and the flags that they must and may have here.
COMMANDS = {
    "config get-value": (1, "", "", ""),
    "projects describe": (1, "", "", "--format"),
    "billing projects describe": (1, "", "", "--format"),
    "services list": (0, "", "--enabled --project", "--format"),
    "services enable": (9, "!", "--project", "--async"),
    "beta services identity create": (0, "!aiplatform", "--service --project", ""),
    "projects get-iam-policy": (1, "", "--format", ""),
    "projects add-iam-policy-binding": (1, "!", "--member --role", "--condition"),
    "storage buckets describe": (1, "storage", "--format", "--raw"),
    "storage buckets create": (
        1, "!storage", "--project --location",
        "--uniform-bucket-level-access --public-access-prevention",
    ),
    "storage buckets update": (
        1, "!storage", "", "--uniform-bucket-level-access --public-access-prevention",
    ),
    "storage buckets get-iam-policy": (1, "storage", "--format", ""),
    "storage buckets add-iam-policy-binding": (1, "!storage", "--member --role", "--condition"),
    "storage service-agent": (0, "!storage", "--project", ""),
    "artifacts repositories describe": (
        1, "artifactregistry", "--project --location", "--format",
    ),
    "artifacts repositories create": (
        1, "!artifactregistry", "--project --location --repository-format", "--description",
    ),
    "artifacts repositories get-iam-policy": (
        1, "artifactregistry", "--project --location --format", "",
    ),
    "artifacts repositories add-iam-policy-binding": (
        1, "!artifactregistry", "--project --location --member --role", "--condition",
    ),
    "iam service-accounts describe": (1, "iam", "--project", "--format"),
    "iam service-accounts create": (1, "!iam", "--project", "--display-name"),
    "iam service-accounts get-iam-policy": (1, "iam", "--project --format", ""),
    "iam service-accounts add-iam-policy-binding": (
        1, "!iam", "--project --member --role", "--condition",
    ),
    "kms keys get-iam-policy": (1, "cloudkms", "--format", "--keyring --location"),
    "kms keys add-iam-policy-binding": (1, "!cloudkms", "--member --role", "--condition"),
}  # fmt: skip
SWITCHES = (
    "--enabled", "--async", "--raw", "--uniform-bucket-level-access", "--public-access-prevention",
)  # fmt: skip
# Where each role can be granted: elsewhere Google refuses it.
ROLES = {
    "project": (
        "aiplatform.user aiplatform.serviceAgent aiplatform.customCodeServiceAgent "
        "logging.logWriter logging.viewer serviceusage.serviceUsageConsumer cloudquotas.viewer "
        "dataflow.developer dataflow.worker dataflow.viewer"
    ),
    "bucket": "storage.objectUser storage.objectViewer storage.legacyBucketReader",
    "repository": "artifactregistry.reader artifactregistry.writer",
    "account": "iam.serviceAccountUser",
    "key": "cloudkms.cryptoKeyEncrypterDecrypter",
}

GCLOUD = f"""#!{sys.executable} -IS
import sys
here = __file__.rpartition("/")[0]
COMMANDS, SWITCHES, ROLES = {COMMANDS!r}, {SWITCHES!r}, {ROLES!r}
PROJECT, NUMBER, REGION = {PROJECT!r}, {NUMBER!r}, {REGION!r}
with open(here + "/calls", "a") as file:
    print(sys.argv[1:], file=file)
with open(here + "/state") as file:  # no JSON: to import it takes longer than all else
    state = eval(file.read())


def keep():
    with open(here + "/state", "w") as file:
        print(state, file=file)


def end(error, code=1):
    print("ERROR: (gcloud." + name.replace(" ", ".") + ")", error, file=sys.stderr)
    sys.exit(code)


def say(answer):
    as_json = flags.get("--format") == "json"
    print(str(answer).replace("'", '"').replace("True", "true") if as_json else answer)


def lookup(kind, key, message="NOT_FOUND: Requested entity was not found."):
    if key not in state[kind]:
        end(message)
    return state[kind][key]


line = " ".join(sys.argv[1:])
name = next((words for words in COMMANDS if (line + " ").startswith(words + " ")), line)
if name not in COMMANDS:
    end("Invalid choice", 2)
count, api, must, may = COMMANDS[name]
names, flags = [], {{}}
for word in sys.argv[1 + len(name.split()):]:
    flag, equals, value = word.partition("=")
    if not flag.startswith("--"):
        names.append(word)
    elif flag not in (must + " " + may).split() or bool(value) == (flag in SWITCHES):
        end("unrecognized arguments: " + word, 2)
    else:
        flags[flag] = value
if set(must.split()) - set(flags) or (len(names) != count if count < 9 else not names):
    end("an argument is missing or too many", 2)
if flags.get("--project", PROJECT) != PROJECT or flags.get("--location", REGION) != REGION:
    end("PERMISSION_DENIED: elsewhere")
for words, (message, times) in state["fails"].items():
    if (line + " ").startswith(words + " ") and times:
        state["fails"][words][1] -= 1
        keep()
        end(message)
if state["hangs"] == name:
    import time

    time.sleep(60)
if name == "config get-value":
    print("Your active configuration is: [default]", file=sys.stderr)
    print(state["login"] or "(unset)")
    sys.exit()
if not state["login"]:
    end("You do not currently have an active account selected.")
api = api.lstrip("!")
if api and api + ".googleapis.com" not in state["apis"]:
    end("SERVICE_DISABLED: " + api + " has not been used in project 815042 before.")

kind = {{"projects": "project", "storage": "bucket", "artifacts": "repository", "iam": "account",
        "kms": "key"}}.get(name.split()[0])
key = names[0] if names else ""
if kind == "bucket" and key:
    if not key.startswith("gs://"):
        end("Invalid URL", 2)
    if state["bucket"].get(key) == "foreign":
        end("[jane] does not have permission to access b instance [" + key + "]: jane does not "
            "have storage.buckets.get access to the Google Cloud Storage bucket.\\nPermission "
            "'storage.buckets.get' denied on resource (or it may not exist).")
if name.endswith("get-iam-policy"):
    say(lookup(kind, key)["policy"])
elif name.endswith("add-iam-policy-binding"):
    policy = lookup(kind, key)["policy"]
    bindings = policy.setdefault("bindings", [])
    if flags["--role"] not in ["roles/" + role for role in ROLES[kind].split()]:
        end("INVALID_ARGUMENT: Role " + flags["--role"] + " is not supported for this resource.")
    if any("condition" in one for one in bindings) and "--condition" not in flags:
        end("Adding a binding without specifying a condition to a policy is prohibited.")
    if flags.get("--condition", "None") != "None":
        end("unexpected condition")
    member = flags["--member"]
    sort, _, address = member.partition(":")
    if sort not in ("user", "group", "serviceAccount"):
        end("INVALID_ARGUMENT: Invalid member " + member)
    if sort == "serviceAccount" and address not in [*state["account"], *state["agents"]]:
        end("INVALID_ARGUMENT: Service account " + address + " does not exist.")
    bindings.append({{"role": flags["--role"], "members": [member]}})
elif name == "projects describe":
    lookup(kind, key, "User [jane] does not have permission to access projects instance [" + key
           + "] (or it may not exist):\\n  The caller does not have permission.")
    say(NUMBER)
elif name == "billing projects describe":
    say(state["billing"])
elif name == "services list":
    print("\\n".join(state["apis"]))
elif name == "services enable":
    state["apis"] += names
elif name == "beta services identity create":
    state["agents"] += [one for one in state["makes"] if one not in state["agents"]]
elif name == "storage service-agent":
    state["agents"].append("service-" + NUMBER + "@gs-project-accounts.iam.gserviceaccount.com")
elif name == "storage buckets describe":
    say(lookup(kind, key, key + " not found: 404.")["described"])
elif name == "storage buckets create" or name == "storage buckets update":
    described = {{"location": flags.get("--location", "").upper()}}
    one = state[kind].setdefault(key, {{"policy": {{}}, "described": described}})["described"]
    if "--uniform-bucket-level-access" in flags:
        one["uniform_bucket_level_access"] = True
    if "--public-access-prevention" in flags:
        one["public_access_prevention"] = "enforced"
elif name == "artifacts repositories describe":
    say(lookup(kind, key)["format"])
elif name == "artifacts repositories create":
    kept = flags["--repository-format"].upper()
    state[kind][key] = {{"format": kept, "policy": {{"etag": "ACAB"}}}}
elif name == "iam service-accounts describe":
    lookup(kind, key, "NOT_FOUND: Unknown service account.")
elif name == "iam service-accounts create":
    address = key + "@" + PROJECT + ".iam.gserviceaccount.com"
    state[kind][address] = {{"policy": {{"etag": "ACAB"}}}}
keep()
"""


def policy(*bindings):
    return {"policy": {"bindings": [{"role": role, "members": [who]} for role, who in bindings]}}


class Cloud:
    """A project, empty at first, and the script that sets it up."""

    def __init__(self, folder):
        self.folder, self.scratch = folder / "bin", folder / "scratch"
        self.folder.mkdir()
        self.scratch.mkdir()
        for name in TOOLS:
            (self.folder / name).symlink_to(shutil.which(name))
        (self.folder / "python3").symlink_to(sys.executable)
        for name, text in (("gcloud", GCLOUD), ("sleep", "#!/bin/sh\n")):
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)
        self.environment = {"PATH": str(self.folder), "TMPDIR": str(self.scratch)}
        self.has(
            login="jane@example.com", billing="True", apis=[], agents=[], fails={}, hangs="",
            makes=[VERTEX.partition(":")[2], CODE.partition(":")[2]],
            project={PROJECT: policy(("roles/owner", USER))}, repository={}, account={},
            bucket={f"gs://data-{n}": policy() for n in (1, 2)}, key={KEY: policy()},
        )  # fmt: skip

    @property
    def state(self):
        return ast.literal_eval((self.folder / "state").read_text())

    def has(self, **parts):
        before = self.state if (self.folder / "state").exists() else {}
        (self.folder / "state").write_text(repr(before | parts))

    def command(self, *flags):
        return [str(SCRIPT), *flags]

    def run(self, *flags, expect=0):
        done = subprocess.run(
            self.command(*flags), env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert not list(self.scratch.iterdir())
        return done

    def lines(self, *flags):
        done = self.run(*NEEDED, *flags)
        assert not done.stderr
        return done.stdout.splitlines()

    def error(self, *flags, expect=1):
        (line,) = self.run(*flags, expect=expect).stderr.splitlines()
        assert line.startswith("error: ")
        return line

    def calls(self):
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [ast.literal_eval(line) for line in lines]

    def changes(self):
        """What was called that changes something, and forgets it."""
        changing = [words for words, (_, api, _, _) in COMMANDS.items() if api.startswith("!")]
        made = [shlex.join(call) for call in self.calls()]
        (self.folder / "calls").unlink(missing_ok=True)
        return [line for line in made if line.startswith(tuple(changing))]

    def granted(self):
        """(resource, member, role) of every binding, but the owner's."""
        return {
            (name if kind == "bucket" else kind, who, one["role"])
            for kind in ROLES
            for name, resource in self.state[kind].items()
            for one in resource["policy"].get("bindings", [])
            for who in one["members"]
            if one["role"] != "roles/owner"
        }


@pytest.fixture
def cloud(tmp_path):
    one = Cloud(tmp_path)
    yield one
    # Whatever a test did: no role that is more than a run needs, and no question.
    for call in one.calls():
        assert not re.search(r"roles/(owner|editor|viewer$|.*[aA]dmin)", " ".join(call))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state of a project that was set up."""
    one = Cloud(tmp_path_factory.mktemp("whole"))
    one.lines("--apply")
    return one.state


BASIC = {
    ("project", RUNNER, "roles/aiplatform.user"),
    ("project", RUNNER, "roles/logging.logWriter"),
    ("gs://runs-1", RUNNER, "roles/storage.objectUser"),
    ("gs://runs-1", RUNNER, "roles/storage.legacyBucketReader"),
    ("repository", RUNNER, "roles/artifactregistry.reader"),
    ("account", RUNNER, "roles/iam.serviceAccountUser"),
    ("project", USER, "roles/aiplatform.user"),
    ("project", USER, "roles/logging.viewer"),
    ("project", USER, "roles/serviceusage.serviceUsageConsumer"),
    ("project", USER, "roles/cloudquotas.viewer"),
    ("gs://runs-1", USER, "roles/storage.objectUser"),
    ("gs://runs-1", USER, "roles/storage.legacyBucketReader"),
    ("repository", USER, "roles/artifactregistry.writer"),
    ("account", USER, "roles/iam.serviceAccountUser"),
    ("project", VERTEX, "roles/aiplatform.serviceAgent"),
    ("project", CODE, "roles/aiplatform.customCodeServiceAgent"),
    ("repository", VERTEX, "roles/artifactregistry.reader"),
    ("repository", CODE, "roles/artifactregistry.reader"),
}
DATAFLOW = {
    ("project", RUNNER, "roles/dataflow.developer"),
    ("project", RUNNER, "roles/dataflow.worker"),
    ("project", USER, "roles/dataflow.viewer"),
}
KEEPER = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
KMS = {("key", agent, KEEPER) for agent in (VERTEX, CODE, STORAGE)}


def printed(lines):
    """The commands of a dry run."""
    return [line.strip() for line in lines if line.startswith("     gcloud ")]


def test_a_dry_run_changes_nothing_and_its_commands_do_it_all(cloud):
    before = cloud.state
    lines = cloud.lines()
    assert cloud.state == before
    assert not cloud.changes()
    commands = printed(lines)
    assert [line[:4] for line in lines].count("todo") == len(commands) == 5 + len(BASIC)
    assert lines[-2] == "1 things are in order, 23 to do: run it again with --apply"
    assert lines[-1] == (
        f"next: make pipeline-run TARGET=vertex PROJECT={PROJECT} REGION={REGION} "
        f"BUCKET=gs://runs-1 SERVICE_ACCOUNT={RUNNER.partition(':')[2]} "
        f"REGISTRY={REGION}-docker.pkg.dev/{PROJECT}/nextvlad"
    )
    apis = " ".join(f"{name}.googleapis.com" for name in APIS)
    assert commands[:5] == [
        f"gcloud services enable {apis} --project={PROJECT}",
        f"gcloud storage buckets create gs://runs-1 --project={PROJECT} --location={REGION} "
        "--uniform-bucket-level-access --public-access-prevention",
        f"gcloud artifacts repositories create nextvlad --project={PROJECT} --location={REGION} "
        "--repository-format=docker",
        f"gcloud iam service-accounts create nextvlad-pipeline --project={PROJECT}",
        "gcloud beta services identity create --service=aiplatform.googleapis.com "
        f"--project={PROJECT}",
    ]
    assert (
        f"gcloud projects add-iam-policy-binding {PROJECT} --member={RUNNER} "
        "--role=roles/aiplatform.user --condition=None"
    ) in commands
    for command in commands:  # as somebody would paste them
        subprocess.run(["bash", "-c", command], env=cloud.environment, check=True)
    assert cloud.granted() == BASIC
    assert printed(cloud.lines()) == []


def test_applied_it_is_all_in_order(cloud):
    lines = cloud.lines("--apply")
    assert [line[:5] for line in lines].count("done ") == 23
    assert lines[-2] == "1 things are in order, 23 done"
    assert cloud.granted() == BASIC
    assert cloud.state["bucket"]["gs://runs-1"]["described"] == {
        "location": "EUROPE-WEST4", "uniform_bucket_level_access": True,
        "public_access_prevention": "enforced",
    }  # fmt: skip
    assert len(cloud.changes()) == 23
    again = cloud.lines("--apply")
    assert [line[:5] for line in again[:-2]] == ["ok   "] * 24
    assert again[-2:] == ["24 things are in order, none to do", lines[-1]]
    reads = [shlex.join(call) for call in cloud.calls() if "get-iam-policy" in call]
    assert len(reads) == len(set(reads)) == 4
    assert not cloud.changes()


def test_what_is_there_is_kept_and_the_rest_is_done(cloud):
    mine = policy(("roles/storage.objectUser", RUNNER), ("roles/storage.objectUser", USER.upper()))
    sometimes = {"role": "roles/storage.legacyBucketReader", "members": [RUNNER]}
    mine["policy"]["bindings"].append(sometimes | {"condition": {"title": "until noon"}})
    described = {"location": "EUROPE-WEST4", "public_access_prevention": "enforced"}
    cloud.has(
        apis=["storage.googleapis.com", "iam.googleapis.com"],
        bucket={"gs://runs-1": mine | {"described": described}},
    )
    lines = cloud.lines("--bucket=runs-1/")
    assert "     gcloud storage buckets update gs://runs-1 --uniform-bucket-level-access" in lines
    assert f"ok   roles/storage.objectUser on gs://runs-1 for {RUNNER}" in lines
    assert f"ok   roles/storage.objectUser on gs://runs-1 for {USER}" in lines
    assert f"todo roles/storage.legacyBucketReader on gs://runs-1 for {RUNNER}" in lines
    (enable,) = [line for line in lines if "services enable" in line]
    assert " storage." not in enable
    assert " compute." in enable
    cloud.lines("--apply")
    assert cloud.state["bucket"]["gs://runs-1"]["described"]["uniform_bucket_level_access"] is True
    assert cloud.granted() >= BASIC - {("gs://runs-1", USER, "roles/storage.objectUser")}


def test_it_goes_on_where_it_failed(cloud):
    cloud.has(fails={"artifacts repositories create": ["PERMISSION_DENIED: no\n- '@type': x", 1]})
    line = cloud.error(*NEEDED, "--apply")
    assert line == (
        f"error: repository nextvlad of images in {REGION} failed: ERROR: "
        "(gcloud.artifacts.repositories.create) PERMISSION_DENIED: no - '@type': x"
    )
    assert cloud.lines("--apply")[-2].endswith(" done")
    assert cloud.granted() == BASIC


@pytest.mark.parametrize(
    ("flags", "apis", "bindings"),
    [
        (["--dataflow"], {"dataflow"}, DATAFLOW),
        (["--kms-key", KEY], {"cloudkms"}, KMS),
        (
            ["--data-bucket", "data-1", "--data-bucket=gs://data-2", "--data-bucket=gs://data-1/",
             "--data-bucket=gs://runs-1"],
            set(),
            {(f"gs://data-{n}", RUNNER, "roles/storage.objectViewer") for n in (1, 2)},
        ),
        (["--deploy"], set(), {("gs://runs-1", VERTEX, "roles/storage.objectViewer")}),
    ],
)  # fmt: skip
def test_a_flag_adds_its_own_and_nothing_else(flags, apis, bindings, whole, cloud):
    cloud.has(**whole)
    cloud.lines("--apply", *flags)
    assert cloud.granted() == BASIC | bindings
    assert set(cloud.state["apis"]) == {f"{name}.googleapis.com" for name in [*APIS, *apis]}
    storage_agent = 1 if "--kms-key" in flags else 0
    assert len(cloud.changes()) == len(bindings) + len(apis) + storage_agent


def test_all_flags_in_an_empty_project(cloud):
    flags = ["--dataflow", "--deploy", "--kms-key", KEY, "--data-bucket=data-1"]
    commands = printed(cloud.lines(*flags))
    assert not cloud.changes()
    cloud.lines("--apply", *flags)
    assert [f"gcloud {change}" for change in cloud.changes()] == commands
    assert cloud.granted() == BASIC | DATAFLOW | KMS | {
        ("gs://data-1", RUNNER, "roles/storage.objectViewer"),
        ("gs://runs-1", VERTEX, "roles/storage.objectViewer"),
    }  # fmt: skip
    cloud.lines("--apply", *flags)
    assert not cloud.changes()


@pytest.mark.parametrize(
    ("login", "flags", "member"),
    [
        ("jane@example.com", ["--user", "john@example.com"], "user:john@example.com"),
        ("jane@example.com", ["--user=group:team@example.com"], "group:team@example.com"),
        (RUNNER[15:], [], RUNNER),
    ],
)
def test_who_starts_runs(login, flags, member, whole, cloud):
    cloud.has(**whole | {"login": login})
    cloud.lines("--apply", *flags)
    added = {(where, member, role) for where, who, role in BASIC if who == USER} - BASIC
    assert cloud.granted() == BASIC | added
    assert len(cloud.changes()) == len(added)


def test_an_agent_that_google_has_not_made_yet(cloud):
    cloud.has(makes=[VERTEX.partition(":")[2]])
    lines = cloud.lines("--apply")
    assert lines[-2] == "1 things are in order, 21 done, 2 to wait for"
    assert sum(line.endswith(": run this again after the first run") for line in lines) == 2
    assert cloud.granted() == {one for one in BASIC if one[1] != CODE}
    cloud.has(agents=[*cloud.state["agents"], CODE.partition(":")[2]])
    assert cloud.lines("--apply")[-2] == "22 things are in order, 2 done"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("projects add-iam-policy-binding", "Service account x@y does not exist."),
        ("artifacts repositories describe", "API has not been used in project 8 before or it is"),
    ],
)
def test_what_was_made_just_now_may_not_be_known_everywhere(command, message, cloud):
    cloud.has(fails={command: [message, 2]})
    lines = cloud.lines("--apply")
    assert lines.count("note not known everywhere yet, tries again in 5 s") == 1
    assert lines.count("note not known everywhere yet, tries again in 10 s") == 1
    assert cloud.granted() == BASIC
    # Where nothing was made it is an error.
    cloud.has(fails={"projects get-iam-policy": [message, 1]})
    assert "can not be looked up" in cloud.error(*NEEDED, "--apply")


def test_a_bucket_in_another_region(cloud):
    here = policy() | {"described": {"location": "US"}}
    cloud.has(apis=["storage.googleapis.com"], bucket={"gs://runs-1": here})
    line = cloud.error(*NEEDED, "--apply")
    assert f"bucket gs://runs-1 is in US, expected {REGION}" in line
    assert not any("storage" in line for line in cloud.changes() if "enable" not in line)


def test_a_bucket_of_somebody_else(cloud):
    cloud.has(apis=["storage.googleapis.com"], bucket={"gs://runs-1": "foreign"})
    assert "bucket gs://runs-1 is somebody else's or closed to you" in cloud.error(*NEEDED)


def test_a_repository_for_something_else(cloud):
    others = {"nextvlad": policy() | {"format": "NPM"}}
    cloud.has(apis=["artifactregistry.googleapis.com"], repository=others)
    assert "is for NPM, expected DOCKER: choose another --repository" in cloud.error(*NEEDED)


def test_data_of_somebody_else(cloud):
    cloud.has(apis=["storage.googleapis.com"], bucket={"gs://data-1": "foreign"})
    line = cloud.error(*NEEDED, "--data-bucket=data-1")
    assert "who may use gs://data-1 can not be looked up: ERROR: (gcloud.storage" in line


def test_apis_can_not_be_enabled(cloud):
    cloud.has(fails={"services enable": ["PERMISSION_DENIED: Not allowed\n  to call this.", 9]})
    line = cloud.error(*NEEDED, "--apply")
    assert "error: APIs aiplatform.googleapis.com" in line
    assert "(gcloud.services.enable) PERMISSION_DENIED: Not allowed to call this." in line
    assert len(cloud.changes()) == 1


def test_billing(cloud):
    cloud.has(billing="False")
    assert cloud.error(*NEEDED).endswith(
        f"has no billing: gcloud billing projects link {PROJECT} --billing-account=ACCOUNT"
    )
    cloud.has(fails={"billing projects describe": ["PERMISSION_DENIED: no", 1]})
    assert "note whether project my-project-1 has billing can not be looked up" in cloud.lines()[0]


def test_no_such_project(cloud):
    cloud.has(project={})
    line = cloud.error(*NEEDED)
    assert "error: project my-project-1 can not be looked up as jane@example.com: ERROR" in line
    assert "(or it may not exist): The caller does not have permission." in line


def test_no_gcloud(cloud):
    (cloud.folder / "gcloud").unlink()
    assert "gcloud is not there, install it" in cloud.error(*NEEDED)


def test_nobody_is_logged_in(cloud):
    cloud.has(login="")
    assert cloud.error(*NEEDED) == "error: gcloud is not logged in: gcloud auth login"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([*NEEDED, "--applied"], "unknown argument --applied"),
        ([*NEEDED, "--apply=no"], "unknown argument no"),
        ([*NEEDED, "-p"], "unknown argument -p"),
        ([*NEEDED, "--user"], "--user lacks its value"),
        ([*NEEDED, "--user="], "--user lacks its value"),
        ([*NEEDED, "--user", "--apply"], "--user lacks its value"),
        (NEEDED[1:], "--project is missing, expected such as --project=my-project-1"),
        (NEEDED[:-1], "--bucket is missing"),
        ([*NEEDED, "--project=P 1"], "--project is P 1, expected such as my-project-1"),
        ([*NEEDED, "--region=europe"], "--region is europe, expected such as europe-west4"),
        ([*NEEDED, "--bucket=gs://b-1/folder"], "--bucket is gs://b-1/folder, expected such as"),
        ([*NEEDED, "--data-bucket=s3://b"], "--data-bucket is gs://s3://b, expected such as"),
        ([*NEEDED, "--service-account=a@b.c"], "--service-account is a@b.c, expected such as"),
        ([*NEEDED, "--user=jane"], "--user is jane, expected such as jane@example.com"),
        ([*NEEDED, "--kms-key=key"], "--kms-key is key, expected such as projects/KEY_PROJECT/"),
        ([*NEEDED, "--kms-key", KEY.replace("west4", "west1")], f"/locations/{REGION}/keyRings/"),
    ],
)  # fmt: skip
def test_flags_that_can_not_be(flags, words, cloud):
    assert words in cloud.error(*flags, expect=2)
    assert not cloud.calls()


def test_help(cloud):
    seen = cloud.run("--help").stdout
    for flag in ("--project", "--data-bucket", "--kms-key", "--apply"):
        assert f"\n  {flag} " in seen
    assert "set -" not in seen
    assert not cloud.calls()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_file(sent, cloud):
    cloud.has(hangs="services enable")
    # Where the tests run in the background, they would ignore SIGINT, and so would the script.
    command = [shutil.which("env"), "--default-signal=INT", *cloud.command(*NEEDED, "--apply")]
    with subprocess.Popen(
        command, env=cloud.environment, start_new_session=True, stdout=subprocess.PIPE
    ) as running:
        until = time.monotonic() + 30
        while not any("enable" in call for call in cloud.calls()) and time.monotonic() < until:
            time.sleep(0.02)
        assert list(cloud.scratch.iterdir())
        os.killpg(running.pid, sent)
        assert "failed" not in running.communicate(timeout=30)[0].decode()
    assert running.returncode == 128 + sent
    assert not list(cloud.scratch.iterdir())
