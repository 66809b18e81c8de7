#!/usr/bin/env bash
# usage: pipeline/vertex/setup_project.sh --project=ID --region=REGION --bucket=gs://NAME [flags]
# Looks what a Google Cloud project lacks for the pipeline to run there on Vertex AI, and prints the
# commands that mend it. Changes nothing without --apply; started again, it goes on with the rest.
#
#   --project ID            an existing project with billing, such as my-project-1
#   --region REGION         of runs, bucket and images, such as europe-west4
#   --bucket gs://NAME      where runs write
#   --data-bucket gs://NAME training data, only to read; may be given several times
#   --repository NAME       of images in Artifact Registry; default: nextvlad
#   --service-account ID    whom runs run as; default: nextvlad-pipeline
#   --user WHO              who starts runs: an address, group:… or serviceAccount:…; default:
#                           the account that gcloud is logged in with
#   --kms-key NAME          projects/…/cryptoKeys/… that Vertex AI and Cloud Storage may use
#   --dataflow              also what the statistics step on Dataflow needs
#   --deploy                also what an endpoint needs
#   --apply                 carry the commands out
set -euo pipefail

# gcloud has to end with an error where it would ask a question, such as to enable an API.
export CLOUDSDK_CORE_DISABLE_PROMPTS=1

fail() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

# --- flags ---

project='' region='' bucket='' repository=nextvlad service_account=nextvlad-pipeline user=''
kms_key='' data_buckets='' dataflow='' apply=''
# shellcheck disable=SC2034 # read by its name, as a flag of `bindings`
deploy=''
while [ $# -gt 0 ]; do
    case $1 in --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
    name=${1#--}
    case $1 in
    --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0"
        exit
        ;;
    --dataflow | --deploy | --apply) printf -v "$name" yes ;;
    --project | --region | --bucket | --data-bucket | --repository | --service-account | --user | --kms-key)
        case ${2:-} in '' | --*) fail "$1 lacks its value" 2 ;; esac
        value=$2
        case $1 in *bucket) value=gs://${value#gs://} value=${value%/} ;; esac
        case $1 in
        --data-bucket) data_buckets="$data_buckets $value" ;;
        *) printf -v "${name//-/_}" %s "$value" ;;
        esac
        shift
        ;;
    *) fail "unknown argument $1, see --help" 2 ;;
    esac
    shift
done

expect() { # FLAG VALUE PATTERN EXAMPLE
    [ -n "$2" ] || fail "$1 is missing, expected such as $1=$4" 2
    [[ $2 =~ ^$3$ ]] || fail "$1 is $2, expected such as $4" 2
}
bucket_name='gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]'
expect --project "$project" '[a-z][a-z0-9-]{4,28}[a-z0-9]' my-project-1
expect --region "$region" '[a-z]+-[a-z]+[0-9]+' europe-west4
expect --bucket "$bucket" "$bucket_name" gs://my-bucket
expect --repository "$repository" '[a-z]([a-z0-9-]{0,61}[a-z0-9])?' nextvlad
expect --service-account "$service_account" '[a-z][a-z0-9-]{4,28}[a-z0-9]' nextvlad-pipeline
expect --user "${user:-a@b}" '((user|group|serviceAccount):)?[^:@[:space:]]+@[^:@[:space:]]+' jane@example.com
# Vertex AI takes keys of the run's region alone.
key=projects/KEY_PROJECT/locations/$region/keyRings/RING/cryptoKeys/KEY
expect --kms-key "${kms_key:-$key}" "projects/[^/]+/locations/$region/keyRings/[^/]+/cryptoKeys/[^/]+" "$key"
# Each once, and not the bucket that runs may write to anyway.
data_buckets=$(echo "$data_buckets" | tr ' ' '\n' | awk -v own="$bucket" 'NF && $0 != own && !seen[$0]++')
for data_bucket in $data_buckets; do expect --data-bucket "$data_bucket" "$bucket_name" gs://my-data; done

