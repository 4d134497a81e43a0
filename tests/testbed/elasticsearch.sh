#!/usr/bin/env bash
# The real Elasticsearch server with few modules, from Maven Central. It refuses root: the user esrun runs it.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

VERSION=${ELASTICSEARCH_VERSION:-8.7.1}
HOME_=$TESTBED/elasticsearch/elasticsearch-$VERSION
need_root "Elasticsearch (a user of its own)"
id esrun >/dev/null 2>&1 || useradd -r -M -s /usr/sbin/nologin esrun
[ -e "$HOME_/.complete" ] && { say "$VERSION is there"; exit 0; }
command -v mvn >/dev/null || { say "skipped: no Maven to fetch Elasticsearch"; exit 0; }
packages unzip
exclusively maven
mkdir -p "$TESTBED/elasticsearch"
say "fetching $VERSION"
mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy -DoutputDirectory="$TESTBED/elasticsearch" \
    -Dartifact="org.elasticsearch.distribution.integ-test-zip:elasticsearch:$VERSION:zip"
rm -rf "$HOME_"
unzip -q "$HOME_.zip" -d "$TESTBED/elasticsearch"
rm -f "$HOME_.zip"
chmod -R a+rX "$TESTBED/elasticsearch"
touch "$HOME_/.complete"
