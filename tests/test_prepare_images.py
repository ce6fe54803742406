"""Images to features: a timm model in a folder, images missing, damaged or twice; and the real library."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dumps import ITEMS, model_folder, read, recbole

from smore_ext.data import DatasetError
from smore_ext.prepare import encoders, prepare

Image = pytest.importorskip("PIL.Image")


class Encoder(torch.nn.Module):
    """Mean colours, in place of a network."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("timm")

    def create_model(name: str, pretrained: bool, num_classes: int) -> Encoder:
        assert pretrained and num_classes == 0
        if "broken" in Path(name.removeprefix("local-dir:"), "config.json").read_text():
            raise ValueError("no such architecture")
        return Encoder()

    def create_transform(is_training: bool, **_: Any) -> Any:
        assert not is_training
        return lambda image: torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1)

    module.__version__ = "1.0"  # type: ignore[attr-defined]
    module.create_model = create_model  # type: ignore[attr-defined]
    module.data = types.SimpleNamespace(  # type: ignore[attr-defined]
        create_transform=create_transform, resolve_model_data_config=lambda _: {"input_size": (3, 8, 8)}
    )
    monkeypatch.setitem(sys.modules, "timm", module)
    monkeypatch.setattr(encoders, "CHUNK", 16)
    monkeypatch.setattr(encoders, "BATCH", 5)
    return module


def painted(place: Path, items: list[str]) -> Path:
    """An image an item, of one colour; in some modes that are not RGB."""
    folder = place / "pictures"
    folder.mkdir()
    for n, item in enumerate(items):
        image = Image.new("RGB", (8, 8), (n, 2 * n, 250 - n))
        if n % 3 == 1:
            image = image.convert("RGBA")
        image.save(folder / f"{item}.{('png', 'PNG', 'bmp')[n % 3]}")
    (folder / "nobody.png").write_bytes(b"not read")
    return folder


def test_images_become_features_and_those_missing_are_told(timm: types.ModuleType, tmp_path: Path) -> None:
    source, _ = recbole(tmp_path)
    folder, model = painted(tmp_path, ITEMS[:-4]), model_folder(tmp_path)
    told: list[str] = []
    prepared = prepare(source, tmp_path / "x", images=folder, image_encoder=str(model), tell=told.append)
    data = read(prepared.folder)
    for row, item in enumerate(data.item_ids or ()):
        n = ITEMS.index(item)
        if n < len(ITEMS) - 4:
            assert data.features["image"][row].tolist() == [n, 2 * n, 250 - n]
    about = prepared.manifest["features"]["image"]
    lost = (prepared.folder / "image_missing.txt").read_text().split()
    assert about["encoder"] == str(model) and about["encoder_files"]["files"] == 3
    assert prepared.manifest["versions"]["timm"] == "1.0"
    assert about["missing"] == len(lost) == len(set(ITEMS[-4:]) & set(data.item_ids or ()))
    assert any("encoded 16 of" in line for line in told) and not list(tmp_path.glob(".x*"))
    assert json.loads((prepared.folder / "manifest.json").read_text())["sources"]["images"]["name"] == "pictures"


def test_bad_images(timm: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = recbole(tmp_path)
    folder, model = painted(tmp_path, ITEMS), model_folder(tmp_path)

    def fails(message: str, kind: type[Exception] = DatasetError, **arguments: Any) -> None:
        with pytest.raises(kind, match=message):
            prepare(source, tmp_path / "x", **({"images": folder, "image_encoder": str(model)} | arguments))
        assert not (tmp_path / "x").exists()

    fails("absent: expected a timm model on this machine, got: no folder", image_encoder="absent")
    fails("pictures: expected a timm model .*, got: a folder without config.json", image_encoder=str(folder))
    (model / "config.json").write_text("broken")
    fails("m: expected a timm model on this machine, got: no such architecture")
    (model / "config.json").write_text("{}")
    fails("expected a folder of images and an encoder for them, got one of both", image_encoder=None)
    fails("expected a folder of images that are named by item", images=tmp_path / "no")
    (tmp_path / "empty").mkdir()
    fails("got none of theirs", images=tmp_path / "empty")
    fails("that no other features have, got 'image'", vectors={"image": tmp_path / "v.npy"})
    monkeypatch.setitem(sys.modules, "timm", None)
    fails("an image encoder needs timm: pip install 'smore-ext\\[image\\]'", ImportError)
    monkeypatch.setitem(sys.modules, "timm", timm)
    (folder / f"{ITEMS[0]}.jpg").write_bytes(b"")
    fails(f"{ITEMS[0]}.png: expected one image an item, got {ITEMS[0]}.jpg too")
    (folder / f"{ITEMS[0]}.png").unlink()
    fails(f"{ITEMS[0]}.jpg: expected an image, got: cannot identify image")


def test_the_real_library(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", exc_type=ImportError)
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("resnet10t", pretrained=False)
    (tmp_path / "m").mkdir()
    save_file(network.state_dict(), tmp_path / "m" / "model.safetensors")
    known = ("input_size", "mean", "std", "interpolation", "crop_pct", "num_classes", "first_conv", "classifier")
    settings = {name: value for name, value in network.pretrained_cfg.items() if name in known}
    about = {"architecture": "resnet10t", "num_classes": 1000, "num_features": 512, "pretrained_cfg": settings}
    (tmp_path / "m" / "config.json").write_text(json.dumps(about))
    folder = painted(tmp_path, ITEMS[:7])
    files = {item: next(folder.glob(f"{item}.*")) for item in ITEMS[:7]}
    model = encoders.find_image_encoder(str(tmp_path / "m"))
    items, rows = encoders.encode_images(files, model, tmp_path / "partial", lambda _: None)
    assert items == sorted(ITEMS[:7]) and rows.shape == (7, 512) and np.isfinite(rows).all() and rows.std() > 0
