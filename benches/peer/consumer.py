"""Invalidation as people write it by hand: wal2json, and a DEL for each change.

No gate, no lease, no certificate, no gap: what it deletes may be filled again with what was
read before. It is what Unstale's speed is measured against.
"""

import json
import sys

import psycopg2
import psycopg2.extras
import redis


def main(dsn: str, slot: str, redis_url: str, table: str, prefix: str) -> None:
    cache = redis.Redis.from_url(redis_url)
    connection = psycopg2.connect(dsn, connection_factory=psycopg2.extras.LogicalReplicationConnection)
    cursor = connection.cursor()
    cursor.create_replication_slot(slot, output_plugin="wal2json")
    options = {"format-version": "2", "include-transaction": "false", "add-tables": f"public.{table}"}
    cursor.start_replication(slot_name=slot, options=options, decode=True)
    print("ready", flush=True)

    def consume(message: psycopg2.extras.ReplicationMessage) -> None:
        change = json.loads(message.payload)
        columns = change.get("columns") or change.get("identity") or []
        for column in columns:
            if column["name"] == "id":
                cache.delete(f"{prefix}{column['value']}")
        message.cursor.send_feedback(flush_lsn=message.data_start)

    cursor.consume_stream(consume)


if __name__ == "__main__":
    main(*sys.argv[1:])
