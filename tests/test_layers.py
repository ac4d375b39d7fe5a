"""The structure: arrows point downward, the reading layer is pure, importing is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import otel_bedrock

PACKAGE = Path(otel_bedrock.__file__).parent

# Each module may import those of its own line and of the lines above it.
LAYERS = (
    # words
    {
        "version",
        "frozen",
        "paths",
        "utf8",
        "model_id",
        "call",
        "config",
        "setting_values",
        "shield",
    },
    # reading
    {
        "operations",
        "providers",
        "shapes",
        "usage",
        "answer",
        "errors",
        "events",
        "request",
        "quota",
        "context_window",
        "budget",
        "budget_bound",
        "budget_limit",
        "budget_store",
        "pricing",
        "price_table",
        "price_library",
        "countable",
        "messages_api",
        "count_input",
        "trimming",
        "content.media",
        "content.excerpt",
        "content.parts",
        "content.pieces",
        "content.messages",
        "content.deltas",
    },
    # telling
    {
        "attribution",
        "correlation",
        "signals",
        "recorder",
        "recording",
        "past_call",
        "costs",
        "gauges",
        "streams",
        "bodies",
        "aio_streams",
        "abandoned",
        "nesting",
        "sdk",
        "content",
        "content.gate",
        "content.details",
    },
    # joining
    {"admission", "budget_redis", "observers", "bracket", "patch", "instrumentor", "lookup"}
    | {"control_plane", "mantle", "asking", "counting", "preflight", "service_quotas"}
    | {"elsewhere", "threads"},
)
PURE = LAYERS[0] | LAYERS[1]
SIDE_DOORS = {
    "aws_lambda",
    "testing",
    "cli",
    "invocation_logs",
    "receiver",
    "otlp",
    "otlp_server",
    "received",
    "__main__",
    "__init__",
}


def _modules():
    """Every module by its name; those of `content` are `content.messages` and so on."""
    modules = {path.stem: path for path in PACKAGE.glob("*.py")}
    modules["content"] = PACKAGE / "content/__init__.py"
    for path in (PACKAGE / "content").glob("[a-z]*.py"):
        modules[f"content.{path.stem}"] = path
    return modules


def _target(imported):
    """Return which of our modules an import names."""
    name = imported.removeprefix("otel_bedrock.")
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "content" and len(parts) > 1 else parts[0]


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module in ("otel_bedrock", "otel_bedrock.content"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_arrows_point_downward():
    place = {name: index for index, layer in enumerate(LAYERS) for name in layer}
    for name, path in _modules().items():
        if name in SIDE_DOORS:
            continue
        assert name in place, f"{name} stands in no layer"
        for imported in _imports(path):
            target = _target(imported)
            if imported.startswith("otel_bedrock.") and target in place:
                assert place[target] <= place[name], f"{name} imports {target}, which is above it"
            assert target not in SIDE_DOORS or not imported.startswith("otel_bedrock.")


def test_contributing_names_every_module_in_its_layer():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    titles = ("words", "reading", "telling", "joining", "side doors")
    for title, layer in zip(titles, (*LAYERS, SIDE_DOORS), strict=True):
        (row,) = re.findall(rf"^\| {title} \| (.*?) \|", text, re.MULTILINE)
        named = set(re.findall(r"`([\w.]+)/?`", row))
        # `content/` stands in two layers.
        assert {name for name in named if not name.startswith("content")} == {
            name for name in layer if not name.startswith(("content", "__"))
        }


def test_commands_of_the_documents_are_there():
    """`make` targets, and Python where `make` puts it."""
    root = PACKAGE.parent
    targets = re.findall(r"^([a-z0-9-]+):", (root / "Makefile").read_text(), re.MULTILINE)
    for name in ("CONTRIBUTING.md", "README.md", "pyproject.toml", "tests/README.md"):
        text = (root / name).read_text()
        assert set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, re.MULTILINE)) <= set(targets)
        assert not re.search(r"(?<!bin/)python -m pytest", text), name


def test_reading_knows_neither_opentelemetry_nor_botocore():
    for name in PURE & set(_modules()):
        for imported in _imports(_modules()[name]):
            root = imported.partition(".")[0]
            assert root not in ("opentelemetry", "botocore", "boto3", "wrapt"), (
                f"{name}: {imported}"
            )


def test_streams_and_recorder_do_not_know_each_other():
    assert not any("recorder" in name for name in _imports(_modules()["streams"]))
    assert not any("streams" in name for name in _imports(_modules()["recorder"]))


def test_no_provider_is_named_outside_the_tables():
    """What varies by provider is a row: a comparison with a provider's name is a review stop."""
    names = "|".join(sorted(__import__("otel_bedrock.model_id", fromlist=["x"]).PROVIDERS))
    comparison = re.compile(rf"""(==|!=|\bin)\s*\(?["']({names})\b""")
    for name, path in _modules().items():
        assert not comparison.search(path.read_text()), name


def test_all_is_what_init_exports():
    public = {name for name in dir(otel_bedrock) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(otel_bedrock, name), ModuleType)}
    assert set(otel_bedrock.__all__) - {"__version__"} == public - modules


def test_importing_brings_nothing_heavy():
    code = "import sys, otel_bedrock; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = result.stdout.split()
    heavy = (
        "boto3",
        "botocore",
        "requests",
        "grpc",
        "rich",
        "google",
        "opentelemetry.sdk",
        "opentelemetry.exporter",
        "aiobotocore",
        "otel_bedrock.cli",
        "otel_bedrock.testing",
        "otel_bedrock.invocation_logs",
    )
    assert [name for name in loaded if name.startswith(heavy)] == []