for tool in gcloud python3; do
    command -v "$tool" >/dev/null ||
        fail "$tool is not there, install it (gcloud: https://cloud.google.com/sdk/docs/install)"
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Without these the script would go on where a gcloud ends by itself at Ctrl-C.
trap 'exit 130' INT
trap 'exit 143' TERM

# --- gcloud ---

in_order=0 to_do=0 later=0 code_agent=''

# call COMMAND...: what gcloud prints is in $scratch/out, its error, as one line, in $message.
call() {
    local pause
    for pause in 5 10 20 40 0; do
        ! gcloud "$@" </dev/null >"$scratch/out" 2>"$scratch/err" || return 0
        message=$(tr -s '[:space:]' ' ' <"$scratch/err")
        message=${message% }
        # What this script made a moment ago is not known everywhere at once.
        [ -n "$apply" ] && [ "$to_do" != 0 ] && [ "$pause" != 0 ] || return 1
        case $message in
        *"${code_agent#*:}"*) return 1 ;; # see `todo`
        *"ervice account"*"does not exist"* | *"has not been used in project"* | *SERVICE_DISABLED*) ;;
        *) return 1 ;;
        esac
        echo "note not known everywhere yet, tries again in $pause s"
        sleep "$pause"
    done
}

ok() {
    in_order=$((in_order + 1))
    echo "ok   $1"
}

todo() { # WHAT COMMAND...
    local what=$1
    shift
    to_do=$((to_do + 1))
    if [ -z "$apply" ]; then
        echo "todo $what"
        printf '     gcloud'
        printf ' %q' "$@"
        echo
    elif call "$@"; then
        echo "done $what"
    else
        case $message in *"${code_agent#*:}"*"does not exist"*) ;; *) fail "$what failed: $message" ;; esac
        # Where Google does not make it with the other agent, it does with the first custom job.
        to_do=$((to_do - 1)) later=$((later + 1))
        echo "note $what waits until Google has made that agent: run this again after the first run"
    fi
}

has_api() {
    case " $enabled " in *" $1.googleapis.com "*) ;; *) return 1 ;; esac
}

exists() { # API WHAT COMMAND...; where the API is not enabled there is nothing to ask
    local api=$1 what=$2
    shift 2
    has_api "$api" || return 1
    ! call "$@" || return 0
    case $message in
    *NOT_FOUND* | *"not found: 404"*) return 1 ;;
    *storage.buckets.get*)
        fail "$what is somebody else's or closed to you, choose another --bucket: $message"
        ;;
    *) fail "$what can not be looked up: $message" ;;
    esac
}

# --- who may what ---

resource() { # NAME VERB: sets `words`, gcloud's for the policy of a resource, and its `title`
    case $1 in
    project) words=(projects "$2" "$project") title="project $project" ;;
    repository)
        words=(artifacts repositories "$2" "$repository" --project="$project" --location="$region")
        title="repository $repository"
        ;;
    runner) words=(iam service-accounts "$2" "$runner" --project="$project") title=$runner ;;
    key) words=(kms keys "$2" "$kms_key") title=$kms_key ;;
    gs://*) words=(storage buckets "$2" "$1") title=$1 ;;
    esac
}

# read_policy NAME: adds lines of "NAME member role" to $scratch/granted. What was not there before
# needs no reading; what is granted on a condition may not hold when it is needed, so it is left out.
read_policy() {
    resource "$1" get-iam-policy
    call "${words[@]}" --format=json || fail "who may use $title can not be looked up: $message"
    python3 -IS -c '
import json, sys
for binding in json.load(sys.stdin).get("bindings", []):
    for member in [] if binding.get("condition") else binding["members"]:
        print(sys.argv[1], member, binding["role"])' "$1" <"$scratch/out" >>"$scratch/granted"
}

