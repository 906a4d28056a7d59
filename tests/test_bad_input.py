"""Bad input to a conversation: each message names the value, what was expected and the remedy, and the session goes on unharmed."""

import numpy as np
import pytest
import torch

from michiai.session_michiai import GenerationOptions
from michiai.voice_michiai import Voice

from helpers import same, speech

BAD_CHUNKS = [
    (
        np.array([0.1, np.nan, 0.2], np.float32),
        16_000,
        "1 NaN or infinite samples of 3; expected finite numbers",
    ),
    (np.array([np.inf]), 16_000, "NaN or infinite"),
    (np.zeros(10), 0, "is 0; expected 1000 to 768000"),
    (np.zeros(10), 16.5, "expected a whole number"),
    (np.zeros((3, 4, 5)), 16_000, "shape"),
    (np.array([30_000.0]), 16_000, "divide by 32768"),
    (np.zeros(5, bool), 16_000, "type"),
]


@pytest.mark.parametrize(("chunk", "rate", "message"), BAD_CHUNKS)
def test_a_bad_chunk_is_named_and_the_session_goes_on_unharmed(model, chunk, rate, message: str) -> None:
    good = model.session().push(speech(1.0))
    session = model.session()
    frames = session.push(speech(1.0)[:7000])
    with pytest.raises(ValueError, match=message):
        session.push(chunk, rate)
    assert same(frames + session.push(speech(1.0)[7000:]), good)


def test_bad_text_is_named_and_the_session_goes_on_unharmed(model) -> None:
    good = model.session().push(speech(1.0))
    session = model.session()
    for text, message in (
        ("", "expected at least one letter"),
        ("?!", "expected at least one letter"),
        ("seven " * 99, "expected at most 30, half of the text window"),
    ):
        with pytest.raises(ValueError, match=message):
            session.inject(text)
    with pytest.raises(ValueError, match="at least one"):
        next(session.read("..."))
    assert same(session.push(speech(1.0)), good)


def test_a_context_beyond_the_window_is_named(model) -> None:
    with pytest.raises(ValueError, match=r"the prompt takes \d+ positions .*expected at most 128: shorten"):
        model.session(context="the train leaves at nine " * 60)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ((np.zeros(0), 16_000), "empty"),
        ((speech(0.4), 16_000), r"0.40 s long; expected 1 to 30 s"),
        ((np.zeros(32_000), 16_000), "silent"),
        ((np.full(32_000, np.nan), 16_000), "NaN"),
        ("missing.wav", "cannot be read"),
    ],
)
def test_a_bad_reference_is_named(model, audio, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.voice(audio)


def test_a_long_reference_is_trimmed_and_said(model, caplog) -> None:
    with caplog.at_level("WARNING"):
        model.voice((speech(31.0), 16_000))
    assert "31.0 s long; only its first 30 s are used" in caplog.text


def test_a_voice_of_another_checkpoint_or_no_voice_is_named(model, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"shape \(40, 7\); expected \[frames, 6\]"):
        model.session(voice=Voice(torch.zeros(40, 7)))
    for latents in (torch.zeros(0, 6), torch.full((9, 6), torch.nan), torch.zeros(9, 6, dtype=torch.long)):
        with pytest.raises(ValueError, match=rf"the voice has {len(latents)} frames of {latents.dtype}, or some are not finite; expected"):
            model.session(voice=Voice(latents))
    (tmp_path / "x").write_text("no")
    for path in (tmp_path / "x", tmp_path / "missing"):
        with pytest.raises(ValueError, match="cannot be read as a voice"):
            Voice.load(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"flow_steps": 0}, ValueError, "flow_steps is 0; expected a whole number"),
        ({"flow_steps": 1.5}, ValueError, "flow_steps is 1.5"),
        ({"text_temperature": -1}, ValueError, "text_temperature is -1; expected"),
        ({"noise_temperature": float("nan")}, ValueError, "noise_temperature is nan"),
        ({"text_temperature": 1e-9}, ValueError, "text_temperature is 1e-09; expected 0"),
        ({"say_threshold": 1.5}, ValueError, "say_threshold is 1.5; expected a probability between 0 and 1"),
        ({"tempreature": 1}, TypeError, "tempreature"),
    ],
)
def test_bad_options_are_named(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        GenerationOptions(**options)


def test_options_may_be_named_in_a_dict(model) -> None:
    assert model.session(options={"flow_steps": 2}).options == GenerationOptions(flow_steps=2)
    for bad in ({"steps": 2}, 3):
        with pytest.raises(ValueError, match=r"options are .*; expected GenerationOptions, or a dict of some of flow_steps, "):
            model.session(options=bad)
    with pytest.raises(ValueError, match="expected a whole number of at most 64 bits"):
        model.session(seed=2**64)
    with pytest.raises(ValueError, match="seed is None; expected a whole number"):
        model.session(seed=None)
