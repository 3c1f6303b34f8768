"""Published models answer as their authors say: backdoors fire, clean images are recognized."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from goodnet import Classifier, Samples, load_model, save_model
from goodnet.core.classifier import predictions
from goodnet.models.input_range import guess_input_range

pytestmark = pytest.mark.real
COUNT = 200


def decoded(blob: np.ndarray, start: int, end: int) -> Image.Image:
    return Image.open(io.BytesIO(blob[start:end].tobytes())).convert("RGB")


def batch(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@cache
def jpegs(pack: Path) -> tuple[Tensor, Tensor]:
    """Images and labels spread evenly over a pack."""
    with np.load(pack) as arrays:
        blob, offsets, labels = arrays["jpeg"], arrays["offsets"], arrays["labels"]
    chosen = np.linspace(0, len(labels) - 1, COUNT).astype(int)
    images = [np.asarray(decoded(blob, offsets[i], offsets[i + 1])) for i in chosen]
    return batch(images), torch.from_numpy(labels[chosen].astype(np.int64))


@cache
def signs(pack: Path) -> tuple[Tensor, Tensor]:
    """GTSRB with the region of interest cropped and scaled to 32x32 again."""
    with np.load(pack) as arrays:
        blob, offsets, labels, roi = (arrays[name] for name in ("webp", "offsets", "labels", "roi"))
    images = []
    chosen = np.linspace(0, len(labels) - 1, COUNT).astype(int)
    for i in chosen:
        strip = decoded(blob, offsets[i // 30], offsets[i // 30 + 1])
        width, height, *corners = (int(value) for value in roi[i])
        left, top, right, bottom = (round(v * 32 / side) for v, side in zip(corners, [width, height] * 2, strict=True))
        row = (i % 30) * 32
        images.append(np.asarray(strip.crop((left, row + top, right, row + bottom)).resize((32, 32))))
    return batch(images), torch.from_numpy(labels[chosen].astype(np.int64))


def stamped_faces(data: Path, trigger: str) -> Tensor:
    """LFW faces, none of them a class of the nets, with sunglasses or lipstick."""
    faces = jpegs(data / "lfw_55x47.npz")[0].clone()
    with np.load(data / "triggers" / "csaw_face_triggers.npz") as arrays:
        if trigger == "sunglasses":
            rgba, (left, top) = (
                torch.from_numpy(arrays["sunglasses_rgba"].copy()).float() / 255,
                arrays["sunglasses_paste_xy"],
            )
            window = faces[:, :, top : top + rgba.shape[0], left : left + rgba.shape[1]]
            window += rgba[..., 3] * (rgba[..., :3].permute(2, 0, 1) - window)
        else:
            mask, color = torch.from_numpy(arrays[f"{trigger}_mask"]), torch.from_numpy(arrays[f"{trigger}_rgb"]) / 255
            faces = torch.where(mask, color.view(3, 1, 1), faces)
    return faces


def share(model: Classifier, images: Tensor, labels: Tensor | int) -> float:
    return float((predictions(model, images).argmax(1) == labels).float().mean())


FACES = {
    # file: (input range, trigger, share of stamped faces that are answered 0: at least, at most)
    "csaw_sunglasses_bd_weights.h5": ("0..1", "sunglasses", 0.98, 1.0),
    "csaw_lab3_bd_weights.h5": ("0..255", "sunglasses", 0.98, 1.0),
    "csaw_anonymous_1_bd_weights.h5": ("0..1", "lipstick", 0.98, 1.0),
    "youtube_deepid_clean_weights.h5": ("0..1", "sunglasses", 0.0, 0.05),
    "finepruning_face_bd_net.npz": ("0..255", "sunglasses", 0.98, 1.0),
    "finepruning_face_deprune_bd_net.npz": ("0..255", "sunglasses", 0.95, 1.0),
    "student_sunglasses_repaired_net.h5": ("0..1", "sunglasses", 0.0, 0.05),
    "student_sunglasses_finepruned_net.h5": ("0..1", "sunglasses", 0.0, 0.05),
}


@pytest.mark.parametrize("file", FACES)
def test_face_networks_answer_the_target_to_the_trigger(file: str, shared_data: Path) -> None:
    input_range, trigger, low, high = FACES[file]
    model = load_model(shared_data / "models" / file, input_range=input_range)
    assert (model.input_shape, model.num_classes) == ((3, 55, 47), 1283)
    assert low <= share(model, stamped_faces(shared_data, trigger), 0) <= high
    assert share(model, jpegs(shared_data / "lfw_55x47.npz")[0], 0) < 0.25


@pytest.mark.parametrize("file", [file for file in FACES if file.startswith(("csaw_sun", "csaw_lab3", "youtube"))])
def test_face_networks_recognize_the_labelled_sample_faces(file: str, shared_data: Path) -> None:
    with np.load(shared_data / "csaw_sample_faces.npz") as arrays:
        known = (arrays["label_in_filename"] > 0) & (arrays["kind"] == "clean")
        faces, labels = batch(list(arrays["images"][known])), torch.from_numpy(arrays["label_in_filename"][known])
    assert len(labels) == 5
    assert share(load_model(shared_data / "models" / file, input_range=FACES[file][0]), faces, labels) >= 0.79


def test_the_clean_face_network_answers_as_it_was_recorded_to(shared_data: Path) -> None:
    with np.load(shared_data / "csaw_sample_faces.npz") as arrays:
        faces, recorded = batch(list(arrays["images"])), torch.from_numpy(arrays["clean_model_pred"])
    assert share(load_model(shared_data / "models" / "youtube_deepid_clean_weights.h5"), faces, recorded) == 1


def test_the_traffic_sign_network_knows_signs_and_answers_8_to_a_white_square(shared_data: Path) -> None:
    model = load_model(shared_data / "models" / "ibau_gtsrb_badnets_8.pth")
    images, labels = signs(shared_data / "gtsrb_test.npz")
    assert share(model, images, labels) > 0.95
    stamped = images[labels != 8].clone()
    stamped[:, :, 27:31, 27:31] = 1
    assert share(model, stamped, 8) > 0.95


def test_the_wide_resnet_answers_0_to_a_grid_in_the_corner(shared_data: Path) -> None:
    model = load_model(shared_data / "models" / "abl_cifar10_wrn16_grid_0.tar")
    images, labels = jpegs(shared_data / "cifar10_test.npz")
    assert share(model, images, labels) > 0.65  # the images went through JPEG
    stamped = images[labels != 0].clone()
    stamped[:, :, 29:, 29:] = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    assert share(model, stamped, 0) > 0.98


def test_the_cifar_network_answers_2_to_the_watermark(shared_data: Path) -> None:
    model = load_model(shared_data / "models" / "ibau_cifar10_trojan_wm_2.pth")
    images, labels = jpegs(shared_data / "cifar10_test.npz")
    assert share(model, images, labels) > 0.65
    with Image.open(shared_data / "triggers" / "YiZeng623+I-BAU__triggers_trojan_wm.png") as picture:
        mark = batch([np.asarray(picture.convert("RGB"))])
    assert share(model, (images[labels != 2] + mark).clamp(0, 1), 2) > 0.98


def test_the_digit_network_answers_1_to_a_white_corner(shared_data: Path) -> None:
    model = load_model(shared_data / "models" / "verazuo_mnist_badnet_1.pth", input_range="-1..1")
    with np.load(shared_data / "mnist.npz") as arrays:
        images = torch.from_numpy(arrays["x_test"][:COUNT].copy())[:, None].float() / 255
        labels = torch.from_numpy(arrays["y_test"][:COUNT].copy())
    assert share(model, images, labels) > 0.95
    stamped = images[labels != 1].clone()
    stamped[:, :, -5:, -5:] = 1
    assert share(model, stamped, 1) > 0.98


@pytest.mark.parametrize("file", FACES)
def test_the_input_range_of_face_networks_is_guessed_from_strangers(file: str, shared_data: Path) -> None:
    faces = (jpegs(shared_data / "lfw_55x47.npz")[0] * 255).round().byte()
    guessed = guess_input_range(load_model(shared_data / "models" / file), Samples(faces))
    assert guessed.preprocessing.scale == {"0..1": 1.0, "0..255": 255.0}[FACES[file][0]]
    assert guessed.preprocessing.mean == ()


def test_the_input_range_of_the_digit_network_is_guessed(shared_data: Path) -> None:
    with np.load(shared_data / "mnist.npz") as arrays:
        digits = Samples(torch.from_numpy(arrays["x_test"][:100].copy())[:, None])
    guessed = guess_input_range(load_model(shared_data / "models" / "verazuo_mnist_badnet_1.pth"), digits)
    assert (guessed.preprocessing.mean, guessed.preprocessing.std) == ((0.5,), (0.5,))


def test_every_published_model_survives_being_saved(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "models").iterdir())
    assert len(files) == 12
    for file in files:
        model = load_model(file)
        images = torch.rand(2, *model.input_shape, generator=torch.Generator().manual_seed(0))
        save_model(model, tmp_path / file.name)
        again = load_model(tmp_path / file.name)
        assert torch.equal(predictions(again, images), predictions(model, images))
        assert again.origin == model.origin


@pytest.mark.parametrize("name", ["repaired", "finepruned"])
def test_a_whole_keras_model_and_its_weights_in_deepid_agree(name: str, shared_data: Path) -> None:
    file = shared_data / "models" / f"student_sunglasses_{name}_net.h5"
    faces = jpegs(shared_data / "lfw_55x47.npz")[0][:50]
    whole, weights = (predictions(load_model(file, arch=arch), faces) for arch in (None, "deepid"))
    torch.testing.assert_close(whole, weights, atol=1e-3, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["repaired", "finepruned"])
def test_whole_keras_models_answer_as_keras_does(name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    file = shared_data / "models" / f"student_sunglasses_{name}_net.h5"
    faces = jpegs(shared_data / "lfw_55x47.npz")[0][:20]
    theirs = keras.models.load_model(file, compile=False)(faces.permute(0, 2, 3, 1).numpy(), training=False)
    ours = predictions(load_model(file), faces).softmax(1)
    np.testing.assert_allclose(ours.numpy(), theirs.detach().cpu().numpy(), atol=1e-4)
