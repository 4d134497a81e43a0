#!/usr/bin/env bash
# Apache Cassandra's own jars from Maven Central; the tests run CassandraDaemon and NodeTool from them.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

VERSION=${CASSANDRA_VERSION:-5.0.9}
HOME_=$TESTBED/cassandra/$VERSION
[ -e "$HOME_/.complete" ] && { say "$VERSION is there"; exit 0; }
command -v mvn >/dev/null || { say "skipped: no Maven to fetch Cassandra"; exit 0; }
exclusively maven
rm -rf "$HOME_" && mkdir -p "$HOME_"
cat >"$HOME_/pom.xml" <<P
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>t</groupId><artifactId>cassandra</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId>
<version>$VERSION</version></dependency></dependencies></project>
P
say "fetching $VERSION"
mvn -q -B -f "$HOME_/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$HOME_/lib"
touch "$HOME_/.complete"
