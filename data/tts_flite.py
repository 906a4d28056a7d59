"""flite (slt, rms, awb, kal16) through its C library, with word times from its utterance structure.

A voice's vocal tract is warped by resampling: speech synthesised `warp` times longer and lower than asked
for is played `warp` times faster: duration and pitch come out as asked, all formants move by `warp`.
"""

import ctypes as C
import ctypes.util
from functools import lru_cache

import numpy as np

from .accents import changes

NATIVE_F0 = {"slt": 170.0, "rms": 102.0, "awb": 131.0, "kal16": 91.0}  # measured medians, Hz
FIXED_F0 = ("rms",)  # its pitch follows the warp alone
F0_SPREAD = {"slt": 20.0, "awb": 20.0, "kal16": 11.0}  # Hz at native pitch
_START = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
_END = b"R:SylStructure.daughtern.daughtern.R:Segment.end"


class _Wave(C.Structure):
    _fields_ = [
        ("type", C.c_char_p),
        ("sample_rate", C.c_int),
        ("num_samples", C.c_int),
        ("num_channels", C.c_int),
        ("samples", C.POINTER(C.c_short)),
    ]


class _Voice(C.Structure):
    _fields_ = [("name", C.c_char_p), ("features", C.c_void_p)]


def _library(name: str) -> C.CDLL:
    found = ctypes.util.find_library(name)
    if found is None:
        raise OSError(f"lib{name} is missing; on Debian and Ubuntu: apt-get install flite")
    return C.CDLL(found, mode=C.RTLD_GLOBAL)


@lru_cache(None)
def _flite() -> C.CDLL:
    lib = _library("flite")
    for name in ("flite_usenglish", "flite_cmulex"):
        _library(name)
    pointer, text = C.c_void_p, C.c_char_p
    for name, result, arguments in (
        ("flite_init", C.c_int, []),
        ("flite_synth_text", pointer, [text, pointer]),
        ("utt_relation", pointer, [pointer, text]),
        ("relation_head", pointer, [pointer]),
        ("item_next", pointer, [pointer]),
        ("item_daughter", pointer, [pointer]),
        ("item_as", pointer, [pointer, text]),
        ("item_feat_string", text, [pointer, text]),
        ("ffeature_float", C.c_float, [pointer, text]),
        ("utt_wave", C.POINTER(_Wave), [pointer]),
        ("delete_utterance", None, [pointer]),
        ("flite_feat_set_float", None, [pointer, text, C.c_float]),
        ("feat_val", pointer, [pointer, text]),
        ("feat_set", None, [pointer, text, pointer]),
        ("val_uttfunc", pointer, [pointer]),
        ("uttfunc_val", pointer, [pointer]),
        ("item_set_string", None, [pointer, text, text]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.flite_init()
    return lib


@lru_cache(None)
def _libc() -> C.CDLL:
    return C.CDLL(None)


@lru_cache(None)
def _voice(name: str) -> int:
    _flite()
    register = getattr(_library(f"flite_cmu_us_{name}"), f"register_cmu_us_{name}")
    register.restype, register.argtypes = C.c_void_p, [C.c_char_p]
    voice = register(None)
    _with_accents(voice)
    return voice


# flite keeps the pointer to a feature's name, so these bytes must live as long as the process
_FEATURES = {
    k: C.create_string_buffer(k.encode())
    for k in ("duration_stretch", "int_f0_target_mean", "int_f0_target_stddev", "postlex_func")
}
_MODULE = C.CFUNCTYPE(C.c_void_p, C.c_void_p)  # a step of synthesis: utterance -> utterance
_modules: list = []  # flite calls them as long as the process lives
_accent: dict[str, str] = {}  # of the utterance that is being said


def _with_accents(voice: int) -> None:
    """After the rules that the voice has for phones among others, say those of `_accent` otherwise."""
    lib, name = _flite(), C.cast(_FEATURES["postlex_func"], C.c_char_p)
    features = C.cast(voice, C.POINTER(_Voice)).contents.features
    own = _MODULE(lib.val_uttfunc(lib.feat_val(features, name)))

    def change(utterance: int) -> int:
        utterance = own(utterance)
        segment = lib.relation_head(lib.utt_relation(utterance, b"Segment"))
        while segment:
            said = _accent.get(lib.item_feat_string(segment, b"name").decode())
            if said is not None:
                lib.item_set_string(segment, b"name", said.encode())
            segment = lib.item_next(segment)
        return utterance

    module = _MODULE(change)
    _modules.append(module)
    lib.feat_set(features, name, lib.uttfunc_val(C.cast(module, C.c_void_p)))


def _set(voice: int, name: str, value: float) -> None:
    _flite().flite_feat_set_float(
        C.cast(voice, C.POINTER(_Voice)).contents.features, C.cast(_FEATURES[name], C.c_char_p), value
    )


def _word_times(utterance: int) -> list[tuple[float, float]]:
    """Times of each token; a token such as "nora's" may be several words of flite's, some without sound."""
    lib, times = _flite(), []
    token = lib.relation_head(lib.utt_relation(utterance, b"Token"))
    while token:
        start, end, word = None, 0.0, lib.item_daughter(token)
        while word:
            plain = lib.item_as(word, b"Word")
            word_end = lib.ffeature_float(plain, _END) if plain else 0.0
            if word_end > 0:
                start = lib.ffeature_float(plain, _START) if start is None else start
                end = max(end, word_end)
            word = lib.item_next(word)
        times.append((start or 0.0, end))
        token = lib.item_next(token)
    return times


@lru_cache(100_000)
def phones(word: str) -> tuple[str, ...]:
    """How flite says a word, in the phones of the CMU dictionary."""
    lib = _flite()
    utterance = lib.flite_synth_text(word.encode(), _voice("kal16"))
    segment, found = lib.relation_head(lib.utt_relation(utterance, b"Segment")), []
    while segment:
        found.append(lib.item_feat_string(segment, b"name").decode())
        segment = lib.item_next(segment)
    lib.delete_utterance(utterance)
    return tuple({"ax": "AH"}.get(phone, phone.upper()) for phone in found if phone != "pau")


def speak(words: list[str], voice) -> tuple[np.ndarray, int, list[tuple[float, float]]]:
    """-> float32 audio at flite's own rate, that rate, (start, end) seconds per word."""
    lib, handle = _flite(), _voice(voice.name)
    _set(handle, "duration_stretch", voice.warp / voice.rate)
    if voice.name not in FIXED_F0:
        mean = voice.pitch / voice.warp
        _set(handle, "int_f0_target_mean", mean)
        _set(
            handle, "int_f0_target_stddev", F0_SPREAD[voice.name] * voice.range * mean / NATIVE_F0[voice.name]
        )
    _accent.update(changes(voice.accent))
    _libc().srand(1)  # its excitation noise: the same text must give the same bytes whatever was said before
    utterance = lib.flite_synth_text(" ".join(words).encode(), handle)
    _accent.clear()
    wave = lib.utt_wave(utterance).contents
    audio = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.float32) / 32768
    times = _word_times(utterance)
    rate = wave.sample_rate
    lib.delete_utterance(utterance)
    return audio, rate, times
