"""Whether bodies are as an OpenAPI document says.

Reads {"document", "cases": [{"path", "method", "status", "body"}]} and prints what is wrong, a
line each. A member that the document does not describe is wrong, too: it would have no type.
"""

import copy
import json
import sys

import jsonschema_rs


def strict(schema):
    """Allows no member that is not described, wherever some are."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        schema["unevaluatedProperties"] = False
    return schema


given = json.load(sys.stdin)
document = copy.deepcopy(given["document"])
document["components"]["schemas"] = strict(document["components"]["schemas"])
document["paths"] = {path: strict(item) for path, item in document["paths"].items()}
# What another schema adds to these must stay allowed there.
for open_ended in ("Figures",):
    document["components"]["schemas"][open_ended].pop("unevaluatedProperties", None)
for case in given["cases"]:
    answer = document["paths"][case["path"]][case["method"]]["responses"][case["status"]]
    schema = answer["content"]["application/json"]["schema"]
    validator = jsonschema_rs.Draft202012Validator(
        {**schema, "components": document["components"]}, validate_formats=True
    )
    for error in validator.iter_errors(case["body"]):
        print(f"{case['method']} {case['path']} {list(error.instance_path)}: {error.message}")
