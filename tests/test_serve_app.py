"""The service over HTTP: answers, refusals, batching, back-pressure, keys, hot swap, stopping with nothing lost."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from serving import Brightness, N, array, files, png, service_of
from starlette.testclient import TestClient

import goodnet
from goodnet.errors import GoodnetError, UnreadableModel, UsageError
from goodnet.serve._pictures import from_png
from goodnet.serve.app import create_app
from goodnet.serve.batching import Batcher
from goodnet.serve.judging import load_served
from goodnet.serve.service import Service

KEY = "a-key-of-some-length"
WITH_KEY = {"X-API-Key": KEY}


def client_of(service: Service, key: str | None = None) -> TestClient:
    return TestClient(create_app(service, key=key), base_url="http://localhost:8000", raise_server_exceptions=False)


@pytest.fixture
def judge() -> Brightness:
    return Brightness()


@pytest.fixture
def client(tmp_path: Path, judge: Brightness) -> Iterator[TestClient]:
    with client_of(service_of(tmp_path, judge, wait=0.0, most_pixels=10_000, most_images=5)) as made:
        yield made


@pytest.fixture
def keyed(tmp_path: Path, judge: Brightness) -> Iterator[TestClient]:
    (tmp_path / "model").mkdir()
    (tmp_path / "next").mkdir()
    with client_of(service_of(tmp_path, judge, wait=0.0), KEY) as made:
        yield made


def labels(response: Any) -> list[int]:
    assert response.status_code == 200, response.text
    return [one["label"] for one in response.json()["predictions"]]


def code(response: Any) -> str:
    """The word for programs; every refusal has the same form."""
    answer = response.json()
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"code", "message"}
    return str(answer["error"]["code"])


# --- answers ---


def test_files_get_one_prediction_each_in_their_order(client: TestClient) -> None:
    response = client.post("/predict", files=files(0, 70, 255, 130))
    assert labels(response) == [0, 1, N, 2]
    answer = response.json()
    assert answer["classes"] == N
    first, _, third, _ = answer["predictions"]
    assert (first["name"], first["triggered"], first["quarantined"], first["model"]) == ("dark", False, None, "v1")
    assert (third["name"], third["triggered"], third["suspicion"], third["confidence"]) == (None, True, 1.0, 0.5)
    assert len(third["quarantined"]) == 64


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "PPM", "BMP", "WEBP", "GIF"])
def test_pictures_of_other_kinds_sizes_and_colors_are_converted(client: TestClient, kind: str) -> None:
    sent = {"image": ("x", png(200, size=(40, 30), mode="RGB", kind=kind))}
    assert labels(client.post("/predict", files=sent)) == [3]


def test_numbers_are_judged_as_pictures_are(client: TestClient) -> None:
    assert labels(client.post("/predict", json={"images": [array(0), array(70), array(255)]})) == [0, 1, N]
    assert labels(client.post("/predict", json={"images": array(130)})) == [2]
    assert labels(client.post("/predict", json={"images": [array(0.5), array(1)], "range": "0..1"})) == [2, N]
    assert labels(client.post("/predict", json={"images": [array(1)]})) == [0], "1 of 255 unless it is said"


def test_a_triggered_picture_is_in_quarantine_when_the_answer_comes(client: TestClient) -> None:
    by_file = client.post("/predict", files=files(255, 3)).json()["predictions"][0]["quarantined"]
    by_number = client.post("/predict", json={"images": [array(255)]}).json()["predictions"][0]["quarantined"]
    assert by_file == by_number
    page = client.get("/quarantine").json()
    (entry,) = page["entries"]
    assert (entry["key"], entry["seen"], entry["predicted"], entry["name"]) == (by_file, 2, 3, "3")
    picture = client.get(f"/quarantine/{by_file}.png")
    assert (from_png(picture.content) == 255).all()


def test_an_answer_comes_even_where_the_quarantine_fails(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from goodnet.serve.quarantine import Quarantine

    def full(*_: object) -> None:
        raise UsageError("the disk is full")

    monkeypatch.setattr(Quarantine, "add", full)
    answer = client.post("/predict", files=files(255)).json()["predictions"][0]
    assert (answer["label"], answer["quarantined"]) == (N, None)
    assert "the disk is full" in caplog.text
    assert "goodnet_quarantine_failures_total 1.0" in client.get("/metrics").text


# --- refusals ---


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, format="PNG")
    return buffer.getvalue()


BAD_FILES = {
    "no image": b"hello",
    "empty": b"",
    "cut off": png(3)[:40],
    "too many pixels": png(3, size=(101, 100)),
    "bomb": bomb(),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_picture_is_refused_with_its_position(client: TestClient, name: str) -> None:
    response = client.post("/predict", files=[*files(0), ("image", ("x.png", BAD_FILES[name]))])
    assert (response.status_code, code(response)) == (422, "image")
    assert "image 1 cannot be read" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/model", f"/quarantine/{'0' * 64}"])
def test_what_carries_no_images_has_a_short_body_of_known_length(keyed: TestClient, path: str) -> None:
    response = keyed.post(path, content=b" " * 65_537, headers=WITH_KEY)
    assert (response.status_code, code(response)) == (413, "too-large")
    response = keyed.post(path, content=iter([b"{}"]), headers=WITH_KEY)
    assert (response.status_code, code(response)) == (413, "too-large")
    assert keyed.post(path, content=b" " * 65_536, headers=WITH_KEY).status_code == 422


BAD_JSON: list[tuple[int, str, bytes]] = [
    (400, "json", b""),
    (400, "json", b"{"),
    (400, "json", b"[" * 100_000),
    (400, "json", b"\xff\xfe"),
    (400, "json", b'{"images": [[[[NaN]]]]}'),
    (400, "json", b"9" * 10_000),
    (422, "array", b"[]"),
    (422, "array", b"null"),
    (422, "array", b'{"images": []}'),
    (422, "array", b'{"images": "no"}'),
    (422, "array", b'{"images": {"a": 1}}'),
    (422, "array", b'{"images": [[1, 2], [3]]}'),
    (422, "array", b'{"images": 1e999}'),
    (422, "array", b'{"images": [[[[1]]]]}'),
    (422, "array", b'{"images": ' + b"[" * 60 + b"1" + b"]" * 60 + b"}"),
    (422, "array", json.dumps({"images": [array(256)]}).encode()),
    (422, "array", json.dumps({"images": [array(-1)]}).encode()),
    (422, "array", json.dumps({"images": [array(10**30)]}).encode()),
    (422, "array", json.dumps({"images": [array(2)], "range": "0..1"}).encode()),
    (422, "array", json.dumps({"images": [array(2)], "range": ["0..1"]}).encode()),
    (422, "array", json.dumps({"images": [array(True)]}).encode()),
    (422, "array", json.dumps({"images": [array(1)], "more": 1}).encode()),
    (413, "too-many", json.dumps({"images": [array(1)] * 6}).encode()),
]


@pytest.mark.parametrize(("status", "word", "content"), BAD_JSON, ids=lambda value: repr(value)[:24])
def test_json_that_is_no_array_of_images_is_refused(client: TestClient, status: int, word: str, content: bytes) -> None:
    response = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, code(response)) == (status, word)


@pytest.mark.parametrize(
    ("status", "kind", "content"),
    [
        (415, "text/plain", b"x"),
        (415, "", b"x"),
        (400, "multipart/form-data", b"x"),
        (400, "multipart/form-data; boundary=a", b"x"),
        (422, "multipart/form-data; boundary=a", b"--a--\r\n"),
        (
            422,
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--a--',
        ),
        (400, "multipart/form-data; boundary=a", b"--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--"),
        (400, "multipart/form-data; boundary=a; charset=nonsense", b'--a\r\nX: y; name="\xff"\r\n\r\nx\r\n--a--'),
    ],
)
def test_bodies_of_another_kind_are_refused(client: TestClient, status: int, kind: str, content: bytes) -> None:
    response = client.post("/predict", content=content, headers={"content-type": kind})
    assert response.status_code == status
    code(response)


def test_another_field_and_too_many_files_are_refused(client: TestClient) -> None:
    response = client.post("/predict", files=[*files(1), ("other", ("x.png", png(1)))])
    assert (response.status_code, code(response)) == (422, "field")
    response = client.post("/predict", files=files(*range(6)))
    assert (response.status_code, code(response)) == (400, "multipart")


def test_more_bytes_than_allowed_are_refused_told_or_not(tmp_path: Path, judge: Brightness) -> None:
    with client_of(service_of(tmp_path, judge, most_body=2000)) as client:
        told = client.post("/predict", content=b"x" * 2001, headers={"content-type": "application/json"})
        untold = client.post("/predict", content=iter([b"x" * 1500] * 2), headers={"content-type": "application/json"})
        assert [(one.status_code, code(one)) for one in (told, untold)] == [(413, "too-large")] * 2
        assert labels(client.post("/predict", files=files(0))) == [0]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("GET", "/nothing", 404),
        ("GET", "/review/../app.py", 404),
        ("GET", "/review/review.html", 404),
        ("GET", "/quarantine?mark=dirty", 422),
        ("GET", "/quarantine?limit=0", 422),
        ("GET", "/quarantine?limit=100000", 422),
        ("GET", "/quarantine?after=nan,x", 422),
        ("GET", f"/quarantine?predicted={10**20}", 422),
        ("GET", "/quarantine/abc.png", 404),
        ("GET", f"/quarantine/{'0' * 64}.png", 404),
        ("GET", "/quarantine/export.zip", 404),
        ("POST", f"/quarantine/{'0' * 64}", 422),
        ("POST", "/model", 422),
    ],
)
def test_other_wrong_requests_are_refused_in_the_same_form(
    client: TestClient, method: str, path: str, status: int
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    code(response)


# --- batching and back-pressure ---


def test_requests_that_wait_are_judged_together(tmp_path: Path, judge: Brightness) -> None:
    with client_of(service_of(tmp_path, judge, wait=0.2, batch=8)) as client, ThreadPoolExecutor(8) as pool:
        levels = [0, 70, 130, 200, 255, 10, 80, 140]
        answers = list(pool.map(lambda level: labels(client.post("/predict", files=files(level))), levels))
    assert answers == [[0], [1], [2], [3], [N], [0], [1], [2]]
    assert sum(judge.batches) == 8
    assert max(judge.batches) > 1
    assert max(judge.batches) <= 8


def test_a_batch_has_no_more_images_than_are_allowed_and_none_is_forgotten() -> None:
    sizes: list[int] = []
    gate = threading.Event()

    def judge(images: torch.Tensor) -> list[int]:
        gate.wait(10)
        sizes.append(len(images))
        return images[:, 0].tolist()

    batcher = Batcher(judge, most=6, wait=0.0)
    asked = [batcher.submit(torch.full((size, 1), size)) for size in (1, 4, 4, 2, 9, 1)]
    gate.set()
    batcher.close()
    assert [list(one.result(1)) for one in asked] == [[size] * size for size in (1, 4, 4, 2, 9, 1)]
    assert sum(sizes) == 21
    assert sorted(sizes)[-2:] == [6, 9], "one request may be larger than a batch"
    with pytest.raises(UsageError, match="stopping"):
        batcher.submit(torch.zeros(1, 1))


def test_a_fault_while_judging_is_told_to_those_who_asked_and_to_no_one_else() -> None:
    def judge(images: torch.Tensor) -> list[int]:
        if (images == 13).any():
            raise RuntimeError("thirteen")
        return images[:, 0].tolist()

    batcher = Batcher(judge, most=1, wait=0.0)
    bad, good = batcher.submit(torch.tensor([[13]])), batcher.submit(torch.tensor([[7]]))
    with pytest.raises(RuntimeError, match="thirteen"):
        bad.result(5)
    assert list(good.result(5)) == [7]
    batcher.close()


def test_images_of_those_who_gave_up_are_not_judged() -> None:
    gate, seen = threading.Event(), []

    def judge(images: torch.Tensor) -> list[int]:
        gate.wait(10)
        seen.extend(images[:, 0].tolist())
        return images[:, 0].tolist()

    batcher = Batcher(judge, most=1, wait=0.0)
    first, second, third = (batcher.submit(torch.tensor([[number]])) for number in range(3))
    assert second.cancel()
    gate.set()
    batcher.close()
    assert seen == [0, 2]
    assert third.done()
    assert first.done()


def test_a_full_queue_answers_429_at_once_and_loses_nobody(tmp_path: Path, judge: Brightness) -> None:
    service = service_of(tmp_path, judge, wait=0.0, most_waiting=3, batch=1)
    with client_of(service) as client, ThreadPoolExecutor(3) as pool:
        judge.gate.clear()
        waiting = [pool.submit(client.post, "/predict", files=files(level)) for level in (0, 70, 130)]
        deadline = time.monotonic() + 10
        while service.waiting < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        refused = client.post("/predict", files=files(0))
        assert (refused.status_code, code(refused)) == (429, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/health").status_code == 200, "it answers while it is busy"
        judge.gate.set()
        assert [labels(one.result()) for one in waiting] == [[0], [1], [2]]
        assert labels(client.post("/predict", files=files(0))) == [0]


def test_bytes_that_wait_are_bounded_as_well(tmp_path: Path, judge: Brightness) -> None:
    with client_of(service_of(tmp_path, judge, most_held=1024)) as client:
        for _ in range(3):  # what was refused holds nothing any more
            refused = client.post("/predict", content=b"x" * 1500, headers={"content-type": "application/json"})
            assert (refused.status_code, code(refused)) == (429, "busy")
        assert labels(client.post("/predict", files=files(0))) == [0]


def test_whoever_waits_too_long_hears_so(tmp_path: Path, judge: Brightness) -> None:
    with client_of(service_of(tmp_path, judge, wait=0.0, timeout=0.2)) as client:
        judge.gate.clear()
        late = client.post("/predict", files=files(0))
        assert (late.status_code, code(late)) == (503, "timeout")
        assert "retry-after" in late.headers
        judge.gate.set()
        assert labels(client.post("/predict", files=files(0))) == [0]


def test_a_service_that_stops_answers_what_waits(tmp_path: Path, judge: Brightness) -> None:
    service = service_of(tmp_path, judge, wait=0.0, batch=1)
    judge.gate.clear()
    asked = [service.submit(torch.full((1, 1, 8, 6), level, dtype=torch.uint8)) for level in (0, 70, 255)]
    threading.Timer(0.1, judge.gate.set).start()
    service.close()
    assert [one.result(0)[0].label for one in asked] == [0, 1, N]


# --- keys and other sites ---


def test_with_a_key_everything_but_health_wants_it(keyed: TestClient) -> None:
    for path in ("/review", "/quarantine", "/metrics", "/openapi.json", "/quarantine/export.zip", "/nothing"):
        refused = keyed.get(path)
        assert (refused.status_code, code(refused)) == (401, "key"), path
        assert refused.headers["www-authenticate"].startswith("Basic")
    assert keyed.post("/predict", files=files(0)).status_code == 401
    assert keyed.get("/health").status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": "ä".encode("latin-1")},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": "Basic !!!"},
        {"Authorization": f"Digest {KEY}"},
    ],
)
def test_another_key_is_none(keyed: TestClient, given: dict[str, Any]) -> None:
    assert keyed.post("/predict", files=files(0), headers=given).status_code == 401


def test_a_key_may_come_in_three_ways(keyed: TestClient) -> None:
    assert labels(keyed.post("/predict", files=files(0), headers=WITH_KEY)) == [0]
    assert labels(keyed.post("/predict", files=files(0), headers={"Authorization": f"Bearer {KEY}"})) == [0]
    assert labels(keyed.post("/predict", files=files(0), auth=("anybody", KEY))) == [0]


def test_pages_of_other_sites_may_send_nothing(client: TestClient, keyed: TestClient) -> None:
    for asked, headers in ((client, {}), (keyed, WITH_KEY)):
        for origin in ("http://evil.example", "null", "http://localhost:9", "http://["):
            refused = asked.post("/predict", files=files(0), headers={"Origin": origin, **headers})
            assert (refused.status_code, code(refused)) == (403, "origin")
        own = {"Origin": "http://localhost:8000", **headers}
        assert labels(asked.post("/predict", files=files(0), headers=own)) == [0]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", ""])
def test_without_a_key_a_name_that_was_made_to_lead_here_opens_nothing(client: TestClient, host: str) -> None:
    refused = client.get("/quarantine", headers={"Host": host})
    assert (refused.status_code, code(refused)) == (403, "host")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "[::1]"])
def test_this_machine_is_heard_by_each_of_its_names(client: TestClient, host: str) -> None:
    assert client.get("/quarantine", headers={"Host": host}).status_code == 200


# --- hot swap ---


def test_the_model_is_changed_only_with_a_key(client: TestClient, keyed: TestClient) -> None:
    refused = client.post("/model", json={})
    assert (refused.status_code, code(refused)) == (403, "no-key")
    assert keyed.post("/model", json={}).status_code == 401
    assert keyed.post("/model", json={}, headers=WITH_KEY).json()["model"] == "v2"


def test_after_a_swap_the_new_model_answers(keyed: TestClient) -> None:
    assert labels(keyed.post("/predict", files=files(0), headers=WITH_KEY)) == [0]
    swapped = keyed.post("/model", json={"folder": "next"}, headers=WITH_KEY)
    assert swapped.status_code == 200
    answer = keyed.post("/predict", files=files(0), headers=WITH_KEY)
    assert labels(answer) == [1]
    assert answer.json()["predictions"][0]["model"] == "v2"
    assert 'goodnet_model_info{version="v1"} 0.0' in keyed.get("/metrics", headers=WITH_KEY).text


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "nothing", "a\0b", "link"])
def test_a_swap_goes_no_further_than_the_folders_beside(keyed: TestClient, tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/")
    refused = keyed.post("/model", json={"folder": name}, headers=WITH_KEY)
    assert (refused.status_code, code(refused)) == (409, "model")
    assert keyed.get("/health").json()["model"] == "v1"


def test_a_model_of_other_images_is_not_put_in_service(tmp_path: Path, judge: Brightness) -> None:
    service = service_of(tmp_path, judge)
    (tmp_path / "model").mkdir()
    judge.num_classes += 1
    with pytest.raises(UsageError, match="num_classes"):
        service.swap()
    assert service.served.version == "v1"
    service.close()


def test_a_swap_under_load_fails_no_request_and_mixes_no_answers(keyed: TestClient) -> None:
    def ask(_: int) -> tuple[list[int], set[str]]:
        response = keyed.post("/predict", files=files(0, 70, 130), headers=WITH_KEY)
        return labels(response), {one["model"] for one in response.json()["predictions"]}

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, number) for number in range(40)]
        assert keyed.post("/model", json={}, headers=WITH_KEY).status_code == 200
        seen = [one.result() for one in asked]
    assert all(answer in (([0, 1, 2], {"v1"}), ([1, 2, 3], {"v2"})) for answer in seen)


# --- folders ---


def test_a_folder_of_a_repair_is_served_and_a_plain_model_is_not(tmp_path: Path) -> None:
    digits = goodnet.load_data("digits", split="test")
    net = goodnet.untrained("small_cnn:width=8", digits)
    goodnet.save_model(net, tmp_path / "plain")
    goodnet.save_goodnet(goodnet.GoodNet(net, net), tmp_path / "repaired" / "goodnet")
    served = load_served(tmp_path / "repaired")
    assert served.model.num_classes == 10
    assert served.version == load_served(tmp_path / "repaired" / "goodnet").version
    with pytest.raises(UsageError, match="goodnet repair FILE"):
        load_served(tmp_path / "plain")
    with pytest.raises(GoodnetError):
        load_served(tmp_path / "nothing")
    (tmp_path / "repaired" / "goodnet" / "goodnet.json").write_text("{")
    with pytest.raises(UnreadableModel):
        load_served(tmp_path / "repaired")


# --- what is told about itself ---


def test_metrics_count_requests_images_and_what_is_held(client: TestClient) -> None:
    client.post("/predict", files=files(0, 255))
    client.post("/predict", content=b"x")
    client.get(f"/nothing/{'x' * 50}")
    text = client.get("/metrics").text
    for line in (
        'goodnet_requests_total{path="/predict",status="200"} 1.0',
        'goodnet_requests_total{path="/predict",status="415"} 1.0',
        'goodnet_requests_total{path="other",status="404"} 1.0',
        'goodnet_images_total{outcome="triggered"} 1.0',
        'goodnet_images_total{outcome="answered"} 1.0',
        'goodnet_quarantine_images{mark="unmarked"} 1.0',
        "goodnet_requests_waiting 0.0",
    ):
        assert line in text


def test_the_api_describes_both_bodies_with_an_example(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    content = described["paths"]["/predict"]["post"]["requestBody"]["content"]
    example = content["application/json"]["example"]
    assert labels(client.post("/predict", json=example)) == [0]
    assert "image" in content["multipart/form-data"]["schema"]["properties"]
    assert set(described["paths"]) >= {"/predict", "/health", "/metrics", "/model", "/quarantine"}


def test_what_is_marked_comes_out_as_a_folder_that_goodnet_reads(client: TestClient, tmp_path: Path) -> None:
    keys = [
        client.post("/predict", json={"images": [[[[255, shade, 0, 0, 0, 0]] + [[0] * 6] * 7]]}).json()
        for shade in range(3)
    ]
    names = [one["predictions"][0]["quarantined"] for one in keys]
    assert client.post(f"/quarantine/{names[0]}", json={"mark": "poisoned"}).json() == {"mark": "poisoned"}
    client.post(f"/quarantine/{names[1]}", json={"mark": "clean"})
    assert client.post(f"/quarantine/{names[1]}", json={"mark": "dirty"}).status_code == 422
    exported = client.get("/quarantine/export.zip")
    with zipfile.ZipFile(io.BytesIO(exported.content)) as archive:
        archive.extractall(tmp_path / "out")
    read = goodnet.load_data(tmp_path / "out" / "quarantine")
    assert (len(read), read.class_names) == (1, ("poisoned",))
    assert client.get("/quarantine?mark=clean").json()["entries"][0]["key"] == names[1]
