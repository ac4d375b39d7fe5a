"""Look-up: an opaque id is asked about once, in the background, and no call ever waits."""

from __future__ import annotations

import collections
import json
import logging
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import boto3
import botocore.client
import botocore.session
import pytest
import wrapt
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from programs import run

from otel_bedrock import control_plane, lookup, shield
from otel_bedrock.model_id import parse
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.testing.capture import capture

ACCOUNT = "123456789012"
ARN = f"arn:aws:bedrock:us-east-1:{ACCOUNT}"
FOUNDATION = "arn:aws:bedrock:us-east-1::foundation-model"
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
NOVA = "amazon.nova-lite-v1:0"

PROFILE = f"{ARN}:application-inference-profile/abc123"
PROVISIONED = f"{ARN}:provisioned-model/abcdefghijkl"
DEPLOYMENT = f"{ARN}:custom-model-deployment/abcdefghijkl"
CUSTOM = f"{ARN}:custom-model/imported/abcdefghijkl"
CUSTOM_NAMED = f"{ARN}:custom-model/{NOVA}:300k/abcdefghijkl"

MESSAGES = [{"role": "user", "content": [{"text": "How many tokens is this?"}]}]
BASE = "bedrock.model.base_id"


class ControlPlane:
    """A loopback server of GET requests; `answers` maps an ARN to status and body."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.credentials = []
        self.go = threading.Event()
        self.go.set()
        control = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                kind, _, arn = unquote(self.path).lstrip("/").partition("/arn:")
                arn = f"arn:{arn}"
                control.asked.append((kind, arn))
                control.credentials.append(self.headers.get("authorization", ""))
                control.go.wait(20)
                status, body = control.answers.get(arn, (404, {"message": "There is none."}))
                names = {403: "AccessDeniedException", 404: "ResourceNotFoundException"}
                data = json.dumps(body).encode()
                self.send_response(status)
                if status != 200:
                    self.send_header("x-amzn-errortype", names.get(status, "InternalServer"))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def profile(self, arn, *models):
        self.answers[arn] = 200, {"models": [{"modelArn": model} for model in models]}

    def stop(self):
        self.go.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def control(monkeypatch):
    control = ControlPlane()
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", control.url)
    monkeypatch.setattr(lookup, "_state", lookup._State())
    yield control
    control.stop()


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        yield server


@pytest.fixture(scope="module")
def client(bedrock):
    return bedrock.client()


def _ask(client, model=PROFILE):
    return client.converse(modelId=model, messages=MESSAGES)


def _until(true, seconds=15):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def _settled(arn=PROFILE):
    """Wait until the look-up of `arn` has an end, whichever."""
    _until(lambda: lookup._state.entries[arn].model or lookup._state.entries[arn].turns)


def _bases(captured):
    return [span.attributes.get(BASE) for span in captured.spans]


KINDS = {
    "a profile": (
        PROFILE,
        {PROFILE: {"models": [{"modelArn": f"{FOUNDATION}/{SONNET}"}]}},
        ["inference-profiles"],
        SONNET,
    ),
    "a profile of several Regions": (
        PROFILE,
        {
            PROFILE: {
                "models": [
                    {"modelArn": f"arn:aws:bedrock:{region}::foundation-model/{SONNET}"}
                    for region in ("us-east-1", "us-east-2", "us-west-2")
                ]
            }
        },
        ["inference-profiles"],
        SONNET,
    ),
    "provisioned throughput": (
        PROVISIONED,
        {
            PROVISIONED: {
                "modelArn": f"{ARN}:custom-model/{HAIKU}/abcdefghijkl",
                "foundationModelArn": f"{FOUNDATION}/{HAIKU}:48k",
            }
        },
        ["provisioned-model-throughput"],
        HAIKU,
    ),
    "a custom model": (
        CUSTOM,
        {CUSTOM: {"modelArn": CUSTOM, "baseModelArn": f"{FOUNDATION}/{NOVA}:300k"}},
        ["custom-models"],
        NOVA,
    ),
    "a deployment of a model that names its base": (
        DEPLOYMENT,
        {DEPLOYMENT: {"modelArn": CUSTOM_NAMED}},
        ["model-customization/custom-model-deployments"],
        NOVA,
    ),
    "a deployment of a model that does not": (
        DEPLOYMENT,
        {
            DEPLOYMENT: {"modelArn": CUSTOM},
            CUSTOM: {"modelArn": CUSTOM, "baseModelArn": f"{FOUNDATION}/{NOVA}"},
        },
        ["model-customization/custom-model-deployments", "custom-models"],
        NOVA,
    ),
}


def _known(client, kinds):
    """Say whether the installed botocore can ask for the first of `kinds`."""
    return "deployments" not in kinds[0] or hasattr(
        boto3.client("bedrock"), "get_custom_model_deployment"
    )


@pytest.mark.parametrize(("arn", "answers", "kinds", "base"), KINDS.values(), ids=KINDS)
def test_the_first_call_stays_opaque_and_later_ones_are_told(
    arn, answers, kinds, base, control, client
):
    if not _known(client, kinds):
        pytest.skip("the installed botocore has no GetCustomModelDeployment")
    control.answers = {key: (200, body) for key, body in answers.items()}
    with capture(resolve_models=True) as captured:
        for _ in range(3):
            _ask(client, arn)
            _settled(arn)
        spans, points = captured.spans, captured.points
    assert _bases(captured) == [None, base, base]
    assert [kind for kind, _ in control.asked] == kinds
    # What was sent is still what the call is named after.
    assert {span.attributes["gen_ai.request.model"] for span in spans} == {parse(arn).name}
    counted = {
        point.attributes.get(BASE): point.count
        for point in points
        if point.metric == "gen_ai.client.inference.duration"
    }
    assert counted == {None: 1, base: 2}


def test_the_row_of_the_provider_is_known_from_then_on(control, bedrock, client):
    """Nothing in this request says that it is about embeddings; the model's own row does."""
    control.profile(PROFILE, f"{FOUNDATION}/amazon.titan-embed-text-v1")
    with capture(resolve_models=True) as captured:
        for _ in range(2):
            bedrock.reply({"embedding": [0.1], "inputTextTokenCount": 1})
            client.invoke_model(modelId=PROFILE, body=json.dumps({"inputText": "river"}))
            _settled()
        told = [span.attributes["gen_ai.operation.name"] for span in captured.spans]
    assert sorted(told) == ["embeddings", "text_completion"]


