# Holds the admin listener to its own description:   openapi.py URL TOKEN REQUEST-ID
import json
import sys
import urllib.error
import urllib.request

import jsonschema
from openapi_spec_validator import validate

base, token, request_id = sys.argv[1:]


def ask(path, method="GET", body=None, with_token=True):
    request = urllib.request.Request(base + path, method=method, data=None if body is None else json.dumps(body).encode())
    if with_token:
        request.add_header("authorization", f"Bearer {token}")
    if body is not None:
        request.add_header("content-type", "application/json")
    try:
        answer = urllib.request.urlopen(request, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers.get_content_type(), answer.read()


document = json.loads(ask("/openapi.json", with_token=False)[2])
validate(document)
known = {"{id}": request_id, "{scope}/{id}": "project/vip_project"}
asked = 0
for path, methods in document["paths"].items():
    if path == "/events":
        continue  # It has no end.
    for method, described in methods.items():
        real = path.replace("{scope}/{id}", known["{scope}/{id}"]).replace("{id}", known["{id}"])
        body = {"user": "user_vip_01"} if (method, path) == ("post", "/keys") else {} if "requestBody" in described else None
        status, kind, answer = ask(real, method.upper(), body)
        response = described["responses"].get(str(status))
        assert response, f"{method} {real} answers {status}, which is not described: {answer[:300]!r}"
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        content = response["content"]
        assert kind in content, f"{method} {real} is {kind}"
        if kind == "application/json":
            try:
                jsonschema.validate(json.loads(answer), content[kind]["schema"])
            except jsonschema.ValidationError as error:
                raise SystemExit(f"{method} {real}: {error.message} in {list(error.path)}")
        asked += 1
        wants_token = described.get("security") != []
        if wants_token:
            assert ask(real, method.upper(), body, with_token=False)[0] == 401, f"{method} {real} is open"
assert asked >= 25, asked
print("openapi ok", asked)
