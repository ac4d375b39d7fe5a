"""Breaks each alert in every way below, and says which break no case of tests/promtool sees.

    python tests/mutate_rules.py                 # all; some minutes
    python tests/mutate_rules.py BedrockQuotaNear

Exit codes: 0 every break is seen, 1 some are not, 2 no such alert, or the cases fail unbroken.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "collector" / "rules"
CASES = ROOT / "tests" / "promtool"
Break = tuple[str, str, str]  # the alert, what is broken, thresholds.yaml and alerts.yaml


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("alerts", nargs="*", help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="at once (2)")
    asked = parser.parse_args()
    build = [sys.executable, str(ROOT / "collector/tools/build"), "--where"]
    where = subprocess.run(build, capture_output=True, text=True, check=True).stdout.strip()
    promtool = Path(where) / "promtool"
    data = yaml.safe_load((RULES / "alerts.yaml").read_text())
    names = [rule["alert"] for group in data["groups"] for rule in group["rules"]]
    unknown = set(asked.alerts) - set(names)
    if unknown:
        print(f"no such alert: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
        return 2
    wanted = [name for name in names if name in (asked.alerts or names)]
    bad = [name for name in wanted if not passes(promtool, name, {})]
    if bad:
        print(f"the cases of {', '.join(bad)} fail, or there are none: mend them first")
        return 2
    breaks = [(name, *rest) for name in wanted for rest in broken(name)]
    with ThreadPoolExecutor(asked.jobs) as pool:
        unseen = 0
        for (name, what, _), lived in zip(
            breaks, pool.map(lambda one: passes(promtool, one[0], one[2]), breaks), strict=True
        ):
            unseen += lived
            print(f"{'NOT SEEN' if lived else 'seen    '}  {name}: {what}", flush=True)
    print(f"{len(breaks)} breaks, {unseen} not seen")
    return 1 if unseen else 0


def broken(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what is broken, and the files that are other for it."""
    alerts = (RULES / "alerts.yaml").read_text()
    thresholds = (RULES / "thresholds.yaml").read_text()
    rule = rule_of(name)
    expr = rule["expr"]
    for threshold in sorted(set(re.findall(r"bedrock:threshold:\w+", expr))):
        zero = re.search(rf"record: {threshold}\n\s+expr: bedrock:\w+ \+ 0\n", thresholds)
        for factor in ("+ 1", "- 1") if zero else ("* 3", "/ 3"):
            other = re.sub(
                rf"(record: {threshold}\n\s+expr: )(bedrock:\w+) \+ (\S+)",
                rf"\1\2 + (\3 {factor})",
                thresholds,
            )
            assert other != thresholds
            yield f"{threshold} {factor}", {"thresholds.yaml": other}
    for index, sign in enumerate(re.finditer(r" (>|<=|<|==) ", expr)):
        turned = {">": "<", "<=": ">", "<": ">", "==": ">"}[sign[1]]
        other = f"{expr[: sign.start(1)]}{turned}{expr[sign.end(1) :]}"
        yield f"comparison {index + 1} {sign[1]} -> {turned}", changed(alerts, name, expr=other)
    for index, part in enumerate(parts_of(expr)):
        if part.strip() and len(parts_of(expr)) > 1 and index:
            kept = expr.replace(part, "", 1)
            yield f"without {' '.join(part.split())!r}", changed(alerts, name, expr=kept)
    for field in ("for", "keep_firing_for"):
        if field in rule:
            yield f"without {field}", changed(alerts, name, **{field: "0s"})
            yield f"{field} of an hour", changed(alerts, name, **{field: "7h"})
    for field in ("labels", "annotations"):
        for key, text in rule[field].items():
            other = {**rule[field], key: f"{text}."}
            yield f"another {key}", changed(alerts, name, **{field: other})


def parts_of(expr: str) -> list[str]:
    """Split an expression before each `and` and `unless` of the outermost level."""
    parts, depth, start = [], 0, 0
    for found in re.finditer(r"[()]|\b(?:and|unless)\b", expr):
        if found[0] in "()":
            depth += 1 if found[0] == "(" else -1
        elif depth == 0:
            parts.append(expr[start : found.start()])
            start = found.start()
    return [*parts, expr[start:]]


def rule_of(name: str) -> dict[str, Any]:
    data = yaml.safe_load((RULES / "alerts.yaml").read_text())
    return next(
        rule for group in data["groups"] for rule in group["rules"] if rule["alert"] == name
    )


def changed(alerts: str, name: str, **fields: Any) -> dict[str, str]:
    """Return alerts.yaml with other fields of one alert."""
    data = yaml.safe_load(alerts)
    for group in data["groups"]:
        for rule in group["rules"]:
            if rule["alert"] == name:
                rule.update(fields)
    return {"alerts.yaml": yaml.safe_dump(data, sort_keys=False)}


def passes(promtool: Path, name: str, files: dict[str, str]) -> bool:
    """Tell whether every case that names the alert passes with these files in place of ours."""
    cases = [path for path in sorted(CASES.glob("*.yaml")) if name in path.read_text()]
    rules = {
        path.name: yaml.safe_load(files.get(path.name, path.read_text()))
        for path in RULES.glob("*.yaml")
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path in cases:
            text = path.read_text().replace("../../collector/rules", str(folder))
            (folder / "cases.yaml.test").write_text(text)
            for file, data in only(rules, text).items():
                (folder / file).write_text(yaml.safe_dump(data, sort_keys=False))
            done = subprocess.run(
                [promtool, "test", "rules", folder / "cases.yaml.test"], capture_output=True
            )
            if done.returncode:
                return False
    return bool(cases)


def only(rules: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the rules that a text names, and those that they need: the others only cost time."""
    every = [rule for data in rules.values() for group in data["groups"] for rule in group["rules"]]
    needed: set[str] = set()
    texts = [text]
    while texts:
        words = set(re.findall(r"\bbedrock\w*(?::\w+)+|\bBedrock\w+", texts.pop())) - needed
        needed |= words
        texts += [rule["expr"] for rule in every if name_of(rule) in words]
    return {
        file: {
            "groups": [
                {**group, "rules": [rule for rule in group["rules"] if name_of(rule) in needed]}
                for group in data["groups"]
            ]
        }
        for file, data in rules.items()
    }


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


if __name__ == "__main__":
    sys.exit(main())
