import json
from pathlib import Path
from typing import Any

import pytest
import torch

from opendalle.base.errors import BadModel
from opendalle.checkpoint.folder import Part, read_model, verify_model, write_model

CARD = {"data": "drawn circles", "recipe": "circles", "licence": "Apache-2.0", "scores": {"top-1": 0.5}}


def some_parts(value: float = 1.0) -> dict[str, Part]:
    return {
        "decoder": Part({"width": 8}, {"w": torch.full((2, 3), value), "b": torch.full((3,), value)}, "bfloat16"),
        "text": Part({"context": 32}, extra={"tokenizer.json": {"merges": ["天 空", "a b"]}}),
    }


def write(folder: Path, value: float = 1.0, **more: bool) -> None:
    write_model(folder, kind="dalle2", parts=some_parts(value), card=CARD, **more)


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path / "model")
    model = verify_model(tmp_path / "model")
    assert (model.kind, model.card, set(model.parts)) == ("dalle2", CARD, {"decoder", "text"})
    decoder = model.part("decoder")
    assert (decoder.config, decoder.storage) == ({"width": 8}, "bfloat16")
    assert torch.equal(decoder.state()["w"], torch.ones(2, 3))
    assert model.part("text").state() == {}
    assert model.part("text").extra("tokenizer.json") == {"merges": ["天 空", "a b"]}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model"], "no draft is left behind"


def test_the_folders_sha256_stands_for_every_byte_of_it(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    write(tmp_path / "c", 2.0)
    a, b, c = (read_model(tmp_path / name).sha256 for name in "abc")
    assert a == b != c


def test_an_existing_model_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "model")
    with pytest.raises(BadModel, match="exists already"):
        write(tmp_path / "model", 2.0)
    assert float(read_model(tmp_path / "model").part("decoder").state()["b"][0]) == 1
    write(tmp_path / "model", 2.0, replace=True)
    assert float(read_model(tmp_path / "model").part("decoder").state()["b"][0]) == 2
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["decoder/weights.safetensors", "decoder/config.json", "text/tokenizer.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "link"])
def test_every_kind_of_damage_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path / "model")
    path = tmp_path / "model" / name
    payload = bytearray(path.read_bytes())
    if damage == "flip":
        payload[-1] ^= 1
        path.write_bytes(payload)
    elif damage == "cut":
        path.write_bytes(payload[:-1])
    else:
        path.rename(tmp_path / "elsewhere")
        if damage == "link":
            path.symlink_to(tmp_path / "elsewhere")
    model = read_model(tmp_path / "model")
    with pytest.raises(BadModel, match=path.name):
        model.verify()
    part = model.part(name.split("/")[0])
    with pytest.raises(BadModel, match=path.name):
        {"weights.safetensors": part.state, "config.json": lambda: part.config}.get(
            path.name, lambda: part.extra(path.name)
        )()


def test_a_pickle_that_calls_itself_safetensors_is_refused(tmp_path: Path) -> None:
    import hashlib

    write(tmp_path / "model")
    evil = b"\x80\x04cos\nsystem\n(S'echo owned'\ntR."
    (tmp_path / "model/decoder/weights.safetensors").write_bytes(evil)
    head = json.loads((tmp_path / "model/model.json").read_text())
    entry = {"bytes": len(evil), "sha256": hashlib.sha256(evil).hexdigest()}
    head["files"]["decoder/weights.safetensors"] = entry
    (tmp_path / "model/model.json").write_text(json.dumps(head))
    with pytest.raises(BadModel, match="a safetensors file"):
        read_model(tmp_path / "model").part("decoder").state()


def test_a_folder_of_format_1_is_read(tmp_path: Path) -> None:
    write(tmp_path / "model")
    head = tmp_path / "model/model.json"
    assert '"format": 2' in head.read_text()
    head.write_text(head.read_text().replace('"format": 2', '"format": 1'))
    assert torch.equal(verify_model(tmp_path / "model").part("decoder").state()["w"], torch.ones(2, 3))


def test_numbers_that_do_not_fit_together_are_told_with_their_file(tmp_path: Path) -> None:
    numbers, scales = torch.ones(4, 4, dtype=torch.int8), torch.ones(3)
    part = Part({}, {"w": numbers, "w#scale": scales})
    write_model(tmp_path / "model", kind="x", parts={"part": part}, card=CARD)
    with pytest.raises(BadModel, match=r"weights\.safetensors with weights 'w' as int8 .*wanted int8 numbers"):
        read_model(tmp_path / "model").part("part").state()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "a\\b", "C:x", ".hidden", "a//b", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / "model")
    head = json.loads((tmp_path / "model/model.json").read_text())
    head["files"][name] = {"bytes": 1, "sha256": "0"}
    (tmp_path / "model/model.json").write_text(json.dumps(head))
    with pytest.raises(BadModel, match="file name"):
        read_model(tmp_path / "model")
    with pytest.raises(BadModel):
        write_model(tmp_path / "new", kind="x", parts={name: Part({})}, card=CARD)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "unreadable"),
        ("[]", "a list"),
        ('{"format": 99}', "Update opendalle"),
        ('{"format": 1, "kind": 3}', "kind = 3"),
        ('{"format": ' + "[" * 900 + "]" * 900 + "}", "format"),
        ("[" * 100_000, "unreadable"),
        ('{"format": 1, "kind": "x", "card": {}, "parts": {}, "files": {"a": 1}}', "bytes and sha256"),
        ('{"format": 1, "kind": "x", "card": {}, "parts": {"a": 1}, "files": {}}', "part"),
    ],
)
def test_a_wrong_model_json_is_refused_in_words(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(BadModel, match=says):
        verify_model(tmp_path)


@pytest.mark.parametrize("file", ["model.json", "decoder/weights.safetensors", "text/tokenizer.json"])
def test_a_file_that_may_not_be_read_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    write(tmp_path / "model")
    real = Path.open

    def refuse(path: Path, *arguments: Any, **named: Any) -> Any:
        if path == tmp_path / "model" / file:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(BadModel, match=rf"{file}, which cannot be read \(Permission denied\)"):
        verify_model(tmp_path / "model")


def test_strays_missing_parts_and_silent_cards_are_named(tmp_path: Path) -> None:
    write(tmp_path / "model")
    model = read_model(tmp_path / "model")
    with pytest.raises(BadModel, match="decoder, text"):
        model.part("prior")
    with pytest.raises(BadModel, match=r"decoder/config\.json"):
        model.part("decoder").extra("tokenizer.json")
    (tmp_path / "model" / "decoder" / "notes.txt").write_text("hello")
    with pytest.raises(BadModel, match=r"notes\.txt"):
        model.verify()
    with pytest.raises(BadModel, match=r"no model\.json"):
        read_model(tmp_path / "nothing")
    with pytest.raises(BadModel, match="without recipe, licence"):
        write_model(tmp_path / "new", kind="x", parts={}, card={"data": "d"})


def test_a_crash_between_two_renames_leaves_the_old_model_and_says_where(tmp_path: Path) -> None:
    write(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".model.old-0123abcd")
    with pytest.raises(BadModel, match=r"\.model\.old-0123abcd: rename that back"):
        read_model(tmp_path / "model")
