"""goodnet serve on a folder that goodnet guard fit wrote."""

from pathlib import Path

from starlette.testclient import TestClient
from typer.testing import CliRunner

import goodnet
from goodnet.cli.main import app
from goodnet.serve._pictures import to_png
from goodnet.serve.app import create_app
from goodnet.serve.judging import load_served
from goodnet.serve.quarantine import Quarantine
from goodnet.serve.service import Service
from goodnet.serve.settings import Settings


def test_a_guarded_model_answers_as_the_guard_does_alone(tmp_path: Path) -> None:
    digits = goodnet.load_data("digits", split="test")
    goodnet.save_model(goodnet.untrained("small_cnn:width=8", digits, seed=0), tmp_path / "model")
    fitted = ["guard", "fit", str(tmp_path / "model"), "--data", "digits", "--method", "strip", "--rate", "0.1"]
    result = CliRunner().invoke(app, [*fitted, "--out", str(tmp_path / "guarded")])
    assert result.exit_code == 0, result.output
    served = load_served(tmp_path / "guarded")
    said = served.model.judge(digits.images[:20])
    with TestClient(
        create_app(Service(served, Quarantine(tmp_path / "q.sqlite3"), Settings())), base_url="http://localhost"
    ) as client:
        sent = [("image", (f"{row}.png", to_png(digits.images[row]))) for row in range(20)]
        response = client.post("/predict", files=sent)
        assert response.status_code == 200, response.text
        predictions = response.json()["predictions"]
        assert 0 < sum(one["triggered"] for one in predictions) < 20
        assert [one["label"] for one in predictions] == said.answers.tolist()
        assert [one["triggered"] for one in predictions] == (said.answers == served.model.num_classes).tolist()
