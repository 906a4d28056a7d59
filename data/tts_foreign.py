"""English by the diphones of speakers of other languages: a Czech woman, boy and two men, a Finn, an Indian, an Italian woman and man.

festival reads the text as its own voice kal would, which gives phones, durations and pitch; each phone is then said as the nearest of the
other language, and the diphones of that voice put together. What comes out has the accent of that language and the timbre of one more
speaker, of whom training otherwise knows few. Only users speak so, and only in training.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from . import tts_festival

# phone of the CMU dictionary, as kal says it -> those of the language
_CZECH = """aa a: ae e ah a ao o: aw a+u ax e ay a+j b b ch c~ d d dh d dx d eh e el l em m en n er e+r ey e+j f f g g hh h ih i iy i:
 jh dz~ k k l l m m n n nx n ng n ow o+u oy o+j p p r r s s sh s~ t t th f uh u uw u: v v w v y j z z zh z~ pau #"""
_FINNISH = """aa a: ae @ ah a ao o: aw a+u ax 7 ay a+i b b ch t+S d d dh d dx d eh e el 7+l em 7+m en 7+n er 7:+r ey e+i f f g g hh h
 ih i iy i: jh d+S k k l l m m n n nx n ng N ow o+u oy o+i p p r r s s sh S t t th T uh u uw u: v v w w y j z s zh S pau #"""
_HINDI = """aa aa ae eh ah a ao oo aw aw ax a ay ay b b ch ch d D dh dh dx D eh eh el a+l em a+m en a+n er a+r ey ee f f g g hh h
 ih ih iy iy jh j k k l l m m n n nx n ng N ow oh oy oh+ih p p r r s s sh sh t T th th uh uh uw uw v v w v y y z j zh sh pau pau"""
_ITALIAN = """aa a ae E ah a ao O aw a+u ax e ay a+i b b ch tS d d dh d dx d eh E el e+l em e+m en e+n er e+r ey e+i f f g g hh k
 ih i iy i jh dZ k k l l m m n n nx n ng n ow o+u oy O+i p p r r s s sh S t t th t uh u uw u v v w v y i z z zh dZ pau #"""
_LANGUAGES = {"czech": _CZECH, "finnish": _FINNISH, "hindi": _HINDI, "italian": _ITALIAN}
PHONES = {
    language: {phone: said.split("+") for phone, said in zip(table.split()[::2], table.split()[1::2], strict=True)}
    for language, table in _LANGUAGES.items()
}
# name -> (language, festival's name)
VOICES = {
    "dita": ("czech", "voice_czech_dita"),
    "krb": ("czech", "voice_czech_krb"),
    "machac": ("czech", "voice_czech_machac"),
    "ph": ("czech", "voice_czech_ph"),
    "mv": ("finnish", "voice_hy_fi_mv_diphone"),
    "nsk": ("hindi", "voice_hindi_NSK_diphone"),
    "lp": ("italian", "voice_lp_diphone"),
    "pc": ("italian", "voice_pc_diphone"),
}
NATIVE_F0 = dict.fromkeys(VOICES, 110.0) | dict.fromkeys(("dita", "krb", "lp"), 190.0)  # their pitch is that of the text's reading
FIXED_F0 = ()
_VOICELESS = {"b": "p", "d": "t", "g": "k", "z": "s", "v": "f", "z~": "s~", "dz~": "c~"}
_VOICED = {voiceless: voiced for voiced, voiceless in _VOICELESS.items() if voiced != "v"}
_MODULES = "Initialize Text Token_POS Token POS Phrasify Word Pauses Intonation PostLex Duration Int_Targets"
_SEGMENTS = """(mapcar (lambda (s) (format t "%s\\t%s\\t%s\\t%l\\n" (item.name s) (item.feat s "segment_start") (item.feat s "segment_end")
 (if (item.relation s 'Target) (mapcar (lambda (p) (list (item.feat p "pos") (item.feat p "f0")))
 (item.daughters (item.relation s 'Target))) nil))) (utt.relation.items u 'Segment))"""


def assimilate(phones: list[str]) -> list[str]:
    """Czech obstruents are voiced as the next one is, and voiceless at the end: diphones of others are not there."""
    said = list(phones)
    for i in range(len(said) - 2, -1, -1):
        following = said[i + 1]
        if following in ("#", "f", *_VOICED):
            said[i] = _VOICELESS.get(said[i], said[i])
        elif following in _VOICELESS and following != "v":
            said[i] = _VOICED.get(said[i], said[i])
    return said


def _in_language(rows: list[list[str]], language: str) -> str:
    """Rows of (phone, start, end, ((time Hz) ...)) -> festival's (phone seconds (offset Hz) ...), in the language."""
    parts = []
    for phone, start, end, targets in rows:
        names, start = PHONES[language][phone], float(start)
        length = (float(end) - start) / len(names)
        numbers = [float(number) for number in targets.replace("nil", "").replace("(", " ").replace(")", " ").split()]
        pitch = list(zip(numbers[::2], numbers[1::2], strict=True))
        for i, name in enumerate(names):
            last = i == len(names) - 1
            own = [(time - start - i * length, f0) for time, f0 in pitch if last or time < start + (i + 1) * length]
            pitch = pitch[len(own) :]
            parts.append((name, length, own))
    said = [name for name, _, _ in parts]
    if language == "czech":
        said = assimilate(said)
    return " ".join(
        f"({name} {length:.4f} {' '.join(f'({max(time, 0):.4f} {f0:.1f})' for time, f0 in own)})"
        for name, (_, length, own) in zip(said, parts, strict=True)
    )


def speak(words: list[str], voice) -> tuple[np.ndarray, int, list[tuple[float, float]]]:
    """-> float32 audio at the voice's own rate, that rate, (start, end) seconds per word."""
    language, name = VOICES[voice.name]
    text = tts_festival.written(words)
    read = tts_festival.run([
        "(voice_kal_diphone)", *tts_festival.prosody(voice), f'(set! u (Utterance Text "{text}"))',
        f"(mapcar (lambda (module) (module u)) (list {_MODULES}))", tts_festival.WORDS, _SEGMENTS,
    ])
    rows = [line.split("\t") for line in read.splitlines() if line.count("\t") == 3]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        tts_festival.run([
            f"({name})", f"(set! u (Utterance Segments ({_in_language(rows, language)})))", "(utt.synth u)",
            f"(utt.save.wave u \"{path}\" 'riff)",
        ])
        audio, rate = tts_festival.read(path)
    return audio, rate, tts_festival.word_times(text, read)
