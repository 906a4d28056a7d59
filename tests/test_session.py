"""Conversations: any chunks, any number of them, any errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from michiai import conversation_michiai
from michiai.modeling_michiai import StepOutput
from michiai.session_michiai import GenerationOptions
from michiai.spoken_michiai import in_parts
from michiai.voice_michiai import Voice

from helpers import said, same, speech

FRAME = 1280


def pushed(session, pcm, sizes: list[int], rate: int | None = None) -> list:
    frames, at = [], 0
    for size in sizes:
        frames += session.push(pcm[at : at + size], rate)
        at += size
    return frames


def turns_taken(model, monkeypatch, heard: list[bool], chance: float) -> list[int]:
    """Frames in which a session opens a turn, if news has the same `chance` in every frame and words are `heard` in some."""
    session = model.session()
    turn, done = (model.config.special_tokens[name] for name in ("<turn>", "<done>"))

    def step(audio, state, noise, flow_steps, choose) -> StepOutput:
        logits = torch.full((1, model.config.text_config.vocab_size), float("-inf"))
        logits[0, [0, done if session.speaking else turn]] = torch.tensor([1 - chance, chance]).log()
        word = torch.tensor([5 * heard[session.index]])
        return StepOutput(torch.zeros(1, FRAME), choose(logits), word, torch.zeros(1), logits, noise)

    monkeypatch.setattr(model, "step", step)
    frames = session.push(np.zeros(FRAME * len(heard), np.float32))
    return [a.index for a, b in zip(frames, [None, *frames], strict=False) if a.speaking and not (b and b.speaking)]


def test_an_answer_comes_at_the_median_of_its_time(model, monkeypatch) -> None:
    assert turns_taken(model, monkeypatch, [i == 2 for i in range(9)], 0.2) == [6]  # 0.8 to the fourth is the first below a half
    assert turns_taken(model, monkeypatch, [i in (2, 5) for i in range(12)], 0.2) == [9]  # the user goes on: anew
    assert turns_taken(model, monkeypatch, [False], 0.6) == [0]  # one frame may be enough


def test_nothing_is_said_into_silence_however_long(model, monkeypatch) -> None:
    assert turns_taken(model, monkeypatch, [False] * 100, 0.2) == []
    assert turns_taken(model, monkeypatch, [i == 1 for i in range(100)], 0.2) == [5]  # one answer, and no second


def test_the_words_of_a_context_are_expected_and_injected_ones_before_them(model) -> None:
    def first_pieces(*words: str) -> list[int]:
        return [model.tokenizer(" " + word, add_special_tokens=False)["input_ids"][0] for word in words]

    def expected(session) -> list[int]:
        return [piece for before, piece in session.state["listen.expected"][0].tolist() if before == 0 and piece]

    session = model.session(context="monday, monday.", instructions="count")
    assert expected(session) == first_pieces("count", "monday")
    session.inject("seven")
    assert expected(session) == first_pieces("seven", "count", "monday")
    session.reset()
    assert expected(session) == first_pieces("count", "monday")


# ---------------------------------------------------------------- chunks and formats


@pytest.fixture(scope="module")
def whole(model) -> list:
    return model.session(seed=1).push(speech(3.0))


@pytest.mark.parametrize(
    "sizes",
    [
        [1] * 1400 + [46_600],
        [FRAME] * 37 + [640],
        [1279, 1, 1281, 45_439],
        [0, 47_999, 1],
        [441] * 108 + [372],
    ],
)
def test_chunks_of_any_size_give_the_same_bits(model, whole, sizes: list[int]) -> None:
    frames = pushed(model.session(seed=1), speech(3.0), sizes)
    assert len(frames) == 37 and same(frames, whole)
    assert len({f.text for f in frames}) > 2  # the random model does talk


@pytest.mark.parametrize("form", ["int16", "tensor", "float64", "stereo", "stereo across"])
def test_formats_of_samples(model, form: str) -> None:
    pcm = np.round(speech(1.0) * 32768) / 32768
    given = {"int16": (pcm * 32768).astype(np.int16), "tensor": torch.from_numpy(pcm), "float64": pcm.astype(np.float64),
             "stereo": np.stack([pcm, pcm], 1), "stereo across": np.stack([pcm, pcm])}[form]  # fmt: skip
    assert same(model.session().push(given), model.session().push(pcm.astype(np.float32)))


def test_stereo_chunks_of_any_size_give_the_same_bits(model) -> None:
    pcm = np.stack([speech(0.5), speech(0.5, seed=1)], 1)
    assert same(pushed(model.session(), pcm, [1, 0, 2, 1, 7996]), model.session().push(pcm))


def test_a_conversation_begins_without_a_click(model, monkeypatch) -> None:
    plain = model.step
    monkeypatch.setattr(model, "step", lambda *given, **options: replace(plain(*given, **options), audio=torch.ones(1, FRAME)))
    first, second = (frame.audio for frame in model.session().push(speech(0.17)))
    assert first[0] == 0 and first[100] < 0.01 and first[-1] == 1 and (first.diff() > 0).all() and (second == 1).all()


def test_what_a_frame_gives_is_the_callers_own(model) -> None:
    model.session().push(speech(0.1))[0].audio.mul_(0.5)
    model.voice((speech(2.0), 16_000)).latents.mul_(0.5)


@pytest.mark.parametrize("rate", [48_000, 44_100, 8_000])
def test_other_rates(model, rate: int) -> None:
    pcm = speech(1.5, rate)
    whole = model.session().push(pcm, sampling_rate=rate)
    chunks = [rate // 50] * 70 + [1] * 5
    assert len(whole) == 18
    assert same(pushed(model.session(), pcm, [*chunks, len(pcm) - sum(chunks)], rate), whole)


def test_the_rate_may_change_in_a_session(model) -> None:
    session = model.session()
    frames = session.push(speech(0.5)) + session.push(speech(0.5, 48_000), 48_000) + session.push(speech(0.5))
    assert len(frames) == 18 and [f.index for f in frames] == list(range(18))


# ---------------------------------------------------------------- several conversations


def test_two_interleaved_sessions_are_as_alone(model) -> None:
    a, b = speech(2.0, seed=1), speech(2.0, seed=2)
    alone = [model.session(seed=5).push(a), model.session(seed=6, context="the room is blue").push(b)]
    one, two, got = model.session(seed=5), model.session(seed=6, context="the room is blue"), ([], [])
    for i in range(0, len(a), 1000):
        got[0].extend(one.push(a[i : i + 1000]))
        got[1].extend(two.push(b[i : i + 1000]))
    assert same(got[0], alone[0]) and same(got[1], alone[1])


def test_fork_reset_and_seed(model) -> None:
    first, second = speech(1.3, seed=1), speech(1.0, seed=2)
    session = model.session(seed=2, instructions="your name is nora")
    before = session.push(first, 16_000)
    twin = session.fork()
    after = session.push(second)
    assert not same(twin.fork().push(first), after)
    assert same(twin.push(second), after)
    session.reset()
    assert same(session.push(first), before)
    other = model.session(seed=3, instructions="your name is nora").push(first)
    assert not torch.equal(said(other)[0], said(before)[0])


def test_injected_text_changes_what_follows_and_takes_no_audio_time(model) -> None:
    session, other = model.session(), model.session()
    assert same(session.push(speech(0.8)), other.push(speech(0.8)))
    session.inject("The train leaves at nine.")
    a, b = session.push(speech(0.8)), other.push(speech(0.8))
    assert [f.index for f in a] == [f.index for f in b] and not same(a, b)


def test_what_is_injected_waits_until_nobody_speaks(model, monkeypatch) -> None:
    own = {20: "<turn>", 30: "<done>"}
    session, told = model.session(), []

    def step(audio, state, noise, flow_steps, choose) -> StepOutput:
        token = model.config.special_tokens[own.get(session.index, "<pad>")]
        word = torch.tensor([5 * (session.index == 5)])
        return StepOutput(torch.zeros(1, FRAME), torch.tensor([token]), word, torch.zeros(1), torch.zeros(1, 9), noise)

    monkeypatch.setattr(model, "step", step)
    monkeypatch.setattr(model, "inject", lambda state, tokens: told.append((session.index, model.tokenizer.decode(tokens[0]).strip())))
    for index in range(40):
        if index in (2, 8, 22, 25):  # nobody has spoken; the user has just; it speaks
            session.inject(f"it is {index}")
        twin = session.fork()
        session.push(np.zeros(FRAME, np.float32))
    one, other = "<context> it is twenty two<user>", "<context> it is twenty five<user>"
    assert told == [(2, "<context> it is two<user>"), (19, "<context> it is eight<user>"), (31, one), (31, other)]
    assert twin._told == []


def test_whoever_stops_or_leaves_what_is_read_is_answered_again(model) -> None:
    for leave in (False, True):
        session, sounds = model.session(), 0
        reading = session.read("one two three four. five six seven eight.")
        for _ in reading:
            sounds += 1
            twin = session.fork()
            if session.speaking and leave:
                reading.close()
            elif session.speaking:
                session.stop()
        assert session._queue is None and sounds < 40
        assert twin._queue is None or twin._queue is not session._queue
        frames = session.push(speech(4.0))
        assert not frames[0].speaking and any(frame.text for frame in frames)  # the random model talks as it likes


def test_a_long_session_has_flat_memory(model) -> None:
    session, shapes = model.session(context="the train leaves at nine"), []
    for i in range(8):
        frames = session.push(speech(2.0, seed=i))
        shapes.append({name: tuple(memory.shape) for name, memory in session.state.items()})
        assert all(torch.isfinite(f.audio).all() for f in frames)
    assert session.index == 200 > 6 * model.config.window
    assert shapes[0] == shapes[-1]


def test_a_closed_session_says_so(model) -> None:
    with model.session() as session:
        session.push(speech(0.2))
    for use in (
        lambda: session.push(speech(0.2)),
        lambda: session.inject("hello"),
        session.frames,
        session.fork,
        session.reset,
    ):
        with pytest.raises(ValueError, match="the session is closed; expected an open one"):
            use()


# ---------------------------------------------------------------- what people call


def test_converse_is_time_synchronous_and_ends(model) -> None:
    options = GenerationOptions(max_answer_seconds=1.0, max_wait_seconds=0.5)
    reply = model.converse((speech(2.03, 48_000), 48_000), options=options, context="nothing")
    assert len(reply.audio) == len(reply.user_audio) == len(reply.frames) * FRAME >= 26 * FRAME
    assert len(reply.frames) < 26 + 60
    assert reply.text == "".join(f.text for f in reply.frames).strip()
    for start, end, who, text in reply.transcript():
        assert 0 <= start < end and who in ("user", "michi") and isinstance(text, str)
    with model.session(options=options) as session:  # a second recording is told from its own beginning
        replies = [session.converse((speech(2.03), 16_000)) for _ in range(2)]
        assert all(end < len(reply.audio) / 16_000 + 0.01 for reply in replies for _, end, _, _ in reply.transcript())


def test_speak_says_all_words_and_stops(model) -> None:
    with model.session() as session:
        frames = [sound for sound in session.read("the train leaves at nine")]
    sound = model.speak("the train leaves at nine")
    assert torch.equal(torch.cat(frames), sound) and sound.dtype == torch.float32 and len(sound) % FRAME == 0


def test_what_is_read_is_told_first_a_sentence_at_a_time(model, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(model, "inject", lambda state, tokens: told.append(model.tokenizer.decode(tokens[0]).strip()))
    with model.session() as session:
        list(session.read("The train leaves. At nine!"))
        assert told == ["repeat after me the train leaves", "repeat after me at nine"]
        told.clear()
        monkeypatch.setattr(session, "_say", lambda words: (words.clear(), iter(()))[1])
        long = " ".join(["nine"] * 400)
        list(session.read(long))
        parts = [text.removeprefix("repeat after me ") for text in told]
        sizes = [len(session._tokens(part)[0]) for part in parts]
    assert " ".join(parts) == long and len(parts) > 1
    assert max(sizes) + len(session._tokens("repeat after me <turn> <done>")[0]) + max(sizes) <= model.config.text_window


def test_sentences_of_what_is_read() -> None:
    assert in_parts("it is nine . or ten", len, 100) == ["it is nine", "or ten"]
    assert in_parts("It is 9.30. Is it? Yes", len, 100) == ["It is 9.30.", "Is it?", "Yes"]
    assert in_parts("one two three", len, 7) == ["one two", "three"] and in_parts(" ", len, 7) == []


def test_transcribe_gives_words_with_times(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word ended `delay` frames before its first piece became known, but for one that could not have been heard yet."""
    one, seven = (model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in (" one", " seven"))
    frames = [0, *one, *[0] * (9 - len(one)), *seven, 0]
    assert len(one) + len(seven) > 2, "one of them is of several pieces"
    monkeypatch.setattr(conversation_michiai, "transcribe_frames", lambda *_: (torch.tensor([frames]), None, None))
    heard = model.transcribe((speech(1.5), 16_000))
    assert heard.words == [("one", 0.0), ("seven", pytest.approx(0.64))] and heard.text == "one seven"