grant() { # NAME MEMBER ROLE
    resource "$1" add-iam-policy-binding
    if grep -qixF "$1 $2 $3" "$scratch/granted"; then
        ok "$3 on $title for $2"
    else
        # gcloud refuses a binding that says nothing of conditions where others have one.
        todo "$3 on $title for $2" "${words[@]}" --member="$2" --role="$3" --condition=None
    fi
}

agent() { # MEMBER COMMAND...: no command lists Google's agents, but one that is granted something is there
    local member=$1
    shift
    if grep -qiF " $member " "$scratch/granted"; then ok "$member"; else todo "$member" "$@"; fi
}

# Lines of FLAG NAME MEMBER ROLE; with - always, otherwise where the flag is given. A run starts its
# custom jobs as itself, so the runner has to be a user of itself. The agents' roles on the project
# are Google's own, which agents made on request do not get unasked. A model is copied to its
# endpoint by the agent. The code agent is last: it may not be there yet.
bindings() {
    cat <<END
-        project     $runner_member  roles/aiplatform.user
-        project     $runner_member  roles/logging.logWriter
dataflow project     $runner_member  roles/dataflow.developer
dataflow project     $runner_member  roles/dataflow.worker
-        $bucket     $runner_member  roles/storage.objectUser
-        $bucket     $runner_member  roles/storage.legacyBucketReader
-        repository  $runner_member  roles/artifactregistry.reader
-        runner      $runner_member  roles/iam.serviceAccountUser
-        project     $user           roles/aiplatform.user
-        project     $user           roles/logging.viewer
-        project     $user           roles/serviceusage.serviceUsageConsumer
-        project     $user           roles/cloudquotas.viewer
dataflow project     $user           roles/dataflow.viewer
-        $bucket     $user           roles/storage.objectUser
-        $bucket     $user           roles/storage.legacyBucketReader
-        repository  $user           roles/artifactregistry.writer
-        runner      $user           roles/iam.serviceAccountUser
-        project     $vertex_agent   roles/aiplatform.serviceAgent
-        repository  $vertex_agent   roles/artifactregistry.reader
deploy   $bucket     $vertex_agent   roles/storage.objectViewer
kms_key  key         $vertex_agent   roles/cloudkms.cryptoKeyEncrypterDecrypter
kms_key  key         $storage_agent  roles/cloudkms.cryptoKeyEncrypterDecrypter
kms_key  key         $code_agent     roles/cloudkms.cryptoKeyEncrypterDecrypter
-        project     $code_agent     roles/aiplatform.customCodeServiceAgent
-        repository  $code_agent     roles/artifactregistry.reader
END
    for data_bucket in $data_buckets; do
        echo "- $data_bucket $runner_member roles/storage.objectViewer"
    done
}

# --- the project and its APIs ---

call config get-value account || fail "gcloud can not say whom it is logged in as: $message"
account=$(tr -d '[:space:]' <"$scratch/out")
case $account in '' | '(unset)') fail "gcloud is not logged in: gcloud auth login" ;; esac
user=${user:-$account}
case $user in
*:*) ;;
*.gserviceaccount.com) user=serviceAccount:$user ;;
*) user=user:$user ;;
esac

call projects describe "$project" --format='value(projectNumber)' ||
    fail "project $project can not be looked up as $account: $message"
number=$(cat "$scratch/out")
agents=serviceAccount:service-$number
vertex_agent=$agents@gcp-sa-aiplatform.iam.gserviceaccount.com
code_agent=$agents@gcp-sa-aiplatform-cc.iam.gserviceaccount.com
storage_agent=$agents@gs-project-accounts.iam.gserviceaccount.com
runner=$service_account@$project.iam.gserviceaccount.com
runner_member=serviceAccount:$runner

if ! call billing projects describe "$project" --format='value(billingEnabled)'; then
    echo "note whether project $project has billing can not be looked up: $message"
elif [ "$(cat "$scratch/out")" = True ]; then
    ok "project $project with billing"
else
    fail "project $project has no billing: gcloud billing projects link $project --billing-account=ACCOUNT"
