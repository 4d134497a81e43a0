#!/usr/bin/env bash
# OpenSearch laid out from its jars in Maven Central: core, the HTTP transport, and snapshots to S3.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

VERSION=${OPENSEARCH_VERSION:-3.8.0}
HOME_=$TESTBED/opensearch/$VERSION
need_root "OpenSearch (a user of its own)"
id esrun >/dev/null 2>&1 || useradd -r -M -s /usr/sbin/nologin esrun
[ -e "$HOME_/.complete" ] && { say "$VERSION is there"; exit 0; }
command -v mvn >/dev/null || { say "skipped: no Maven to fetch OpenSearch"; exit 0; }
exclusively maven
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# get DIRECTORY GROUP:ARTIFACT:VERSION...: these jars and what they need
get() {
    local out=$1 group artifact version coordinate dependencies=""
    shift
    for coordinate in "$@"; do
        IFS=: read -r group artifact version <<<"$coordinate"
        dependencies+="<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId>"
        dependencies+="<version>$version</version></dependency>"
    done
    cat >"$WORK/pom.xml" <<P
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>t</groupId>
<artifactId>x</artifactId><version>1</version><packaging>pom</packaging><dependencies>$dependencies</dependencies></project>
P
    mvn -q -B -f "$WORK/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$out"
}

CORE=("org.opensearch:opensearch:$VERSION" "org.apache.logging.log4j:log4j-core:2.25.4"
    "org.opensearch:opensearch-plugin-classloader:$VERSION" "org.opensearch:opensearch-agent-bootstrap:$VERSION")

# module NAME CLASS GROUP:ARTIFACT:VERSION: a plug-in as a built-in module, without the jars that the core has
module() {
    local name=$1 class=$2 directory=$HOME_/modules/$1 jar
    shift 2
    get "$directory" "${CORE[@]}" "$@"
    for jar in "$HOME_"/lib/*.jar; do rm -f "$directory/$(basename "$jar")"; done
    cat >"$directory/plugin-descriptor.properties" <<P
name=$name
description=$name
version=$VERSION
opensearch.version=$VERSION
java.version=21
classname=$class
extended.plugins=
custom.foldername=
has.native.controller=false
P
}

say "fetching $VERSION"
rm -rf "$HOME_"
mkdir -p "$HOME_/plugins" "$HOME_/config" "$HOME_/bin"
get "$HOME_/lib" "${CORE[@]}"
module transport-netty4 org.opensearch.transport.Netty4ModulePlugin "org.opensearch.plugin:transport-netty4-client:$VERSION"
module repository-s3 org.opensearch.repositories.s3.S3RepositoryPlugin "org.opensearch.plugin:repository-s3:$VERSION"
module reindex org.opensearch.index.reindex.ReindexModulePlugin "org.opensearch.plugin:reindex-client:$VERSION"
chmod -R a+rX "$TESTBED/opensearch"
touch "$HOME_/.complete"
