#!/usr/bin/env bash
# Installs what the build, the demo and the tests need and this machine lacks:
# a C compiler (for linking, and for ring), make, Postgres 15 or later, Redis,
# Python (one test runs Django, one schemathesis) and wal2json (which one test compares
# the stream with). `scripts/setup.sh tests` also installs Prometheus, of which the
# tests need promtool, Chromium, in which they look at the console, faketime, by which they set
# a process' clock, and valgrind, by which they count instructions; `scripts/setup.sh bench` also
# webdis, wrk and valgrind, which the benchmarks compare and measure with; the demo does without.
# Does nothing where nothing is missing.
#
# It starts no service: what is installed is only the programs, which the
# sandbox runs in folders of its own. Debian's default cluster is not made.
set -euo pipefail

readonly OLDEST_POSTGRES=15

case ${1:-} in
    '') for_tests=no for_bench=no ;;
    tests) for_tests=yes for_bench=no ;;
    bench) for_tests=no for_bench=yes ;;
    *) printf 'usage: %s [tests|bench]\n' "$0" >&2; exit 2 ;;
esac

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The major version of the Postgres server in a folder; nothing if there is none.
server_version() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 0
    "$1/postgres" --version | sed -n 's/^[^0-9]*\([0-9]\{1,\}\).*/\1/p'
}

# The folder of a server that will do, found as the sandbox finds it.
postgres_folder() {
    local folder version candidates=()
    if [ -n "${UNSTALE_PG_BIN:-}" ]; then
        candidates=("$UNSTALE_PG_BIN")
    else
        if have pg_config; then candidates+=("$(pg_config --bindir)"); fi
        while IFS= read -r folder; do candidates+=("$folder"); done \
            < <(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -rV)
        if have postgres; then candidates+=("$(dirname "$(command -v postgres)")"); fi
    fi
    for folder in "${candidates[@]+"${candidates[@]}"}"; do
        version=$(server_version "$folder")
        if [ "${version:-0}" -ge "$OLDEST_POSTGRES" ]; then
            echo "$folder"
            return
        fi
    done
}

have_redis() { [ -x "${UNSTALE_REDIS_SERVER:-}" ] || have redis-server; }

