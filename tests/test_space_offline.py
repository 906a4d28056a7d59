"""The Space's other tabs: questions, voices and texts from files to files, and what recordings are refused."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

import gradio as gr  # noqa: E402
from gradio.utils import is_static_file  # noqa: E402

from helpers import ROOT, speech  # noqa: E402
from space import page  # noqa: E402
from space.offline import SHOWN, Offline  # noqa: E402
from space.reference import COMPILING, check_reference, two_pitches  # noqa: E402


@pytest.fixture
def offline(engine, tmp_path: Path, monkeypatch) -> Offline:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    (tmp_path / "files").mkdir()
    return Offline(engine)


def test_examples_are_served_from_where_they_are(engine, offline) -> None:
    """Copies would be deleted as uploads are."""
    page.build(engine, 300)
    assert all(is_static_file(str(path)) for path in (ROOT / "examples").glob("*.wav"))


def test_what_telephones_record_is_read(offline, tmp_path: Path) -> None:
    import av

    path, sound = tmp_path / "memo.m4a", speech(2.0, 44_100)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
        frame.rate = 44_100
        file.mux([*stream.encode(frame), *stream.encode(None)])
    samples, rate = offline._sound(str(path))
    assert rate == 44_100 and samples.shape[1] == 1 and samples.dtype == np.float32 and abs(len(samples) / rate - 2) < 0.1
    (tmp_path / "list.m4a").write_text("#EXTM3U\n#EXTINF:10,\nmemo.m4a\n#EXT-X-ENDLIST\n")  # names another file
    with pytest.raises(gr.Error, match="The recording cannot be read; expected sound, for instance WAV"):
        offline.transcribe(str(tmp_path / "list.m4a"))


def test_a_small_file_is_not_gigabytes_of_sound(offline, tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "packed.flac", "w", 655_350, 8, format="FLAC") as file:
        for _ in range(30):
            file.write(np.zeros((655_350, 8), np.int16))
    assert (tmp_path / "packed.flac").stat().st_size < 2**20
    with pytest.raises(gr.Error, match="8 channels of 655350 samples per second; expected at most 2 of 192000"):
        offline.transcribe(str(tmp_path / "packed.flac"))


def test_nothing_is_cloned_in_vain(offline, tmp_path: Path, monkeypatch) -> None:
    ada = str(ROOT / "examples" / "voice_ada.wav")
    with pytest.raises(gr.Error, match="Consent is not given"):
        offline.clone(ada, "no", "hello")

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no")

    with monkeypatch.context() as patch, pytest.raises(gr.Error, match="No"):
        patch.setattr(offline.engine.model, "speak_stream", refuse)
        offline.clone(ada, True, "hello")
    assert not list((tmp_path / "files").rglob("*.safetensors"))
    file, _, remarks = offline.clone(ada, True, "hello")
    assert "s of speech" in remarks
    offline.check_voice(file)
    Path(file).unlink()
    with pytest.raises(gr.Error, match="The voice file is not here any more: files are deleted"):
        offline.speak("hello", file)


def test_a_wrong_voice_file_is_refused_when_it_is_given(offline, tmp_path: Path) -> None:
    path = tmp_path / "voice.safetensors"
    for write, message in (
        (lambda: path.write_text("hello"), "The voice file cannot be read as a voice .*; expected a file written by Voice.save"),
        (lambda: save_file({"latents": torch.zeros(9, 6)}, path), "The voice file is not a voice of version 1; expected a file written"),
        (lambda: offline.engine.model.Voice(torch.zeros(9, 7)).save(path), r"latents of shape \(9, 7\); expected \[frames, 6\]"),
    ):
        write()
        with pytest.raises(gr.Error, match=message):
            offline.check_voice(str(path))


def test_one_text_does_not_hold_up_everybody(offline, monkeypatch) -> None:
    monkeypatch.setattr("space.offline.LONGEST_SPEECH", 0.8)
    rate, said = offline.speak("aaaa " * 80, None, "ada")
    assert len(said) == 0.8 * rate


def test_silence_is_said(offline, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    for ask in (offline.converse, offline.transcribe):
        with pytest.raises(gr.Error, match="The recording is silent; expected audible speech") as error:
            ask(str(tmp_path / "silence.wav"))
        assert error.value.duration == SHOWN
        with pytest.raises(gr.Error, match="record some and press Stop"):
            ask(None)
    assert "Nothing was heard" in page.as_table([])


def test_an_answer_is_shown_from_its_first_word_on() -> None:
    sound = np.arange(32_000, dtype=np.int16)
    rows = [{"start": 0.5, "end": 0.9, "who": "you", "text": "a"}, {"start": 1.0, "end": 1.5, "who": "MichiAI", "text": "<b>"}]
    (rate, shown), table = page.as_shown((16_000, sound), rows)
    assert rate == 16_000 and shown[0] == 0.9 * 16_000 and shown[-1] == sound[-1] and "&lt;b&gt;" in table
    assert len(page.as_shown((16_000, sound), rows[:1])[0][1]) == len(sound)


# -------------------------------------------------------------------- references


def test_references_are_checked() -> None:
    good = speech(5.0)
    assert check_reference(good[:, None], 16_000) == ["4.8 s of speech."]
    clipped = np.clip(good * 20, -1, 1)
    nan = good.copy()
    nan[100] = np.nan
    rare = np.concatenate([speech(1.0), np.zeros(32_000, np.float32)])
    for audio, message in (
        (speech(2.0), "2.0 s long; expected 3 to 30 s"),
        (speech(31.0), "31.0 s long; expected 3 to 30 s"),
        (np.zeros(64_000, np.float32), "silent; expected audible speech"),
        (rare, "only 1.0 s of audible speech"),
        (clipped, "% of the recording is clipped"),
        (nan, "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            check_reference(audio[:, None].repeat(2, axis=1), 16_000)


def test_two_people_in_a_reference_are_remarked_on() -> None:
    ada, ben, cleo = (soundfile.read(ROOT / f"examples/voice_{name}.wav", dtype="float32")[0] for name in ("ada", "ben", "cleo"))
    for one in (ada, ben, cleo, np.concatenate([ada, ada[::-1]])):
        assert two_pitches(one, 16_000) is None
    low, high = two_pitches(np.concatenate([ada, ben]), 16_000)
    assert 70 < low < 100 and 130 < high < 170
    both = np.concatenate([ben, cleo])[:, None]
    with COMPILING:  # nobody waits for it
        assert len(check_reference(both, 16_000)) == 1
    assert check_reference(both, 16_000)[-1] == "It sounds like two people, at 83 and 187 Hz: the clone will be neither."
