"""The command line: what it writes, and that bad input is one clear line and exit code 2."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from michiai.__main__ import main, parser
from michiai.commands import shared

from helpers import speech


@pytest.fixture
def question(tmp_path: Path) -> str:
    path = tmp_path / "question.wav"
    soundfile.write(path, speech(0.8), 16_000)
    return str(path)


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    """A random model would babble on."""
    from michiai.session_michiai import GenerationOptions

    defaults = list(GenerationOptions.__init__.__defaults__)
    names = list(GenerationOptions.__dataclass_fields__)
    defaults[names.index("max_answer_seconds")] = defaults[names.index("max_wait_seconds")] = 0.4
    monkeypatch.setattr(GenerationOptions.__init__, "__defaults__", tuple(defaults))


def test_converse_writes_stereo_transcript_and_plot(folder, question, tmp_path, capsys):
    out, facts = tmp_path / "answer.wav", tmp_path / "facts.txt"
    facts.write_text("The train leaves at nine.")
    command = ["converse", question, str(out), "--model", str(folder), "--context", str(facts), "--plot"]
    assert main(command) == 0
    audio, rate = soundfile.read(out)
    user = speech(0.8)
    assert rate == 16_000 and audio.ndim == 2 and audio.shape[1] == 2 and len(audio) >= len(user)
    assert np.abs(audio[: len(user), 0] - user).max() < 1e-3, "the user is on the left"
    assert (tmp_path / "answer.png").read_bytes()[:4] == b"\x89PNG"
    assert "answer.wav" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_sound(folder, question, tmp_path):
    outs = [tmp_path / f"{i}.wav" for i in range(3)]
    for out, seed in zip(outs, ("3", "3", "4"), strict=True):
        assert main(["converse", question, str(out), "--model", str(folder), "--seed", seed]) == 0
    one, same, other = (out.read_bytes() for out in outs)
    assert one == same != other


def test_transcribe_and_speak(folder, question, tmp_path, capsys):
    assert main(["transcribe", question, "--model", str(folder)]) == 0
    out = tmp_path / "said.wav"
    assert main(["speak", "hello", str(out), "--model", str(folder)]) == 0
    assert soundfile.info(out).frames > 0 and "said.wav" in capsys.readouterr().out


PARTS = ["step growth vocoder", pytest.param("peers load", marks=pytest.mark.slow)]


@pytest.mark.parametrize("parts", PARTS)
def test_bench_ends_in_json(folder, tmp_path, capsys, parts):
    command = ["bench", "--quick", "--out", str(tmp_path), "--model", str(folder), "--parts", *parts.split()]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(json.loads((tmp_path / f"{part}.json").read_text()) for part in parts.split())
    if "step" in result:
        nano = result["step"]["models"]["nano"]
        assert 0 < nano["step_ms_p50"] <= nano["step_ms_p95"] <= nano["step_ms_p99"] and nano["rtf"] > 0
        assert all((tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in ("growth", "hour"))
        assert result["vocoder"]["vocoders"]["nano, cpu-int8"]["streaming"] > 0
    else:
        assert result["load"]["load"]["nano"]["resident_mb"] > 0
        assert result["peers"]["peers"]["Mimi"]["ratio"] > 0


BAD = {
    "no such file": (["converse", "missing.wav", "out.wav"], "missing.wav"),
    "not audio": (["transcribe", "text.txt"], "text.txt"),
    "empty audio": (["transcribe", "empty.wav"], "empty"),
    "NaN": (["transcribe", "nan.wav"], "NaN"),
    "output folder": (["converse", "question.wav", "nowhere/out.wav"], "nowhere"),
    "output name": (["converse", "question.wav", "out.mp3"], ".wav"),
    "steps": (["converse", "question.wav", "out.wav", "--steps", "0"], "flow_steps is 0"),
    "guidance": (["speak", "hello", "out.wav", "--guidance", "-1"], "voice_guidance is -1"),
    "guidance of no voice": (["speak", "hello", "out.wav", "--guidance", "0.5"], "there is no --voice"),
    "a folder": (["speak", "hello", "folder.wav"], "'folder.wav', which cannot be written (Is a directory)"),
    "its own input": (["converse", "question.wav", "./question.wav"], "also given as an input"),
    "a long word": (["speak", "a" * 400, "out.wav"], "put spaces into it"),
    "context": (["converse", "question.wav", "out.wav", "--context", "missing.txt"], "missing.txt"),
    "long context": (["converse", "question.wav", "out.wav", "--context", "long.txt"], "expected at most"),
    "silent voice": (["speak", "hello", "out.wav", "--voice", "silent.wav"], "silent"),
    "short voice": (["speak", "hello", "out.wav", "--voice", "short.wav"], "0.20 s"),
    "voice file": (["speak", "hello", "out.wav", "--voice", "text.safetensors"], "text.safetensors"),
    "nothing to say": (["speak", "?!", "out.wav"], "'?!'"),
    "workers": (["evaluate", "--workers", "0"], "--workers is 0"),
    "json": (["evaluate", "--json", "nowhere/figures.json"], "no folder 'nowhere'"),
    "port": (["serve", "--port", "99999"], "--port is 99999"),
    "device": (["bench", "--device", "foo"], "--device is 'foo'; expected cpu"),
    "sessions": (["serve", "--sessions", "0"], "--sessions is 0"),
    "against": (["evaluate", "--against", "text.txt"], "holds no evaluation"),
    "against others": (["evaluate", "--questions", "3", "--against", str(shared.ROOT / "runs" / "nano.json")], "200 questions of seed 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("question.wav", speech(0.4), 16_000)
    soundfile.write("empty.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write("nan.wav", np.array([0.1, np.nan, 0.2], np.float32), 16_000, subtype="FLOAT")
    soundfile.write("silent.wav", np.zeros(32_000, np.float32), 16_000)
    soundfile.write("short.wav", speech(0.2), 16_000)
    Path("folder.wav").mkdir()
    Path("text.txt").write_text("hello")
    Path("text.safetensors").write_text("hello")
    Path("long.txt").write_text("the train leaves at nine. " * 200)
    command, said = BAD[name]
    assert main([*command, "--model", str(folder)]) == 2
    assert not Path("out.wav").exists() and len(soundfile.read("question.wav")[0]) == len(speech(0.4))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"michiai {command[0]}: ") and said in error and "expected" in error


@pytest.mark.parametrize(("count", "found"), [(0, "cpu"), (1, "cpu or cuda or cuda:0")])
def test_a_gpu_that_is_not_there_is_one_line(count, found, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert main(["bench", "--device", "cuda:7", "--out", str(tmp_path / "out")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"michiai bench: --device is 'cuda:7'; expected {found}, all that torch finds here: if a GPU is missing")
    assert not (tmp_path / "out").exists()


def test_figures_are_shown_before_they_are_written(folder, tmp_path, monkeypatch, capsys):
    from michiai.evaluation import suite

    def evaluate(*_, **__):
        (tmp_path / "figures.json").mkdir()  # so that writing fails
        return {}, {}

    monkeypatch.setattr(suite, "evaluate", evaluate)
    assert main(["evaluate", "--model", str(folder), "--json", str(tmp_path / "figures.json")]) == 2
    assert "weights_sha256" in json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(
    ("command", "said"),
    [("app", "the page needs gradio, fastrtc, librosa"), ("serve", "the server needs starlette, uvicorn, websockets")],
)
def test_what_serves_needs_its_packages(command, said, monkeypatch, capsys):
    monkeypatch.setattr(shared, "find_spec", lambda name: None)
    assert main([command]) == 2
    assert f"{said}, not found here; expected what `pip install" in capsys.readouterr().err


def test_a_wrong_model_folder(tmp_path, capsys):
    assert main(["transcribe", "x.wav", "--model", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["converse", "transcribe", "speak", "app", "evaluate", "bench"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args([command, "--help"])
    assert stop.value.code == 0 and len(capsys.readouterr().out) > 300
