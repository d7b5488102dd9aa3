#!/bin/bash
# Captures pgoutput's bytes from a real, private Postgres (15 or later) into this folder:
#
#     PG_BIN=/path/to/postgresql/bin tests/golden/capture.sh
#
# As root it runs the server as the user postgres. Each NAME.sql here becomes a
# NAME.golden, a text of these lines (`#` is a comment):
#
#     oid NAME OID            what the server calls a relation or a type of the scenario
#     commit XID MICROS       when the server says that it committed (since 2000-01-01)
#     message LSN XID HEX     one message, with the position and the transaction that
#                             pg_logical_slot_peek_binary_changes() gives beside it
#
# The tests compare what is decoded with the scenario and with those facts, so a
# new capture needs no change to them, unless a server cuts its blocks elsewhere.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${PG_BIN:-$(pg_config --bindir)}
work=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then
    chown postgres "$work"
    as=(runuser -u postgres --)
fi
cd "$work"
finish() {
    "${as[@]}" "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

"${as[@]}" "$bin/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --locale=C -N >/dev/null
"${as[@]}" tee -a "$work/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work'
fsync = off
wal_level = logical
max_prepared_transactions = 5
track_commit_timestamp = on
logical_decoding_work_mem = 64kB
CONF
"${as[@]}" "$bin/pg_ctl" -D "$work/data" -l "$work/log" -w start >/dev/null

sql() { "${as[@]}" "$bin/psql" -h "$work" -U postgres -XqAtv ON_ERROR_STOP=1 -F ' ' "$@"; }

# Runs a scenario in a database of its own and writes what pgoutput makes of it.
capture() { # NAME TWO_PHASE PROTOCOL STREAMING [OPTION VALUE]...
    local name=$1 two_phase=$2 protocol=$3 streaming=$4
    shift 4
    local options="'proto_version', '$protocol', 'publication_names', 'everything', 'messages', 'true'"
    [ "$streaming" = off ] || options+=", 'streaming', '$streaming'"
    while [ $# -gt 0 ]; do
        options+=", '$1', '$2'"
        shift 2
    done
    sql -d postgres -c "CREATE DATABASE $name"
    sql -d "$name" >/dev/null <<SQL
        CREATE PUBLICATION everything FOR ALL TABLES;
        SELECT pg_create_logical_replication_slot('$name', 'pgoutput', false, $two_phase);
SQL
    sql -d "$name" >/dev/null < "$here/$name.sql"
    # A run of more than three changes of one kind, transaction and relation says
    # nothing new: a streamed transaction must be large, its capture need not be.
    sql -d "$name" > "$here/$name.golden" <<SQL
        SELECT '# Postgres ' || current_setting('server_version_num')
            || ', proto_version $protocol, streaming $streaming';
        SELECT 'oid', relname, oid FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY oid;
        SELECT 'oid', typname, oid FROM pg_type
         WHERE oid = 'pg_catalog.pg_rules'::regtype
            OR typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd') ORDER BY oid;
        CREATE TEMPORARY TABLE captured AS
        SELECT row_number() OVER () AS n, lsn, xid, data
          FROM pg_logical_slot_peek_binary_changes('$name', NULL, NULL, $options);
        SELECT 'commit', xid,
               (extract(epoch FROM pg_xact_commit_timestamp(xid)) * 1000000)::bigint - 946684800000000
          FROM captured WHERE xid <> '0' AND pg_xact_commit_timestamp(xid) IS NOT NULL
         GROUP BY xid ORDER BY min(n);
        SELECT 'message', lsn, xid, encode(data, 'hex')
          FROM (SELECT *, row_number() OVER (PARTITION BY kind, run) AS nth
                  FROM (SELECT *, n - row_number() OVER (PARTITION BY kind ORDER BY n) AS run
                          FROM (SELECT *, substring(data FOR 9) AS kind FROM captured) k) r) c
         WHERE nth <= 3 OR get_byte(data, 0) NOT IN (ascii('I'), ascii('U'), ascii('D')) ORDER BY n;
SQL
    sql -d postgres -c "SELECT pg_drop_replication_slot('$name')" >/dev/null
}

capture identities false 1 off
capture values false 1 off
capture binary_values false 1 off binary true
capture transactions false 1 off
capture streamed false 2 on
capture prepared true 3 on two_phase true
