# Holds configuration files to the schemas that `sluice check --schema` prints:   schemas.py SCHEMAS CONFIG-DIRECTORY
import json
import pathlib
import sys

import jsonschema
import yaml

schemas = json.loads(pathlib.Path(sys.argv[1]).read_text())
config = pathlib.Path(sys.argv[2])
for name, schema in schemas.items():
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((config / name).read_text()) or {}, schema)


def refused(name, change):
    document = yaml.safe_load((config / name).read_text())
    change(document)
    try:
        jsonschema.validate(document, schemas[name])
    except jsonschema.ValidationError:
        return
    raise SystemExit(f"{name}: what is wrong is not seen")


refused("limits.yaml", lambda limits: limits["global_limits"].update(max_active_request=1))
refused("models.yaml", lambda models: models["models"]["simulated-small"].pop("backend"))
refused("gateway.yaml", lambda gateway: gateway.update(identity="anything"))
print("schemas ok", len(schemas))