def test_more_flow_steps_and_temperatures_run(model) -> None:
    for options in (
        GenerationOptions(flow_steps=4),
        GenerationOptions(text_temperature=0.8),
        GenerationOptions(noise_temperature=0.0),
    ):
        a, b = (model.session(options=options, seed=1).push(speech(0.9)) for _ in range(2))
        assert same(a, b)


def test_voice_from_audio_saved_and_loaded(model, tmp_path) -> None:
    voice = model.voice((speech(4.0, 22_050), 22_050))
    assert voice.latents.shape == (40, 6)
    voice.save(tmp_path / "v.safetensors")
    loaded = Voice.load(tmp_path / "v.safetensors")
    assert torch.equal(loaded.latents, voice.latents)
    assert same(model.session(voice=voice).push(speech(0.5)), model.session(voice=loaded).push(speech(0.5)))
    assert not same(model.session(voice=voice).push(speech(0.5)), model.session().push(speech(0.5)))
    for given in (tmp_path / "v.safetensors", (speech(4.0, 22_050), 22_050)):  # whatever model.voice makes a voice of
        assert torch.equal(model.session(voice=given).voice.latents, voice.latents)


def test_only_a_given_voice_is_guided(model, monkeypatch) -> None:
    voice = Voice(torch.randn(20, 6))

    def sound(**options) -> torch.Tensor:
        given = options.pop("voice", None)
        with model.session(voice=given, options=GenerationOptions(**options)) as session:
            return torch.cat([frame.audio for frame in session.push(speech(0.5))])

    plain, guided = sound(voice=voice), sound(voice=voice, voice_guidance=0.5)
    assert torch.equal(sound(voice_guidance=0.5), sound()) and not torch.equal(guided, plain)
    assert torch.equal(sound(voice=voice, voice_guidance=0), plain)
    monkeypatch.setattr(model.config, "speak_config", replace(model.config.speak_config, guidance=0.5))  # as another checkpoint may say
    assert torch.equal(sound(voice=voice), guided) and torch.equal(sound(voice=voice, voice_guidance=0), plain)
    with pytest.raises(ValueError, match="voice_guidance is -1; expected a number of 0 or more"):
        GenerationOptions(voice_guidance=-1)
