"""Text and audio in any usual form, and clear words for what is not usable."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor

from michiai.processing_michiai import StreamingResampler, load_audio, resample, spoken
from michiai.spoken_michiai import number_words

from helpers import ROOT


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("It's 9:30, that is $12.", "it's nine thirty that is twelve dollars"),
        ("Your name is Nora. Be brief.", "your name is nora . be brief"),
        ("What?! Really... yes", "what . really . yes"),
        ("The train leaves at 9:05 from track 12", "the train leaves at nine oh five from track twelve"),
        ("999,999 people", "nine hundred ninety nine thousand nine hundred ninety nine people"),
        ("$1.50 or £3", "one dollar and fifty cents or three pounds"),
        ("the 21st, the 3rd and the 12th", "the twenty first the third and the twelfth"),
        ("3.14 is 50% & -2", "three point one four is fifty percent and minus two"),
        ("caf\u00e9 don\u2019t", "cafe don't"),
        ("call 5551234", "call five five five one two three four"),
        ("at 9:00", "at nine o'clock"),
        ("room 4b", "room four b"),
        ("Ha <laugh> well-known", "ha <laugh> well known"),
        ("1100", "one thousand one hundred"),
        ("nora", "nora"),
        ("I am free at 9 a.m.", "i am free at nine a m"),
        ("I am in from 10:00AM to 9:30pm.", "i am in from ten a m to nine thirty p m"),
        ("Dr. Lee, e.g., is in the U.S. now", "doctor lee for example is in the u s now"),
        ('He said "go." Then (a score of 3:2.) what', "he said go . then a score of three two . what"),
        ("What is 5 - 3?", "what is five minus three"),
        ("5-3, 5 \u2212 3, 10 \u2013 4 - 3", "five minus three five minus three ten minus four minus three"),
        ("$5-$3, -$5 and -3.5 - -2", "five dollars minus three dollars minus five dollars and minus three point five minus minus two"),
        ("7 \u00d7 3, 7 * 3, 7x3", "seven times three seven times three seven times three"),
        ("8 / 2 or 8\u00f72", "eight divided by two or eight divided by two"),
        ("3 + 4 = 7, 7 \u2260 3", "three plus four equals seven seven is not three"),
        ("2\u00b2, 1\u00bd", "two squared one one half"),
        ("on 2024-11-30, 24/7", "on two thousand twenty four eleven thirty twenty four seven"),
        ("2-3 days, 9\u20135, twenty-one", "two to three days nine to five twenty one"),
        ("call 1-800-555-1234", "call one eight zero zero five five five one two three four"),
        ("room 5:\n- 3 cups\n* 4 jars", "room five . three cups four jars"),
        ("S\u00f8ren and \u0141ukasz in \u00c6r\u00f8, stra\u00dfe", "soren and lukasz in aero strasse"),
        ("$5 million, $1,000,000, 5 \u00a3, US$2", "five million dollars one million dollars five pounds us two dollars"),
        ("-5 \u00b0C, .5, version 1.2.3x", "minus five degrees celsius point five version one point two point three x"),
        ("in 1984, 1905 and the 1990s", "in nineteen eighty four nineteen oh five and the nineteen nineties"),
        ("me@example.com", "me at example dot com"),
    ],
)
def test_spoken(given: str, expected: str) -> None:
    assert spoken(given) == expected
    assert spoken(expected) == expected  # once is enough


def test_letters_that_cannot_be_spoken_are_named(caplog) -> None:
    assert spoken("caf\u00e9 \u4f60\u597d, ok") == "cafe ok" and "\u4f60 \u597d; expected a to z" in caplog.text


@pytest.mark.parametrize("nothing", ["", "   ", "?!", "\u4f60\u597d", "<unknown"[:1]])
def test_nothing_speakable_is_named(nothing: str) -> None:
    with pytest.raises(ValueError, match="can be spoken") as error:
        spoken(nothing)
    assert repr(nothing) in str(error.value)


def test_number_words_are_all_different() -> None:
    assert len({number_words(n) for n in range(0, 1_000_000, 37)}) == len(range(0, 1_000_000, 37))


@pytest.mark.parametrize(
    "rates",
    [
        (48_000, 16_000),
        (44_100, 16_000),
        (16_000, 24_000),
        (8_000, 16_000),
        (16_000, 16_000),
        (22_050, 24_000),
        (44_101, 16_000),
        (96_096, 16_000),
    ],
)
def test_chunks_never_change_a_bit(rates: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(9_000) * 0.3
    whole = resample(x, *rates)
    assert len(whole) == -(-len(x) * rates[1] // rates[0])
    for sizes in ([1] * 700 + [8_300], [4_001, 4_999], [441] * 20 + [180], [0, 9_000, 0], [7, 8_993]):
        resampler = StreamingResampler(*rates)
        pieces = [resampler.push(piece) for piece in x.split(sizes)] + [resampler.flush()]
        assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("rates", [(48_000, 16_000), (44_100, 16_000), (16_000, 24_000), (16_000, 48_000)])
def test_resampling_keeps_tones_and_stops_aliases(rates: tuple[int, int]) -> None:
    def tone(rate: int, hertz: float) -> torch.Tensor:
        return torch.sin(2 * torch.pi * hertz * torch.arange(rate // 2, dtype=torch.float64) / rate).float()

    middle = slice(500, -500)
    kept = resample(tone(rates[0], 1000.0), *rates)
    assert (kept - tone(rates[1], 1000.0))[middle].abs().max() < 2e-3
    if rates[0] > rates[1]:
        assert resample(tone(rates[0], 0.7 * rates[1]), *rates)[middle].abs().max() < 2e-3


def test_resampler_answers_soon() -> None:
    assert len(StreamingResampler(48_000, 16_000).push(torch.zeros(3_840))) >= 1280 - 17


def test_a_rate_of_zero_is_named() -> None:
    for rate in (0, -1, None, 16.0001, True, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="expected"):
            StreamingResampler(rate, 16_000)
    with pytest.raises(ValueError, match="sampling rate of audio is 0"):
        load_audio((np.zeros(10, np.float32), 0))


def test_no_rate_needs_a_long_table() -> None:
    for rate in (88_200, 96_096, 192_000, 352_800, 767_992, 47_999):
        for rates in ((rate, 16_000), (rate, 24_000), (16_000, rate)):
            assert StreamingResampler(*rates).taps.numel() < 2**22  # 16 MiB
    for rate in (48_001, 191_999, 767_999):
        for rates in ((rate, 16_000), (16_000, rate)):
            with pytest.raises(ValueError, match=f"is {rate}; expected up to 48000 .*, or a multiple of 8: convert"):
                StreamingResampler(*rates)
    with pytest.raises(ValueError, match="sampling rate of audio is 767999"):
        load_audio((np.zeros(10, np.float32), 767_999))


def test_load_audio_forms() -> None:
    wave = (np.sin(np.arange(2_000) / 9) * 0.5).astype(np.float32)
    forms = [
        wave,
        torch.from_numpy(wave),
        wave.astype(np.float64),
        (wave * 32768).round().astype(np.int16),
        np.stack([wave, wave]),
        np.stack([wave, wave], axis=1),
        (wave * 127 + 128).round().astype(np.uint8),
    ]
    for form in forms:
        mono, rate = load_audio((form, 16_000))
        assert mono.shape == (2_000,) and mono.dtype == torch.float32 and rate == 16_000
        assert torch.allclose(mono, torch.from_numpy(wave), atol=1e-2)


def test_load_audio_file(tmp_path) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 44_100)
    mono, rate = load_audio(tmp_path / "a.wav")
    assert rate == 44_100 and torch.allclose(mono, torch.from_numpy(wave.mean(1)), atol=1e-4)
    (tmp_path / "b.wav").write_text("not audio")
    as_datasets = {"array": wave, "sampling_rate": 44_100, "path": None}
    assert torch.equal(load_audio(as_datasets)[0], load_audio((wave, 44_100))[0])
    for bad in (tmp_path / "b.wav", tmp_path / "missing.wav", 7.5):
        with pytest.raises(ValueError, match="cannot be read"):
            load_audio(bad)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ((np.zeros(0, np.float32), 16_000), "empty"),
        ((np.array([0.0, np.nan]), 16_000), "1 NaN or infinite"),
        ((np.array([0.0, np.inf]), 16_000), "1 NaN or infinite"),
        ((np.zeros((20, 30)), 16_000), "batch"),
        ((np.zeros((2, 3, 4)), 16_000), "shape"),
        ((np.array([2e4, -1e4]), 16_000), "divide by 32768"),
        ((np.zeros(10, bool), 16_000), "type"),
        ((np.zeros(10), 16_000, 1), "expected"),
        ((b"\0\0", 16_000), "of type bytes; expected .* numpy.frombuffer"),
        (("a.wav", 16_000), "of type str; expected an array"),
        (([[1, 2], [3]], 16_000), "of type list; expected an array"),
        (np.zeros(10), "without a rate; expected .array, sampling rate"),
    ],
)
def test_bad_audio_is_named(audio: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_audio(audio)


def save_processor(folder) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "hello": 1, "nine": 2, "thirty": 3, "?": 4}
    plain = Tokenizer(models.WordLevel(words, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>").save_pretrained(folder)
    (folder / "processor_config.json").write_text(
        json.dumps(
            {
                "processor_class": "MichiAIProcessor",
                "auto_map": {"AutoProcessor": "processing_michiai.MichiAIProcessor"},
                "sampling_rate": 24_000,
                "spoken_text": True,
            }
        )
    )
    for name in ("processing_michiai.py", "spoken_michiai.py"):
        shutil.copy(Path(__file__).parents[1] / name, folder)


def test_auto_processor(tmp_path, monkeypatch) -> None:
    save_processor(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(processor).__name__ == "MichiAIProcessor" and processor.sampling_rate == 24_000
    assert processor(text="Hello, 9:30!", return_tensors="pt").input_ids.tolist() == [[1, 2, 3]]
    wave = np.zeros(4_800, np.int16)
    given = processor(text=["hello", "hello nine"], audio=[(wave, 48_000), (wave[:2_400], 48_000)])
    assert given["audio"].shape == (2, 2_400) and given["audio_lengths"].tolist() == [2_400, 1_200]
    assert given["attention_mask"].tolist() == [[0, 1], [1, 1]] or given["attention_mask"].tolist() == [
        [1, 0],
        [1, 1],
    ]
    with pytest.raises(ValueError, match="without a rate"):
        processor(audio=wave)
    with pytest.raises(ValueError, match="neither"):
        processor()
    for given in ({"text": []}, {"text": 5}, {"text": ["hello", None]}, {"audio": []}, {"audio": ()}):
        with pytest.raises(ValueError, match="(text|audio) is .*; expected"):
            processor(**given)
    processor.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "processor_config.json").read_text())
    assert saved["sampling_rate"] == 24_000


def test_a_batch_of_texts_goes_on_as_each_alone(model, folder) -> None:
    for place in (folder, ROOT):
        assert json.loads((place / "tokenizer_config.json").read_text())["padding_side"] == "left"
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    texts = ["hello", "tell me when the train to paris leaves please"]
    batch = processor(text=texts)
    said = model.generate(**batch, max_new_tokens=8, do_sample=False)[:, batch["input_ids"].shape[1] :]
    for text, row in zip(texts, said, strict=True):
        ids = processor(text=text)["input_ids"]
        alone = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        assert torch.equal(row[: len(alone)], alone) and not row[len(alone) :].any()  # only padding after its end
