"""Service Quotas is asked once for each Region, in the background, and no call waits for it."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from otel_bedrock import service_quotas
from otel_bedrock.testing import FakeBedrock, capture

NOVA = "amazon.nova-lite-v1:0"
HELLO = [{"role": "user", "content": [{"text": "Hello!"}]}]
MINUTE = "On-demand model inference tokens per minute for Amazon Nova Lite"
DAY = "Model invocation max tokens per day for Amazon Nova Lite (doubled for cross-region calls)"


class ServiceQuotas:
    """A loopback server of ListServiceQuotas: one quota on each page."""

    def __init__(self):
        self.quotas = [(DAY, 576_000_000), ("Rules per guardrail", 5), (MINUTE, 400_000)]
        self.asked = []
        self.status = 200
        self.go = threading.Event()
        self.go.set()
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                told.asked.append((self.headers["x-amz-target"], asked))
                told.go.wait(20)
                page = int(asked.get("NextToken", "0"))
                name, value = told.quotas[page]
                body = {"Quotas": [{"QuotaName": name, "Value": float(value), "Unit": "None"}]}
                if page + 1 < len(told.quotas):
                    body["NextToken"] = str(page + 1)
                if told.status != 200:
                    body = {"__type": "AccessDeniedException", "message": "arn:aws:… says no"}
                data = json.dumps(body).encode()
                self.send_response(told.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def stop(self):
        self.go.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def told(monkeypatch):
    server = ServiceQuotas()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", server.url)
    yield server
    server.stop()


def limits(captured):
    return {
        point.attributes["bedrock.quota.period"]: point.value
        for point in captured.points
        if point.metric == "bedrock.client.quota.limit"
    }


def eventually(ask):
    for _ in range(400):
        if ask():
            return True
        time.sleep(0.05)
    return False


def test_limits_are_read_once_and_no_call_waits(told):
    told.go.clear()
    with FakeBedrock() as bedrock, capture(quota_limits="service-quotas") as captured:
        client = bedrock.client()
        client.converse(modelId=NOVA, messages=HELLO)
        client.converse(modelId="amazon.nova-pro-v1:0", messages=HELLO)
        assert limits(captured) == {}
        told.go.set()
        assert eventually(lambda: limits(captured))
        assert limits(captured) == {"minute": 400_000, "day": 576_000_000}
        client.converse(modelId=NOVA, messages=HELLO)
        bedrock.client().converse(modelId=NOVA, messages=HELLO)
        assert len(captured.spans) == 4
    assert [asked["ServiceCode"] for _, asked in told.asked] == ["bedrock"] * 3
    assert {target for target, _ in told.asked} == {"ServiceQuotasV20190624.ListServiceQuotas"}


def test_what_is_denied_is_said_once_and_asked_again_later(told, caplog, monkeypatch):
    told.status = 400
    with FakeBedrock() as bedrock, capture(quota_limits="service-quotas") as captured:
        client = bedrock.client()
        client.converse(modelId=NOVA, messages=HELLO)
        assert eventually(lambda: "quotas are not known" in caplog.text)
        client.converse(modelId=NOVA, messages=HELLO)
        assert len(told.asked) == 1
        asker = service_quotas._clock
        monkeypatch.setattr(service_quotas, "_clock", lambda: asker() + 601)
        told.status = 200
        client.converse(modelId=NOVA, messages=HELLO)
        assert eventually(lambda: limits(captured))
    said = [record.getMessage() for record in caplog.records if "quotas" in record.message]
    assert len(said) == 1
    assert "servicequotas:ListServiceQuotas" in said[0]
    assert "AccessDeniedException" in said[0]
    assert "arn:aws" not in caplog.text


def test_without_the_setting_nobody_asks(told):
    with FakeBedrock() as bedrock, capture(quota_limits={NOVA: 7}) as captured:
        bedrock.client().converse(modelId=NOVA, messages=HELLO)
        assert limits(captured) == {"minute": 7}
    assert told.asked == []
