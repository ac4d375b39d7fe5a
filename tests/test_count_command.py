"""`otel-bedrock count`, as a user runs it against a fake Bedrock."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import sys
from decimal import Decimal

import boto3
import pytest

from otel_bedrock import asking, service_quotas
from otel_bedrock.cli import count as command
from otel_bedrock.cli.commands import CommandError
from otel_bedrock.cli.estimate import money, share, tokens
from otel_bedrock.cli.main import main
from otel_bedrock.cli.prompt import read_prompt
from otel_bedrock.countable import TABLE, Memory
from otel_bedrock.pricing import Cost
from otel_bedrock.quota import Quota
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.trimming import trim

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
OPUS = "us.anthropic.claude-opus-4-8"
NOVA = "us.amazon.nova-lite-v1:0"
HELLO = [{"role": "user", "content": [{"text": "What is the capital of France?"}]}]
PRICES = {
    "source": "a test",
    "date": "2026-11-01",
    "models": {
        SONNET: {"input": "3.30", "output": "16.50"},
        HAIKU: {"input": "1.10", "output": "5.50"},
    },
}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(asking, "remembered", Memory())
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def aws(monkeypatch):
    """A fake Bedrock in place of AWS, found by the environment as AWS is."""
    with FakeBedrock() as running:
        if not hasattr(running.client(), "count_tokens"):
            pytest.skip("the installed botocore has no CountTokens")
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", running.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_MANTLE", running.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield running


@pytest.fixture
def bedrock(aws, monkeypatch):
    """The same, with a client that is made in no time."""
    monkeypatch.setattr(command, "_make_client", lambda options: aws.client())
    return aws


@pytest.fixture
def prices(tmp_path, monkeypatch):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(PRICES))
    monkeypatch.setenv("OTEL_BEDROCK_PRICES", str(path))
    return path


@pytest.fixture
def count(capsys, tmp_path, monkeypatch):
    """Run the command on `given`, as a file or as standard input; return (exit code, out, err)."""

    def counting_(*arguments, given=None, piped=False):
        arguments = ["count", *arguments]
        if given is not None:
            raw = given if isinstance(given, bytes) else given.encode()
            if piped:
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
                arguments.append("-")
            else:
                path = tmp_path / "prompt"
                path.write_bytes(raw)
                arguments.append(str(path))
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return counting_


def billed(bedrock, **request):
    """Return what Bedrock bills for the same request."""
    client = bedrock.client()
    if "body" in request:
        client.invoke_model(**request)["body"].read()
    else:
        client.converse(**request)
    return bedrock.bill[-1].input_tokens


# --- what it prints


@pytest.mark.parametrize("piped", [False, True])
def test_a_text_is_counted(aws, prices, count, piped):
    text = "What is the capital of France?"
    code, out, err = count("--model", SONNET, given=text, piped=piped)
    assert (code, err) == (0, "")
    expected = billed(aws, modelId=SONNET, messages=HELLO)
    lines = {line.split("  ")[0].strip(): line for line in out.splitlines()}
    assert f"{expected} tokens" in lines["input"]
    assert f"as {SONNET[3:]}, by bedrock-runtime" in lines["counted"]
    assert "of 200,000 tokens" in lines["context"]
    assert f"${expected * 3.3 / 1e6:.7f}".rstrip("0") in lines["cost"]
    assert "before output (a test, 2026-11-01)" in lines["cost"]
    assert "unknown" in lines["quota"]


def test_every_form_of_a_request_is_counted_as_it_would_be_billed(bedrock, count):
    native = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "How many?"}],
        "system": "Be brief.",
    }
    converse = {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "What is it?"},
                    {"image": {"format": "png", "source": {"bytes": "iVBORw=="}}},
                ],
            }
        ],
        "system": [{"text": "Be brief."}],
        "inferenceConfig": {"maxTokens": 9},
    }
    for given, form, request in (
        (native, "invoke", {"body": json.dumps(native)}),
        (converse, "converse", {}),
        (HELLO, "converse", {"messages": HELLO}),
        ({"modelId": "x", "messages": HELLO}, "converse", {"messages": HELLO}),
    ):
        code, out, _ = count("--model", SONNET, "--json", given=json.dumps(given))
        assert code == 0
        told = json.loads(out)
        assert told["form"] == form
        if given is converse:
            request = json.loads(json.dumps(converse))
            image = request["messages"][0]["content"][1]["image"]
            image["source"]["bytes"] = base64.b64decode("iVBORw==")
        assert told["input_tokens"] == billed(bedrock, modelId=SONNET, **request)


def test_json_that_is_no_request_is_a_text(bedrock, count):
    for text in ('{"name": "value"}', "[1, 2]", '{"messages": "hello"}', "17"):
        code, out, _ = count("--model", SONNET, "--json", given=text)
        assert (code, json.loads(out)["form"]) == (0, "text")
    code, out, _ = count("--model", SONNET, "--json", "--as", "text", given=json.dumps(HELLO))
    assert (code, json.loads(out)["form"]) == (0, "text")


def test_the_file_may_name_the_model(bedrock, count):
    code, out, _ = count("--json", given=json.dumps({"modelId": HAIKU, "messages": HELLO}))
    assert (code, json.loads(out)["model"]) == (0, HAIKU)


def test_a_system_prompt_takes_the_place_of_the_files(bedrock, count):
    given = {"messages": HELLO, "system": [{"text": "A long one. " * 50}]}
    _, out, _ = count("--model", SONNET, "--json", "--system", "Short.", given=json.dumps(given))
    expected = billed(bedrock, modelId=SONNET, messages=HELLO, system=[{"text": "Short."}])
    assert json.loads(out)["input_tokens"] == expected


def test_what_nobody_knows_is_unknown_and_never_zero(bedrock, prices, count):
    code, out, _ = count("--model", OPUS, given="Hello")
    assert code == 0
    assert "by bedrock-mantle" in out
    cost = next(line for line in out.splitlines() if line.startswith("cost"))
    assert "unknown" in cost
    assert "$" not in cost
    _, out, _ = count("--model", OPUS, "--json", given="Hello")
    assert json.loads(out)["cost"] is None
    assert json.loads(out)["quota"] is None


def test_without_a_price_source_there_is_no_cost(bedrock, count, monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    why = "genai-prices is not installed: pip install 'otel-bedrock[cost]'"
    if sys.version_info < (3, 11):
        why = "genai-prices needs Python 3.11"
    code, out, _ = count("--model", SONNET, given="Hello")
    assert code == 0
    assert f"cost     unknown  {why}" in out
    _, out, _ = count("--model", SONNET, "--compare", HAIKU, given="Hello")
    assert f"Cost: {why}" in " ".join(out.split())
    _, _, err = count("--model", SONNET, "--prices", "genai-prices", given="Hello")
    assert err.startswith(f"otel-bedrock count: --prices: {why}")


def test_what_is_piped_has_no_blanks_at_the_end_of_its_lines(bedrock, prices, count, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for more in ([], ["--compare", OPUS, "--compare", NOVA], ["--trim", "1"]):
        _, out, _ = count("--model", SONNET, *more, given=json.dumps(HELLO))
        assert [line for line in out.splitlines() if line != line.rstrip()] == []


def test_a_wrong_price_source_is_named_as_it_was_given(bedrock, count, monkeypatch):
    monkeypatch.setenv("OTEL_BEDROCK_PRICES", "nowhere.json")
    _, _, err = count("--model", SONNET, given="Hello")
    assert err.startswith("otel-bedrock count: OTEL_BEDROCK_PRICES: 'nowhere.json' cannot be read")


def test_the_quota_is_what_the_call_reserves(bedrock, count):
    _, out, _ = count(
        "--model", SONNET, "--quota", "1,000", "--max-tokens", "90", "--json", given="Hello"
    )
    told = json.loads(out)
    reserved = told["input_tokens"] + 90
    assert told["quota"] == {
        "tokens_per_minute": 1000,
        "reserved": reserved,
        "share": reserved / 1000,
    }


def test_the_quota_of_the_environment_is_used(bedrock, count, monkeypatch):
    monkeypatch.setenv("OTEL_BEDROCK_QUOTA_LIMITS", f"{SONNET}=200000")
    _, out, _ = count("--model", SONNET, given="Hello")
    assert "of 200,000 tokens a minute" in out


def test_service_quotas_are_asked_for_a_quota(bedrock, count, monkeypatch):
    asked = []

    def listed(client):
        asked.append(client.meta.region_name)
        name = "Cross-region model inference tokens per minute for Anthropic Claude {}"
        yield Quota(name.format("Sonnet 4.5 V1"), 200_000)
        yield Quota(name.format("Haiku 4.5"), 400_000)

    monkeypatch.setattr(service_quotas, "list_quotas", listed)
    arguments = ["--model", SONNET, "--compare", HAIKU, "--compare", OPUS, "--json"]
    _, out, err = count(*arguments, "--quota", "service-quotas", given="Hello")
    told = json.loads(out)
    rows = [told, *told["compared"]]
    limits = [row["quota"] and row["quota"]["tokens_per_minute"] for row in rows]
    assert (limits, err) == ([200_000, 400_000, None], "")
    assert asked == ["us-east-1"]


def test_a_quota_that_nobody_tells_does_not_hide_the_count(bedrock, count, monkeypatch):
    def denied(client):
        bedrock.fail("AccessDeniedException")
        client.converse(modelId=SONNET, messages=HELLO)
        yield

    monkeypatch.setattr(service_quotas, "list_quotas", denied)
    code, out, err = count("--model", SONNET, "--quota", "service-quotas", given="Hello")
    assert code == 0
    assert "tokens" in out
    assert "servicequotas:ListServiceQuotas" in err


def test_models_are_compared_in_a_table(bedrock, prices, count):
    code, out, _ = count(
        "--model", SONNET, "--compare", HAIKU, "--compare", NOVA, "--compare", HAIKU, given="Hello"
    )
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.startswith("us.")]
    assert [row[0] for row in rows[:3]] == [SONNET, HAIKU, NOVA]
    assert rows[0][1] == rows[1][1]
    assert rows[2][1:3] == ["not", "counted"]
    assert "doesn't support counting tokens" in " ".join(out.split())
    _, out, _ = count("--model", SONNET, "--compare", NOVA, "--json", given="Hello")
    told = json.loads(out)
    assert told["model"] == SONNET
    assert [row["input_tokens"] for row in told["compared"]] == [None]
    assert "cannot be counted" in told["compared"][0]["problem"]


def test_a_model_that_fails_does_not_hide_the_others(bedrock, prices, count):
    bedrock.fail("AccessDeniedException")
    code, out, _ = count("--model", SONNET, "--compare", HAIKU, given="Hello")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("us.")] == ["not", "4"]
    assert "(AccessDeniedException) when calling the CountTokens" in " ".join(out.split())
    bedrock.fail("AccessDeniedException", times=2)
    assert count("--model", SONNET, "--compare", HAIKU, given="Hello")[0] == 1


def test_supported_prints_the_table_with_source_and_date(count):
    code, out, _ = count("--supported")
    assert code == 0
    words = " ".join(out.split())
    assert "Claude 3.5 Haiku bedrock-runtime [1] 2025" in words
    assert "us-east-1, us-east-2" in words
    assert "https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html" in words
    told = json.loads(count("--supported", "--json")[1])
    assert len(told["models"]) == len(TABLE)
    assert len(told["regions"]["bedrock-runtime"]) == 12


# --- trimming

TALK = [
    {
        "role": "user" if index % 2 == 0 else "assistant",
        "content": [{"text": f"Message {index}. " * (index % 4 + 1)}],
    }
    for index in range(21)
]


def test_trim_says_which_messages_have_to_go(bedrock, count):
    code, out, _ = count("--model", SONNET, "--trim", "60", "--json", given=json.dumps(TALK))
    assert code == 0
    told = json.loads(out)["trim"]
    assert told["fits"]
    kept = TALK[told["drop_first"] :]
    assert kept[0]["role"] == "user"
    assert billed(bedrock, modelId=SONNET, messages=kept) == told["input_tokens"] <= 60
    more = TALK[told["drop_first"] - 2 :]
    assert billed(bedrock, modelId=SONNET, messages=more) > 60
    asked = [bill for bill in bedrock.bill if bill.operation == "CountTokens"]
    assert len(asked) == told["counts"] <= 5
    code, out, _ = count("--model", SONNET, "--trim", "60", given=json.dumps(TALK))
    assert f"the first {told['drop_first']} of 21 messages have to go" in " ".join(out.split())
    assert "  0  user       Message 0." in out


def test_trim_of_what_fits_and_of_what_never_will(bedrock, count):
    code, out, _ = count("--model", SONNET, "--trim", "100000", given=json.dumps(TALK))
    assert (code, "It fits 100,000 tokens as it is." in out) == (0, True)
    assert len(bedrock.bill) == 1
    code, out, _ = count("--model", SONNET, "--trim", "2", given=json.dumps(TALK))
    assert code == 4
    assert "It does not fit 2 tokens: without the first 20 of 21" in " ".join(out.split())
    code, out, _ = count("--model", SONNET, "--trim", "0", given="Hello")
    assert code == 4
    assert "It does not fit 0 tokens, and there is no message that can go." in out


def _talk(rng, tools):
    talk = []
    for turn in range(rng.randint(1, 40)):
        talk.append({"role": "user", "content": [{"text": "w " * rng.randint(1, 60)}]})
        if tools and rng.random() < 0.4:
            use = {"toolUse": {"toolUseId": f"t{turn}", "name": "n", "input": {}}}
            talk.append({"role": "assistant", "content": [use]})
            result = {"toolResult": {"toolUseId": f"t{turn}", "content": [{"text": "r"}]}}
            talk.append({"role": "user", "content": [result]})
        talk.append({"role": "assistant", "content": [{"text": "a " * rng.randint(1, 60)}]})
    return talk if rng.random() < 0.3 else talk[:-1]


def _tokens(messages):
    return sum(3 + len(json.dumps(message["content"])) // 4 for message in messages)


@pytest.mark.parametrize("tools", [False, True])
def test_trim_finds_what_trying_them_all_would(tools):
    rng = random.Random(7)
    most = 0
    for _ in range(80):
        talk = _talk(rng, tools)
        base = rng.choice([0, 50, 5000])
        limit = rng.randint(0, base + _tokens(talk))

        def counted(messages, base=base):
            return base + _tokens(messages)

        found = trim(talk, limit, counted)
        starts = [
            at
            for at, message in enumerate(talk)
            if message["role"] == "user" and "toolResult" not in message["content"][0]
        ]
        fitting = [at for at in starts if counted(talk[at:]) <= limit]
        assert found.fits == bool(fitting)
        assert found.dropped == (fitting[0] if fitting else starts[-1])
        assert found.input_tokens == counted(talk[found.dropped :])
        kept = json.dumps(talk[found.dropped :])
        assert kept.count("toolUseId") % 2 == 0
        most = max(most, found.counts)
    assert most <= 10


def test_trim_of_an_anthropic_body_keeps_tool_results_with_their_uses():
    talk = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    assert trim(talk, 3, len).dropped == 4


# --- what goes wrong


@pytest.mark.parametrize(
    ("model", "message", "actions"),
    [
        (
            SONNET,
            "User: me is not authorized to perform: bedrock:CountTokens",
            ["bedrock:CountTokens", "bedrock:InvokeModel"],
        ),
        (
            OPUS,
            "User: me is not authorized to perform: bedrock-mantle:CountTokens",
            ["bedrock-mantle:CountTokens"],
        ),
    ],
)
def test_access_denied_names_the_actions_and_the_resource(bedrock, count, model, message, actions):
    bedrock.fail("AccessDeniedException", message)
    code, out, err = count("--model", model, given="Hello")
    assert (code, out) == (1, "")
    # With one attempt botocore says `(reached max retries: 0)` in between.
    first = err.splitlines()[0]
    said = "An error occurred (AccessDeniedException) when calling the CountTokens operation"
    assert said in first
    assert first.endswith(f": {message}")
    for action in actions:
        assert f"\n  {action}" in err
    resource = (
        f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET[3:]}"
        if model == SONNET
        else "arn:aws:bedrock-mantle:us-east-1:ACCOUNT:project/default"
    )
    assert resource in err


def test_other_errors_are_as_the_aws_cli_says_them(aws, count, monkeypatch):
    aws.throttle()
    code, _, err = count("--model", SONNET, given="Hello")
    assert code == 1
    assert "An error occurred (ThrottlingException) when calling the CountTokens operation" in err
    assert "Too many tokens, please wait before trying again." in err
    code, _, err = count("--model", "does-not-exist-v1:0", given="Hello")
    assert (code, "The provided model identifier is invalid." in err) == (1, True)
    code, _, err = count("--model", SONNET, "--profile", "nobody", given="Hello")
    assert (code, "The config profile (nobody) could not be found" in err) == (1, True)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    boto3.DEFAULT_SESSION = None
    code, _, err = count("--model", SONNET, given="Hello")
    assert (code, "Unable to locate credentials." in err) == (1, True)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    code, _, err = count("--model", SONNET, given="Hello")
    assert (code, "You must specify a region" in err) == (1, True)


def test_the_region_of_the_aws_cli_is_used(aws, count, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert count("--model", OPUS, given="Hello")[0] == 0
    assert "/eu-west-1/bedrock-mantle/" in aws.requests[-1].headers["authorization"]
    assert count("--model", OPUS, "--region", "eu-west-2", given="Hello")[0] == 0
    assert "/eu-west-2/bedrock-mantle/" in aws.requests[-1].headers["authorization"]


def test_a_model_that_is_not_counted_is_exit_code_3(bedrock, count):
    code, out, err = count("--model", NOVA, given="Hello")
    assert (code, out) == (3, "")
    assert "us.amazon.nova-lite-v1:0 cannot be counted" in err
    code, out, _ = count("--model", NOVA, "--json", given="Hello")
    assert (code, json.loads(out)["input_tokens"]) == (3, None)


@pytest.mark.parametrize(
    ("arguments", "given", "code", "said"),
    [
        (["--model", SONNET], "  \n", 1, "empty: there is nothing to count"),
        (["--model", SONNET], b"\xff\xfe\x00", 1, "not UTF-8 text"),
        (["--model", SONNET, "--as", "converse"], "{", 1, "a Converse request as JSON"),
        (["--model", SONNET, "--as", "invoke"], "[1]", 1, "an InvokeModel body"),
        ([], "Hello", 2, "--model ID is missing"),
        (["--model", SONNET], None, 2, "FILE is missing"),
        (["--model", SONNET, "--trim", "many"], "Hello", 2, "expected a whole number of tokens"),
        (["--model", SONNET, "--as", "poem"], "Hello", 2, "invalid choice"),
        (["--model", SONNET, "--prices", "nowhere.json"], "Hello", 1, "nowhere.json"),
        (
            ["--model", OPUS, "--mantle-endpoint-url", "foo"],
            "Hello",
            2,
            "base URL of bedrock-mantle",
        ),
        (["--model", SONNET, "nowhere.txt"], None, 1, "nowhere.txt: No such file or directory"),
    ],
)
def test_a_mistake_is_said_with_what_to_do(bedrock, count, arguments, given, code, said):
    found, out, err = count(*arguments, given=given)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


def test_a_wrong_endpoint_of_the_environment_is_misuse(bedrock, count, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_MANTLE", "foo")
    code, _, err = count("--model", OPUS, given="Hello")
    assert code == 2
    assert err.startswith("otel-bedrock count: AWS_ENDPOINT_URL_BEDROCK_MANTLE: expected the base")


def test_bytes_that_are_no_base64_are_said_with_their_place(tmp_path):
    block = {"image": {"format": "png", "source": {"bytes": "not base64!"}}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"role": "user", "content": [block]}]))
    with pytest.raises(CommandError, match=r"messages\.0\.content\.0\.image\.source\.bytes"):
        read_prompt(str(path))


def test_the_help_fits_a_terminal_and_teaches(count):
    code, out, _ = count("--help")
    assert code == 0
    assert "exit codes:" in out
    assert max(map(len, out.splitlines())) <= 100
    for code in ("0  counted", "3  Bedrock does not count", "4  --trim"):
        assert code in out


def test_numbers_are_written_for_people():
    def cost(amount):
        return Cost(Decimal(amount), {}, "a test", None)

    assert money(cost("0.000033")) == "$0.000033"
    assert money(cost("0.0231297")) == "$0.02313"
    assert money(cost("1.056")) == "$1.056"
    assert money(cost("1.5")) == "$1.50"
    assert money(cost("1234.5678")) == "$1,234.57"
    assert money(cost("0")) == "$0.00"
    assert money(None) == tokens(None) == share(None) == "unknown"
    assert tokens(1234567) == "1,234,567"
    assert share(0.00001) == "under 0.01 %"
    assert share(0.035) == "3.50 %"
    assert share(0.99) == "99.0 %"
    assert share(0) == "0.00 %"
    assert os.environ["COLUMNS"]
