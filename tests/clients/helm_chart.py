# Helm's own linter and renderer over the chart:   helm_chart.py CHART OUTPUT-DIRECTORY
import json
import pathlib
import sys

import helm_python
import yaml

chart_dir, out = sys.argv[1], pathlib.Path(sys.argv[2])
report = helm_python.lint(chart_dir, strict=True)
told = [message for message in report["messages"] if message["severity"] > 1] + report["errors"]
assert not told, told
chart = helm_python.Chart.load(chart_dir)
everything = {
    "replicaCount": 3,
    "databaseSecret": "database",
    "adminTokenSecret": "token",
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "env": [{"name": "VLLM_KEY", "value": "x"}],
    "persistence": {"storageClass": "fast"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
}
kinds = set()
for name, values in (("plain", {}), ("everything", everything)):
    documents = []
    for path, text in chart.render(values=values, name="demo").items():
        if path.endswith(".yaml"):
            documents += [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        assert document["apiVersion"] and document["kind"] and document["metadata"]["name"].startswith("demo-sluice"), document
        kinds.add(document["kind"])
    if name == "plain":
        config = next(document for document in documents if document["kind"] == "ConfigMap")
        for file, text in config["data"].items():
            (out / file).write_text(text)
    pods = next(document for document in documents if document["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    container = pods["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert pods["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
wanted = {"ConfigMap", "Service", "StatefulSet", "PodDisruptionBudget", "HorizontalPodAutoscaler", "ServiceMonitor"}
assert kinds == wanted, kinds
for broken in ({"replicaCount": 2}, {"autoscaling": {"enabled": True}}):
    try:
        chart.render(values=broken, name="demo")
    except helm_python.HelmError as error:
        assert "databaseSecret" in str(error), error
    else:
        raise AssertionError(f"{broken} is rendered")
print("chart ok", helm_python.helm_sdk_version() if hasattr(helm_python, "helm_sdk_version") else "")
