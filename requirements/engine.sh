#!/bin/sh
# usage: requirements/engine.sh flink|spark FOLDER
# Fetches Beam's job server of an engine, with the engine embedded, into FOLDER by Maven and proves
# every jar by its checksum. Installs a Java runtime and Maven from Debian's packages where they are
# absent and it may. Does nothing where all is there. docs/statistics.md says how to start one.
set -eu
fail() {
    echo "error: $1" >&2
    exit 1
}
{ [ $# = 2 ] && [ -d "$(dirname "$0")/engines/$1" ]; } ||
    fail "usage: requirements/engine.sh flink|spark FOLDER"
here=$(cd "$(dirname "$0")/engines/$1" && pwd)
mkdir -p "$2"
folder=$(cd "$2" && pwd)

proved() {
    [ "$(find "$folder" -name '*.jar' | wc -l)" = "$(wc -l <"$here/jars.sha256")" ] &&
        (cd "$folder" && sha256sum --check --quiet "$here/jars.sha256") >&2
}

if proved 2>/dev/null; then exit 0; fi
for program in java mvn; do
    command -v "$program" >/dev/null && continue
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$program is not there; install a Java runtime (17) and Maven"
    fi
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless maven >/dev/null
done
rm -f "$folder"/*.jar
mvn --quiet --batch-mode --file "$here/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$folder" -DincludeScope=runtime
proved || fail "the jars in $folder are not those of $here/jars.sha256"