NEVER_ASKED = [
    f"{ARN}:imported-model/abcdefghijkl",
    f"{ARN}:prompt/PROMPT1234:1",
    f"{ARN}:prompt-router/abcdefghijkl",
    f"{ARN}:default-prompt-router/anthropic.claude:1",
    f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/my-endpoint",
    f"{FOUNDATION}/{SONNET}",
    f"{ARN}:inference-profile/us.{SONNET}",
    CUSTOM_NAMED,
    f"arn:aws:bedrock:us-east-1:{ACCOUNT}",
    f"us.{SONNET}",
    "us.acme.newmodel-v1:0",
    "abc123",
    "",
]


@pytest.mark.parametrize("sent", NEVER_ASKED)
def test_an_id_that_tells_or_that_nobody_can_tell_is_not_asked(sent, control, client):
    model = parse(sent)
    assert lookup.find(client, model) is model
    assert not lookup._state.entries
    assert lookup._state.queue is None


def test_nothing_is_asked_unless_it_is_switched_on(control, client):
    control.profile(PROFILE, f"{FOUNDATION}/{SONNET}")
    with capture() as captured:
        for _ in range(3):
            _ask(client)
        assert _bases(captured) == [None] * 3
    assert not lookup._state.entries
    assert lookup._state.queue is None
    assert control.asked == []


def test_an_alias_goes_before(control, client):
    with capture(resolve_models=True, model_aliases={"abc123": HAIKU}) as captured:
        _ask(client)
        assert _bases(captured) == [HAIKU]
    assert not lookup._state.entries