# A Python that can make virtual environments: Debian packages that apart.
have_python() {
    have python3 && python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

have_promtool() { [ -x "${PROMTOOL:-}" ] || have promtool; }

have_chromium() {
    { [ -x "${CHROMIUM:-}" ] || have chromium || have google-chrome; } \
        && { [ -x "${CHROMEDRIVER:-}" ] || have chromedriver; }
}

have_faketime() {
    [ -f "${LIBFAKETIME:-}" ] || compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null
}

have_wal2json() {
    local folder library
    folder=$(postgres_folder)
    [ -n "$folder" ] || return 1
    # On Debian bin and lib lie side by side; elsewhere pg_config knows.
    for library in "$folder/../lib" "$([ ! -x "$folder/pg_config" ] || "$folder/pg_config" --pkglibdir)"; do
        if [ -e "$library/wal2json.so" ]; then return 0; fi
    done
    return 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

updated=no
update_lists() {
    [ "$updated" = no ] || return 0
    updated=yes
    say "updating the package lists"
    as_root apt-get update -qq
}

# The newest packaged Postgres server.
packaged_postgres() {
    apt-cache search --names-only '^postgresql-[0-9]+$' \
        | sed -n 's/^postgresql-\([0-9]\{1,\}\) .*/\1/p' | sort -n | tail -1
}

in_lists() { apt-cache show "$1" >/dev/null 2>&1; }

# Installs packages; with fresh lists, should the ones at hand be too old.
apt_install() {
    say "installing $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
    if ! as_root "${install[@]}" >/dev/null; then
        [ "$updated" = no ] || fail "apt-get could not install $*"
        update_lists
        as_root "${install[@]}" >/dev/null || fail "apt-get could not install $*"
    fi
}

temporary=()
clean_up() {
    [ ${#temporary[@]} -eq 0 ] || as_root rm -f "${temporary[@]}"
}
trap clean_up EXIT

# A file that exists while we install: its path, mode and text.
meanwhile() {
    local file=$1 mode=$2 text=$3
    as_root mkdir -p "$(dirname "$file")"
    as_root tee "$file" <<<"$text" >/dev/null
    as_root chmod "$mode" "$file"
    temporary+=("$file")
}

keep_services_down() {
    # The package's scripts ask this file whether they may start a service.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        meanwhile /usr/sbin/policy-rc.d 755 $'#!/bin/sh\nexit 101'
    fi
}

missing=()
have cc || missing+=(gcc libc6-dev)
have make || missing+=(make)
needs_postgres=no needs_redis=no needs_wal2json=no needs_python=no needs_promtool=no
needs_chromium=no needs_webdis=no needs_faketime=no needs_valgrind=no
[ -n "$(postgres_folder)" ] || needs_postgres=yes
have_redis || needs_redis=yes
have_wal2json || needs_wal2json=yes
have_python || needs_python=yes
[ $for_tests = no ] || have_promtool || needs_promtool=yes
[ $for_tests = no ] || have_chromium || needs_chromium=yes
[ $for_tests = no ] || have_faketime || needs_faketime=yes
if [ $for_bench = yes ]; then
    have webdis || needs_webdis=yes
    have wrk || missing+=(wrk)
fi
[ $for_tests$for_bench = nono ] || have valgrind || needs_valgrind=yes

if [ ${#missing[@]} -eq 0 ] && [ "$needs_postgres$needs_redis" = nono ]; then
    # Nothing but a test each needs wal2json, Python, promtool, Chromium, faketime and valgrind: not worth a failure.
    case "$needs_wal2json$needs_python$needs_promtool$needs_chromium$needs_webdis$needs_faketime$needs_valgrind" in
        *yes*) ;;
        *) exit 0 ;;
    esac
fi

if ! have apt-get; then
    [ "$needs_postgres$needs_redis${missing[*]:-}" != nono ] || exit 0
    fail "this is no Debian or Ubuntu: install a C compiler, make, Postgres $OLDEST_POSTGRES or later" \
        "(server programs; set UNSTALE_PG_BIN to their folder if it is not found)," \
        "Redis 7 or later and, for one test each, Python 3.10 or later, wal2json, promtool, libfaketime, valgrind and Chromium with its driver; then try again"
fi
if [ "$(id -u)" -ne 0 ] && ! have sudo; then
    fail "needs root to install ${missing[*]:-} $([ $needs_postgres = no ] || echo postgresql)" \
        "$([ $needs_redis = no ] || echo redis-server): run scripts/setup.sh as root once"
fi

version=$(packaged_postgres)
if [ -z "$version" ] || { [ $needs_redis = yes ] && ! in_lists redis-server; }; then
    update_lists
    version=$(packaged_postgres)
fi

if [ $needs_postgres = yes ]; then
    [ "${version:-0}" -ge "$OLDEST_POSTGRES" ] || fail \
        "this system packages Postgres ${version:-not at all}, and $OLDEST_POSTGRES or later is needed:" \
        "add the PostgreSQL project's own archive (https://wiki.postgresql.org/wiki/Apt), then try again"
    missing+=("postgresql-$version")
    # Read by the package's scripts: no default cluster, which would run and take port 5432.
    meanwhile /etc/postgresql-common/createcluster.d/unstale-setup.conf 644 \
        'create_main_cluster = false'
fi
if [ $needs_redis = yes ]; then missing+=(redis-server); fi
if [ $needs_python = yes ]; then missing+=(python3 python3-venv); fi

keep_services_down
if [ ${#missing[@]} -gt 0 ]; then apt_install "${missing[@]}"; fi
# A package enables its service even where it may not start it.
disable() {
    [ -d /run/systemd/system ] || return 0
    as_root systemctl disable --now --quiet "$1" || say "$1's own service stays enabled"
}
if [ $needs_redis = yes ]; then disable redis-server; fi

# Apart from the rest: one test needs it, and it brings a server that must not run.
if [ $needs_promtool = yes ]; then
    in_lists prometheus || update_lists
    if in_lists prometheus; then
        apt_install prometheus
        disable prometheus
    else
        say "no package of prometheus: the test of the alerts will say so"
    fi
fi

if [ $needs_faketime = yes ]; then
    in_lists faketime || update_lists
    if in_lists faketime; then
        apt_install faketime
    else
        say "no package of faketime: the tests that set a clock will say so"
    fi
fi

if [ $needs_valgrind = yes ]; then
    in_lists valgrind || update_lists
    if in_lists valgrind; then
        apt_install valgrind
    else
        say "no package of valgrind: what counts instructions will say so"
    fi
fi

if [ $needs_webdis = yes ]; then
    in_lists webdis || update_lists
    apt_install webdis
    disable webdis
fi

if [ $needs_chromium = yes ]; then
    in_lists chromium-driver || update_lists
    if in_lists chromium-driver; then
        apt_install chromium chromium-driver
    else
        say "no package of chromium-driver: the test of the console will say so"
    fi
fi

if ! have_wal2json; then
    version=$(server_version "$(postgres_folder)")
    if in_lists "postgresql-$version-wal2json"; then
        apt_install "postgresql-$version-wal2json"
    else
        say "no package of wal2json for Postgres $version: the test that compares with it will say so"
    fi
fi

[ -n "$(postgres_folder)" ] || fail "Postgres $OLDEST_POSTGRES or later is still not to be found: set UNSTALE_PG_BIN"
have_python || say "python3 is missing, older than 3.10, or makes no virtual environments: the test that runs Django will say so"
have_redis || fail "redis-server is still not to be found: set UNSTALE_REDIS_SERVER"