fi

call services list --enabled --project="$project" --format='value(config.name)' ||
    fail "the APIs of project $project can not be looked up: $message"
enabled=$(tr -s '[:space:]' ' ' <"$scratch/out")
missing=()
for api in aiplatform storage artifactregistry iam cloudresourcemanager serviceusage cloudquotas \
    logging compute ${dataflow:+dataflow} ${kms_key:+cloudkms}; do
    has_api "$api" || missing+=("$api.googleapis.com")
done
if [ ${#missing[@]} = 0 ]; then
    ok APIs
else
    todo "APIs ${missing[*]}" services enable "${missing[@]}" --project="$project"
    [ -z "$apply" ] || enabled="$enabled ${missing[*]}"
fi

# --- what runs use, and who may use it ---

read_policy project

title="bucket $bucket in $region, with uniform access and never public"
if exists storage "bucket $bucket" storage buckets describe "$bucket" --format=json; then
    # What is not set is None, so that each keeps its place.
    read -r location uniform public < <(python3 -IS -c '
import json, sys
print(*map(json.load(sys.stdin).get, sys.argv[1:]))' \
        location uniform_bucket_level_access public_access_prevention <"$scratch/out")
    # The multi-regions US and EU hold the regions of their continents.
    case $(echo "$location" | tr '[:upper:]' '[:lower:]'):$region in
    "$region:$region" | us:us-* | eu:europe-*) ;;
    *) fail "bucket $bucket is in $location, expected $region: choose another --bucket or --region" ;;
    esac
    missing=()
    [ "$uniform" = True ] || missing+=(--uniform-bucket-level-access)
    [ "$public" = enforced ] || missing+=(--public-access-prevention)
    if [ ${#missing[@]} = 0 ]; then
        ok "$title"
    else
        todo "$title" storage buckets update "$bucket" "${missing[@]}"
    fi
    read_policy "$bucket"
else
    todo "$title" storage buckets create "$bucket" --project="$project" --location="$region" \
        --uniform-bucket-level-access --public-access-prevention
fi
for data_bucket in $data_buckets; do ! has_api storage || read_policy "$data_bucket"; done

title="repository $repository of images in $region"
where=(--project="$project" --location="$region")
if exists artifactregistry "$title" \
    artifacts repositories describe "$repository" "${where[@]}" --format='value(format)'; then
    kind=$(cat "$scratch/out")
    [ "$kind" = DOCKER ] || fail "$title is for $kind, expected DOCKER: choose another --repository"
    ok "$title"
    read_policy repository
else
    todo "$title" artifacts repositories create "$repository" "${where[@]}" --repository-format=docker
fi

title="service account $runner"
if exists iam "$title" iam service-accounts describe "$runner" --project="$project"; then
    ok "$title"
    read_policy runner
else
    todo "$title" iam service-accounts create "$service_account" --project="$project"
fi

agent "$vertex_agent" beta services identity create --service=aiplatform.googleapis.com --project="$project"
if [ -n "$kms_key" ]; then
    ! has_api cloudkms || read_policy key
    agent "$storage_agent" storage service-agent --project="$project"
fi
while read -r flag name member role; do
    [ "$flag" = - ] || [ -n "${!flag}" ] || continue
    grant "$name" "$member" "$role"
done < <(bindings | awk '!seen[$2, $3, $4]++') # the user may be the runner

# --- what is next ---

case $to_do$apply in
0*) rest="none to do" ;;
*yes) rest="$to_do done" ;;
*) rest="$to_do to do: run it again with --apply" ;;
esac
[ "$later" = 0 ] || rest="$rest, $later to wait for"
echo "$in_order things are in order, $rest"
echo "next: make pipeline-run TARGET=vertex PROJECT=$project REGION=$region BUCKET=$bucket" \
    "SERVICE_ACCOUNT=$runner REGISTRY=$region-docker.pkg.dev/$project/$repository"
