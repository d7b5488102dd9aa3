"""Django as a process that answers: a request a line on standard input, as JSON
[name, arguments…], an answer a line on standard output, {"ok": …} or {"error": …}.

It is one process for a whole test, as an application server is.
"""

import json
import os
import sys
import traceback

import django
from django.apps import apps
from django.core.cache import cache
from django.db import connection

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
django.setup()

import truth  # noqa: E402  (models load only after the set-up)
from django.contrib.auth.models import Group  # noqa: E402
import signals  # noqa: E402
import writes  # noqa: E402


def get(keys):
    """The values that Django finds; a key that is not there is left out."""
    return cache.get_many(keys)


def describe(key):
    """An entry as Django sees it by the key of the application."""
    return {"redis_key": str(cache.make_key(key)), "value": cache.get(key), "ttl": cache.ttl(key)}


def write(name):
    return writes.WRITES[name]()


def names():
    return list(writes.WRITES)


def tables():
    """The columns of the demo's tables, and of those that Django makes of the models."""
    models = [model for model in apps.get_models() if model is not Group]
    with connection.cursor() as cursor:
        cursor.execute("create schema django; set search_path = django")
    with connection.schema_editor() as editor:
        for model in models:
            editor.create_model(model)
    found = {}
    with connection.cursor() as cursor:
        for name, schema in (("demo", "public"), ("django", "django")):
            cursor.execute(
                """select table_name, column_name, udt_name, is_nullable, character_maximum_length,
                          numeric_precision, numeric_scale, identity_generation
                     from information_schema.columns
                    where table_schema = %s
                      and table_name not like 'auth\\_group%%' and table_name <> 'heartbeat'
                    order by table_name, column_name""",
                [schema],
            )
            found[name] = cursor.fetchall()
        cursor.execute("drop schema django cascade; reset search_path")
    assert len({row[0] for row in found["demo"]}) == 10
    return found


COMMANDS = {
    "tables": tables,
    "connect_signals": signals.connect,
    "fill": signals.fill,
    "prepare": writes.prepare,
    "unusual_rows": writes.unusual_rows,
    "entries": truth.entries,
    "truth": truth.compute,
    "get": get,
    "describe": describe,
    "writes": names,
    "write": write,
}


def main():
    answers = sys.stdout
    sys.stdout = sys.stderr  # what anybody else prints is no answer
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"ok": COMMANDS[name](*arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


main()
