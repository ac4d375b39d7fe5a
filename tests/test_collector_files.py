"""The files of collector/: schemas, and that they agree with each other and with the library."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from otel_bedrock import model_id, signals

COLLECTOR = Path(__file__).resolve().parents[1] / "collector"
README = (COLLECTOR / "README.md").read_text()
VARIABLE = re.compile(r"\$\{env:([A-Z_]+)(?::-(.*?))?\}")
# What collectors and Jaeger read; Prometheus and Alertmanager read no variables.
WITH_VARIABLES = sorted(
    path
    for path in COLLECTOR.rglob("*.yaml")
    if not {"kubernetes", "grafana", "rules", "tools"} & {*path.relative_to(COLLECTOR).parts}
)
CONFIGS = [one for one in WITH_VARIABLES if re.search("(?m)^service:$", one.read_text())]
KUBERNETES = sorted(COLLECTOR.glob("kubernetes/*.yaml"))
# Of the Prometheus Operator, whose schemas Kubernetes does not have.
OPERATOR = {"ServiceMonitor": "endpoints", "PodMonitor": "podMetricsEndpoints"}


def load(path):
    return yaml.safe_load(path.read_text())


def manifests():
    return [
        (path.name, made) for path in KUBERNETES for made in yaml.safe_load_all(path.read_text())
    ]


def name(path):
    return str(path.relative_to(COLLECTOR))


@pytest.mark.parametrize("path", sorted(COLLECTOR.rglob("*.yaml")), ids=name)
def test_every_file_is_yaml_without_a_key_twice(path):
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{path}:{node.start_mark.line + 1}: {twice}"
        loader.flatten_mapping(node)
        return dict(loader.construct_pairs(node))

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert list(yaml.load_all(path.read_text(), Strict))


def test_compose_fits_its_schema():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(COLLECTOR / "compose.yaml")),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_pins_images_publishes_on_loopback_and_knows_its_health():
    compose = load(COLLECTOR / "compose.yaml")
    services = compose["services"]
    assert {"agent", "gateway", "jaeger", "prometheus", "alertmanager", "grafana"} <= set(services)
    watched = services["health"]["depends_on"]
    for service, made in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+$", made["image"]), service
        assert all(port.startswith("127.0.0.1:") for port in made.get("ports", ()))
        assert "healthcheck" in made or service in {*watched, "logs"}, service
        for volume in made.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (COLLECTOR / source).exists(), f"{service}: {source}"
            elif not source.startswith((".", "$")):
                assert source in compose["volumes"]
        known = _variables()
        for variable in made.get("environment", ()):
            assert variable in known or variable.startswith("GF_"), variable
        for part in made.get("command", ()):
            if "/etc/bedrock/" in part:
                assert (COLLECTOR / part.partition("/etc/bedrock/")[2]).is_file(), part


@pytest.mark.parametrize(
    "manifest", [pytest.param(made, id=f"{path}-{made['kind']}") for path, made in manifests()]
)
def test_kubernetes_takes_the_manifests(manifest):
    if manifest["kind"] in OPERATOR:
        assert manifest["apiVersion"] == "monitoring.coreos.com/v1"
        assert set(manifest["spec"]) == {"selector", OPERATOR[manifest["kind"]]}
        return
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_manifests_fit_together():
    """Selectors select, ports have names, monitors find them, config maps are the tested files."""
    made = {(one["kind"], one["metadata"]["name"]): one for _, one in manifests()}
    pods = {}
    for (kind, _), one in made.items():
        if kind not in ("DaemonSet", "Deployment"):
            continue
        template = one["spec"]["template"]
        labels = template["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"] == labels
        (container,) = template["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        pods[labels["app.kubernetes.io/name"]] = ports
        assert {
            container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")
        }
        known = {*_variables(), "POD_IP", "GOMEMLIMIT"}
        assert {variable["name"] for variable in container["env"]} <= known
    for (kind, service), one in made.items():
        selector = one.get("spec", {}).get("selector", {})
        chosen = selector.get("matchLabels", selector).get("app.kubernetes.io/name")
        if kind == "Service":
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= pods[chosen]
        elif kind == "ServiceMonitor":
            ports = {port["name"] for port in made["Service", chosen]["spec"]["ports"]}
            assert {point["port"] for point in one["spec"]["endpoints"]} <= ports
        elif kind == "PodMonitor":
            assert {point["port"] for point in one["spec"]["podMetricsEndpoints"]} <= pods[chosen]
        elif kind == "HorizontalPodAutoscaler":
            target = one["spec"]["scaleTargetRef"]
            assert "replicas" not in made[target["kind"], target["name"]]["spec"], service
    kustomization = load(COLLECTOR / "kustomization.yaml")
    listed = {*kustomization["resources"]}
    assert listed == {name(path) for path in KUBERNETES}
    maps = {one["name"]: one["files"] for one in kustomization["configMapGenerator"]}
    assert all((COLLECTOR / file).is_file() for files in maps.values() for file in files)
    wanted = {
        volume["configMap"]["name"]
        for (kind, _), one in made.items()
        if kind in ("DaemonSet", "Deployment")
        for volume in one["spec"]["template"]["spec"]["volumes"]
        if "configMap" in volume
    }
    assert wanted == set(maps)
    # Everywhere the release that the tests run.
    (release,) = {one.rpartition(" v")[2] for one in _components() if "contrib" in one}
    assert {image["newTag"] for image in kustomization["images"]} == {release}
    compose = (COLLECTOR / "compose.yaml").read_text()
    assert f"opentelemetry-collector-contrib:{release}\n" in compose


def _components():
    manifest = load(COLLECTOR / "builder-config.yaml")
    kinds = ("receivers", "processors", "connectors", "exporters", "extensions")
    return [row["gomod"] for kind in kinds for row in manifest[kind]]


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_pipelines_name_what_is_configured(path):
    """An overlay on its own may lean on the file that it is put over."""
    below = {"overlays": ["agent.yaml", "gateway.yaml", "logs.yaml", "jaeger.yaml"]}
    files = [COLLECTOR / one for one in below.get(path.relative_to(COLLECTOR).parts[0], ())]
    known = {}
    for config in map(load, [*files, path]):
        for kind in ("receivers", "processors", "exporters", "connectors", "extensions"):
            known.setdefault(kind, set()).update(config.get(kind) or {})
    for kind in ("receivers", "exporters"):
        known[kind] |= known["connectors"]
    service = load(path)["service"]
    assert set(service.get("extensions", ())) <= known["extensions"]
    for pipeline, made in service.get("pipelines", {}).items():
        for kind, names in made.items():
            assert set(names) <= known[kind], f"{pipeline}: {kind}"
        if "processors" in made and "memory_limiter" in made["processors"]:
            assert made["processors"][0] == "memory_limiter"


def _variables():
    """Return each variable that a configuration reads, with its defaults in the files."""
    found = {}
    for path in WITH_VARIABLES:
        for variable, default in VARIABLE.findall(path.read_text()):
            found.setdefault(variable, {}).setdefault(default, set()).add(path)
    return found


def test_readme_has_every_setting_with_its_defaults():
    rows = {}
    for line in README.splitlines():
        found = re.match(r"\| `([A-Z_]+)` \| (.*?) \| (\S.*) \|$", line)
        if found:
            assert found[1] not in rows, f"{found[1]} twice"
            rows[found[1]] = set(re.findall(r"`([^`]*)`", found[2]))
    wanted = {variable: set(defaults) for variable, defaults in _variables().items()}
    assert rows == wanted


def test_every_file_has_its_place_in_readme():
    for path in COLLECTOR.iterdir():
        if path.name not in ("README.md", "screenshots"):
            assert f"`{path.name}" in README, path.name
    for path in COLLECTOR.glob("overlays/**/*.yaml"):
        assert f"`{path.relative_to(COLLECTOR)}`" in README


def test_masking_fits_the_table_of_attributes():
    """What is content is masked, and nothing else that we emit; usage is left alone twice over."""
    redaction = load(COLLECTOR / "agent.yaml")["processors"]["redaction"]
    blocked = [re.compile(one) for one in redaction["blocked_key_patterns"]]
    ignored = [re.compile(one) for one in redaction["ignored_key_patterns"]]
    assert all(one.pattern.startswith("^") and one.pattern.endswith("$") for one in blocked)
    for one in signals.ATTRIBUTES:
        content = one.source == signals.CONTENT
        assert any(pattern.search(one.key) for pattern in blocked) == content, one.key
        if ".usage." in one.key:
            assert any(pattern.search(one.key) for pattern in ignored), one.key


def test_the_gateways_guard_leaves_our_labels_alone():
    text = (COLLECTOR / "gateway.yaml").read_text()
    (keys,) = re.findall(r'delete_matching_keys\(datapoint.attributes, "(.*)"\)', text)
    dropped = re.compile(keys.replace("\\\\", "\\"))
    labels = [one.key for one in signals.ATTRIBUTES if one.on_metrics]
    labels += [signals.TTL, signals.MISSING_REASON, signals.SITE, signals.POLICY]
    labels += ["bedrock.attribution.tenant", "bedrock.attribution.user"]
    assert labels
    assert [one for one in labels if dropped.search(one)] == []
    assert dropped.search("aws.request_id")
    assert dropped.search("bedrock.model.arn")


def test_logs_count_into_our_metrics_and_know_our_providers():
    config = load(COLLECTOR / "logs.yaml")
    units = {one.name: one.unit for one in signals.METRICS}
    labels = {one.key for one in signals.ATTRIBUTES if one.on_metrics}
    labels |= {signals.TTL, signals.MODALITY, "bedrock.usage.origin"}
    for made in config["connectors"]["signal_to_metrics"]["logs"]:
        assert units[made["name"]] == made["unit"]
        assert {one["key"] for one in made["attributes"]} <= labels
    text = (COLLECTOR / "logs.yaml").read_text()
    lists = re.findall(r"\(\?:(ai21\|[a-z0-9|]+)\)", text)
    assert len(lists) == 2
    for one in lists:
        assert set(one.split("|")) == model_id.PROVIDERS
