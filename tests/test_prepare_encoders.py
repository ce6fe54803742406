"""The real sentence encoder, of a few numbers: looked for first, named in the manifest by what is in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dumps import model_folder, read, recbole

from smore_ext.data import DatasetError
from smore_ext.prepare import files, prepare
from smore_ext.prepare.__main__ import main
from smore_ext.prepare.encoders import encode_texts, find_text_encoder
from smore_ext.prepare.files import model_identity


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer of eight words, as Hugging Face saves it."""
    pytest.importorskip("sentence_transformers", exc_type=ImportError)
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "title", "of", "b000"]
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_the_manifest_knows_the_encoder_again(model: Path, tmp_path: Path) -> None:
    import sentence_transformers

    source, items = recbole(tmp_path)
    prepared = prepare(source, tmp_path / "x", items=items, text_encoder=str(model))
    about, versions = prepared.manifest["features"]["text"], prepared.manifest["versions"]
    assert about["encoder"] == str(model) and about["encoder_files"] == model_identity(model)
    assert versions["sentence-transformers"] == sentence_transformers.__version__ and versions["duckdb"]
    rows = read(prepared.folder).features["text"].numpy()
    alone = sentence_transformers.SentenceTransformer(str(model), local_files_only=True).encode("Title of B000")
    np.testing.assert_allclose(rows[0], alone, rtol=1e-5)


def test_an_encoder_is_looked_for_before_a_table_is_read(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, items = recbole(tmp_path)
    (tmp_path / "empty").mkdir()
    source.write_text("no table")
    for name, got in {
        "no-such-model-here": "no folder and no model of that name",
        str(tmp_path / "nowhere"): "no folder and no model of that name",
        str(tmp_path / "empty"): "a folder without modules.json or config.json",
    }.items():
        flags = ["-o", str(tmp_path / "out" / "x"), "--items", str(items), "--text-encoder", name]
        assert main([str(source), *flags]) == 2
        error = capfd.readouterr().err
        assert error == f"error: {name}: expected a sentence-transformers model on this machine, got: {got}\n"
        assert not (tmp_path / "out").exists()


def test_what_is_encoded_is_of_these_weights(model: Path, tmp_path: Path) -> None:
    """A run that goes on takes nothing that other weights under the same name made."""
    first, told = find_text_encoder(str(model)), list[str]()
    encode_texts(["title", ""], first, tmp_path / "partial", told.append)
    encode_texts(["title", ""], first, tmp_path / "partial", told.append)
    assert len(told) == 1
    with (model / "README.md").open("a") as file:
        file.write("other weights")
    rows = encode_texts(["title", ""], find_text_encoder(str(model)), tmp_path / "partial", told.append)
    assert len(told) == 2 and rows[0].any() and not rows[1].any()


def test_the_identity_is_of_names_and_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").write_text("x")
    known = model_identity(folder)
    assert (known["files"], known["bytes"], known["hashed"]) == (3, 6, "all files")
    (folder / ".cache" / "lock").write_text("y")
    moved = tmp_path / "other"
    folder.rename(moved)
    assert model_identity(moved) == known and json.dumps(known)
    (moved / "model.safetensors").write_text("[]")
    assert model_identity(moved)["sha256"] != known["sha256"]
    (moved / "model.safetensors").rename(moved / "model.bin")
    assert model_identity(moved)["sha256"] != known["sha256"]


def test_of_a_large_encoder_the_weights_count_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path)
    (folder / "model.safetensors").write_bytes(bytes(3 << 20))
    monkeypatch.setattr(files, "HASHED", 3 << 20)
    monkeypatch.setattr(files, "SMALL", 1 << 20)
    known = model_identity(folder)
    assert known["hashed"] == "files up to 1 MiB, and the sizes of larger ones"
    (folder / "model.safetensors").write_bytes(b"\1" * (3 << 20))
    assert model_identity(folder) == known
    (folder / "model.safetensors").write_bytes(bytes((3 << 20) + 1))
    larger = model_identity(folder)
    (folder / "config.json").write_text("[]")
    assert len({known["sha256"], larger["sha256"], model_identity(folder)["sha256"]}) == 3


def test_a_broken_model_is_one_error(model: Path, tmp_path: Path) -> None:
    source, items = recbole(tmp_path)
    folder = model_folder(tmp_path)
    with pytest.raises(DatasetError, match=f"^{folder}: expected a sentence-transformers model on this machine, got: "):
        prepare(source, tmp_path / "x", items=items, text_encoder=str(folder))
    assert not (tmp_path / "x").exists()