def test_twenty_threads_ask_once_for_each_id(control, bedrock):
    arns = [f"{ARN}:application-inference-profile/id{number}" for number in range(5)]
    for arn in arns:
        control.profile(arn, f"{FOUNDATION}/{SONNET}")
    start = threading.Barrier(20)
    client = bedrock.client()
    before = set(threading.enumerate())

    def work():
        start.wait()
        for _ in range(10):
            for arn in arns:
                _ask(client, arn)

    with capture(resolve_models=True) as captured:
        threads = [threading.Thread(target=work) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for arn in arns:
            _settled(arn)
            _ask(client, arn)
        assert _bases(captured)[-5:] == [SONNET] * 5
        assert len(captured.spans) == 20 * 10 * 5 + 5
    assert collections.Counter(arn for _, arn in control.asked) == dict.fromkeys(arns, 1)
    names = [thread.name for thread in set(threading.enumerate()) - before]
    assert names.count("otel-bedrock-lookup") == 1


def test_no_call_waits_for_a_slow_control_plane(control, client):
    control.profile(PROFILE, f"{FOUNDATION}/{SONNET}")
    _ask(client)
    control.go.clear()
    with capture(resolve_models=True) as captured:
        took = []
        for _ in range(20):
            begun = time.perf_counter()
            _ask(client)
            took.append(time.perf_counter() - begun)
        _until(lambda: control.asked)
        assert _bases(captured) == [None] * 20
        # The answer takes as long as the test wants; what is left is the fake's own time.
        assert max(took) < 1.0
        control.go.set()
        _settled()
        _ask(client)
        assert _bases(captured)[-1] == SONNET
    assert len(control.asked) == 1


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(lookup, "_clock", lambda: now[0])
    return now


def test_a_failure_is_kept_for_a_while_and_then_asked_again(control, client, clock):
    control.answers[PROFILE] = 500, {"message": "Try again."}
    with capture(resolve_models=True) as captured:
        _ask(client)
        _settled()
        # No retries of botocore's either.
        assert len(control.asked) == 1
        clock[0] += lookup.FAILED_FOR - 1
        _ask(client)
        assert len(control.asked) == 1
        control.profile(PROFILE, f"{FOUNDATION}/{SONNET}")
        clock[0] += 2
        _ask(client)
        _until(lambda: lookup._state.entries[PROFILE].model)
        _ask(client)
        assert _bases(captured) == [None, None, None, SONNET]
    assert len(control.asked) == 2


def test_a_denied_look_up_is_logged_once_and_names_the_action(control, client, caplog):
    others = [f"{ARN}:application-inference-profile/other{number}" for number in range(3)]
    for arn in (PROFILE, *others):
        reason = f"User: arn:aws:iam::{ACCOUNT}:user/me is not authorized"
        control.answers[arn] = 403, {"message": reason}
    with caplog.at_level(logging.INFO, "otel_bedrock"), capture(resolve_models=True):
        for arn in (PROFILE, *others):
            _ask(client, arn)
            _settled(arn)
            _ask(client, arn)
    assert len(control.asked) == 4
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    text = record.getMessage()
    assert "application-inference-profile/abc123" in text
    assert "AccessDeniedException" in text
    assert "bedrock:GetInferenceProfile" in text
    assert ACCOUNT not in text


UNTOLD = {
    "two models": {"models": [{"modelArn": f"{FOUNDATION}/{m}"} for m in (SONNET, NOVA)]},
    "no model": {"models": []},
    "an imported model": {"models": [{"modelArn": f"{ARN}:imported-model/abcdefghijkl"}]},
    "itself": {"models": [{"modelArn": PROFILE}]},
    "no ARN": {"models": [{"modelArn": "what is this"}]},
    "nothing": {},
}


@pytest.mark.parametrize("body", UNTOLD.values(), ids=UNTOLD)
def test_an_answer_that_names_no_one_model_leaves_the_id_opaque(body, control, client, caplog):
    control.answers[PROFILE] = 200, body
    with caplog.at_level(logging.INFO, "otel_bedrock"), capture(resolve_models=True) as captured:
        for _ in range(2):
            _ask(client)
            _settled()
        assert _bases(captured) == [None, None]
    assert len(caplog.records) == 1
    assert "names no base model" in caplog.text


def test_a_control_plane_that_is_not_there_is_a_failure_like_others(
    control, client, caplog, monkeypatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:1")
    with caplog.at_level(logging.INFO, "otel_bedrock"), capture(resolve_models=True) as captured:
        _ask(client)
        _settled()
        _ask(client)
        assert _bases(captured) == [None, None]
    (record,) = caplog.records
    assert "EndpointConnectionError" in record.getMessage()


def test_an_operation_that_botocore_lacks_is_a_failure_like_others(
    control, client, caplog, monkeypatch
):
    row = lookup.Question("GetSomethingNew", "identifier", "modelArn")
    monkeypatch.setattr(lookup, "TABLE", {"application-inference-profile": row})
    with caplog.at_level(logging.INFO, "otel_bedrock"), capture(resolve_models=True):
        _ask(client)
        _settled()
    assert "the installed botocore does not have it" in caplog.text
    assert control.asked == []


def test_it_asks_as_the_calling_client_in_its_region(control, bedrock):
    control.profile(PROFILE, f"{FOUNDATION}/{SONNET}")
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=bedrock.url,
        region_name="eu-west-3",
        aws_access_key_id="AKIACALLER",
        aws_secret_access_key="secret",
        aws_session_token="token",
    )
    with capture(resolve_models=True):
        _ask(client)
        _settled()
    assert re.search(r"Credential=AKIACALLER/\d+/eu-west-3/bedrock/", control.credentials[0])
    client.close()


def test_a_client_that_signs_nothing_asks_unsigned(control, bedrock):
    with capture(resolve_models=True):
        _ask(bedrock.client(signature_version=botocore.UNSIGNED))
        _settled()
    assert control.credentials == [""]


def test_the_look_up_leaves_no_span_and_is_suppressed_for_others(control, client):
    control.profile(PROFILE, f"{FOUNDATION}/{SONNET}")
    enabled = []

    def others(wrapped, instance, args, kwargs):
        if instance.meta.service_model.service_name == "bedrock":
            enabled.append(is_instrumentation_enabled())
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper("botocore.client", "BaseClient._make_api_call", others)
    try:
        with capture(resolve_models=True) as captured:
            _ask(client)
            _settled()
            _ask(client)
            assert [span.name for span in captured.spans] == [
                "chat application-inference-profile/abc123"
            ] * 2
    finally:
        original = botocore.client.BaseClient.__dict__["_make_api_call"].__wrapped__
        botocore.client.BaseClient._make_api_call = original
    assert enabled == [False]
    assert is_instrumentation_enabled()


def test_no_account_id_reaches_metrics_or_names(control, client):
    answers = {PROFILE: f"{FOUNDATION}/{SONNET}", f"{PROFILE}4": f"{ARN}:custom-model/imported/abc"}
    for arn, model in answers.items():
        control.profile(arn, model)
    with capture(resolve_models=True, metrics="all") as captured:
        for arn in answers:
            for _ in range(2):
                _ask(client, arn)
                _settled(arn)
        assert all(ACCOUNT not in str(point.attributes) for point in captured.points)
        for span in captured.spans:
            kept = {key: value for key, value in span.attributes.items() if ACCOUNT in str(value)}
            assert set(kept) == {"bedrock.model.arn"}
            assert ACCOUNT not in span.name


def test_ids_beyond_the_limit_stay_opaque(control, client, monkeypatch):
    monkeypatch.setattr(lookup, "_MOST_IDS", 2)
    arns = [f"{ARN}:application-inference-profile/id{number}" for number in range(4)]
    for arn in arns:
        control.profile(arn, f"{FOUNDATION}/{SONNET}")
    for arn in arns:
        lookup.find(client, parse(arn))
    assert list(lookup._state.entries) == arns[:2]
    for arn in arns[:2]:
        _settled(arn)
    assert lookup.find(client, parse(arns[0])).base_id == SONNET
    assert lookup.find(client, parse(arns[3])).base_id is None


def test_a_bug_in_the_look_up_does_not_reach_the_call(control, client, monkeypatch, caplog):
    monkeypatch.delenv(shield.RAISE_VARIABLE)
    shield.reset()

    def broken(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr(lookup, "make_client", broken)
    with capture(resolve_models=True) as captured:
        _ask(client)
        _settled()
        monkeypatch.setattr(lookup, "parse", broken)
        monkeypatch.setattr(lookup._State, "ask", broken)
        _ask(client, f"{PROFILE}4")
        assert len(captured.spans) == 2
        assert captured.total("bedrock.instrumentation.errors", site="lookup") == 1
        assert captured.total("bedrock.instrumentation.errors", site="lookup.find") == 1
    shield.reset()


class _Frozen:
    access_key, secret_key, token = "AKIAAIO", "secret", None


class _AioCredentials:
    """As aiobotocore's: awaiting them is for their own event loop alone."""

    def __init__(self, frozen):
        self._frozen_credentials = frozen

    async def get_frozen_credentials(self):
        raise AssertionError("nobody but their own loop may refresh them")


def test_credentials_of_an_asyncio_client_are_taken_once_they_are_there(control, client, clock):
    control.profile(PROFILE, f"{FOUNDATION}/{SONNET}")
    credentials = _AioCredentials(None)
    there = client._request_signer._credentials
    client._request_signer._credentials = credentials
    try:
        lookup.find(client, parse(PROFILE))
        _settled()
        assert control.asked == []
        credentials._frozen_credentials = _Frozen
        clock[0] += 2
        lookup.find(client, parse(PROFILE))
        _until(lambda: lookup._state.entries[PROFILE].model)
    finally:
        client._request_signer._credentials = there
    assert "AKIAAIO" in control.credentials[0]


def test_refreshable_credentials_are_used_as_they_are_now(control, client):
    class Refreshable:
        def get_frozen_credentials(self):
            return _Frozen

    assert control_plane._keys(Refreshable())["aws_access_key_id"] == "AKIAAIO"
    assert control_plane._keys(None) == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_asks_on_its_own(control, bedrock):
    control.profile(PROFILE, f"{FOUNDATION}/{SONNET}")
    done = run(
        f"""
        import time
        from otel_bedrock import lookup
        from otel_bedrock.testing import capture
        from otel_bedrock.lookup import find
        from otel_bedrock.model_id import parse
        def told(bedrock):
            end = time.monotonic() + 15
            while (base := find(bedrock, parse({PROFILE!r})).base_id) is None:
                assert time.monotonic() < end
                time.sleep(0.01)
            print(base, flush=True)
        bedrock = client()
        told(bedrock)
        pid = os.fork()
        if pid == 0:
            told(bedrock)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """,
        bedrock=bedrock,
        AWS_ENDPOINT_URL_BEDROCK=control.url,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [SONNET, SONNET]
    assert len(control.asked) == 2


def test_the_table_is_what_the_service_model_says():
    session = botocore.session.get_session()
    model = session.get_service_model("bedrock")
    for kind, row in lookup.TABLE.items():
        if row.operation not in model.operation_names:
            # botocore 1.37.24 cannot ask for deployments.
            assert kind == "custom-model-deployment"
            continue
        operation = model.operation_model(row.operation)
        assert operation.input_shape.required_members == [row.parameter]
        shape = operation.output_shape
        for step in row.path.split("."):
            shape = shape.member if step == "*" else shape.members[step]
        assert shape.type_name == "string"


def test_importing_it_brings_no_botocore():
    code = "import sys, otel_bedrock.lookup; print('botocore' in sys.modules)"
    done = run(code, prelude="", python=sys.executable)
    assert done.stdout.strip() == "False", done.stderr


def test_a_time_limit_goes_through_to_who_waits(control, client, alarm, monkeypatch):
    control.profile(PROFILE, f"{FOUNDATION}/{SONNET}")
    monkeypatch.setattr(lookup, "_base_of", alarm.before(lookup._base_of))
    with pytest.raises(alarm.Late):
        lookup.wait(client, parse(PROFILE))
    assert lookup.wait(client, parse(PROFILE)).base_id == SONNET
