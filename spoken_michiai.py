"""Text as it is spoken: nano's language model knows words that are heard, not figures and marks."""

import logging
import re
import unicodedata
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)
LONGEST_WORD = 32  # pieces, of a text to be read: each may take 1.6 s
SOUNDS = r"<(?:laugh|breath|cough|hm)>"  # may stand in a text to be spoken
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = ["", "", *"twenty thirty forty fifty sixty seventy eighty ninety".split()]
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
CURRENCIES = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny")}
LETTERS = str.maketrans(  # what NFKD leaves as it is, and would be lost, or makes another thing of: 2² is not 22
    dict.fromkeys("\u2018\u2019\u02bc\u2032\u00b4`", "'")
    | {"ø": "o", "ł": "l", "ß": "ss", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "\u00ad": ""}
    | {"½": " one half ", "¼": " one quarter ", "¾": " three quarters ", "²": " squared ", "³": " cubed ", "≠": " is not "}
)
ABBREVIATIONS = {"dr": "doctor", "mr": "mister", "mrs": "missus", "ms": "ms", "vs": "versus", "etc": "et cetera"}
ABBREVIATIONS |= {"e.g": "for example", "i.e": "that is"}
SYMBOLS = {"%": " percent", "&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "\u2212": " minus ", "×": " times "}
SYMBOLS |= {"÷": " divided by ", "°c": " degrees celsius ", "°f": " degrees fahrenheit ", "°": " degrees ", "¢": " cents "}
SIZES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
NUMBER = r"(\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
SHORT = r"(\d{1,3}(?:\.\d+)?)"


def number_words(number: int) -> str:
    """A whole number from 0 in words, without "and"."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (" " + ONES[number % 10] if number % 10 else "")
    size, name = next((size, name) for size, name in SIZES if number >= size)
    rest = number % size
    return f"{number_words(number // size)} {name}" + (f" {number_words(rest)}" if rest else "")


def digits_words(digits: str) -> str:
    """A whole number in words; one that starts with 0 or is longer than 999,999, without commas, is read digit by digit."""
    plain = digits.replace(",", "")
    by_digit = len(plain) > (6 if plain == digits else 12) or (len(plain) > 1 and plain[0] == "0")
    return " ".join(ONES[int(digit)] for digit in plain) if by_digit else number_words(int(plain))


def pair_words(pair: int) -> str:
    """1 to 99 as after an hour or a century."""
    return f"oh {ONES[pair]}" if pair < 10 else number_words(pair)


def ordinal_words(digits: str) -> str:
    *start, last = digits_words(digits).split()
    regular = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return " ".join([*start, ORDINALS.get(last, regular)])


def time_words(match: re.Match) -> str:
    hour, minute = int(match[1]), int(match[2])
    if hour > 24 or minute > 59:
        return f"{number_words(hour)} {digits_words(match[2])}"
    return f"{number_words(hour)} {pair_words(minute)}" if minute else number_words(hour) + ("" if match[3] else " o'clock")


def money_words(match: re.Match) -> str:
    unit, small = CURRENCIES[match[1]]
    whole, cents = match[2], int((match[3] or "0").ljust(2, "0")[:2])
    words = f" {digits_words(whole)} {unit}{'' if whole == '1' else 's'}"
    if cents:
        plural = "pence" if small == "penny" else small + "s"
        words += f" and {number_words(cents)} {small if cents == 1 else plural}"
    return words + " "


def hyphen_words(match: re.Match) -> str:
    return f"{match[1]} {'to' if float(match[1]) < float(match[2]) else 'minus'} "


def year_words(match: re.Match) -> str:
    return f"{number_words(int(match[1]))} {'hundred' if match[2] == '00' else pair_words(int(match[2]))}"


RULES = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        # points that end no sentence
        (rf"(?<![a-z])({'|'.join(map(re.escape, ABBREVIATIONS))})(?![a-z])\.?", lambda m: ABBREVIATIONS[m[1]]),
        (r"(?<![a-z])[a-z](?:\.[a-z])+\b\.?", lambda m: m[0].replace(".", " ")),  # u.s., a.m.
        (r"(?<=\w)\.(?=(?:com|org|net)\b)", " dot "),
        (r"(?<=\d)\s*([ap])m\b", r" \1 m"),
        # marks between numbers, and before one; never over a line's end, where "-" and "*" begin an item
        (r"(?<![\d-])(?:\d{1,3}-)*\d{3}-\d{4}(?![\d-])", lambda m: " ".join(re.findall(r"\d", m[0]))),  # a telephone's
        (r"(?<=[\d%)]) *[*x] *(?=[-($€£.]?\d)", " times "),
        (r"(?<=[\d%)]) +/ +(?=[-($€£.]?\d)", " divided by "),
        (r"(?<=[\d%)]) +[-\u2013] +(?=[-($€£.]?\d)(?!\d+:)", " minus "),
        (rf"(?<![\w.,:/-]){SHORT}-(?=[$€£]?{SHORT}(?![\d/-]|[.,:]\d))", hyphen_words),
        (r"(?<=\d)\u2013(?=\d)", " to "),
        (r"(?<!\w)-(?=[$€£.]?\d)", " minus "),
        # numbers, those with most around them first
        (r"([$€£])\s*([\d.,]*\d)\s+([mb]illion)\b", lambda m: f"{m[2]} {m[3]} {CURRENCIES[m[1]][0]}s"),
        (rf"(?<![$€£\d.,])({NUMBER}(?:\.\d+)?)\s*([$€£])(?!\s*\d)", r"\3\1"),
        (rf"([$€£])\s*{NUMBER}(?:\.(\d{{1,2}})\b)?", money_words),
        (r"\b(\d{1,2}):(\d{2})\b(?=\s*([ap] m\b)?)", time_words),
        (r"\b(\d\d)?([2-9])0s\b", lambda m: f"{m[1] or ''} {TENS[int(m[2])][:-1]}ies"),
        (r"(?<![\w.,])(1[5-9])(\d\d)(?=s?\b)(?![.,]\d)", year_words),
        (rf"\b{NUMBER}(?:st|nd|rd|th)\b", lambda m: ordinal_words(m[1])),
        (r"(?<![a-z.])\.(\d+)", lambda m: f" point {' '.join(ONES[int(digit)] for digit in m[1])} "),
        (r"[.!?;:]+(?=[\"')\]\u201d]*(?:\s|$))", " . "),  # only now: some were in numbers
        (NUMBER, lambda m: f" {digits_words(m[1])} "),
    )
)


def spoken(text: str) -> str:
    """Text as it is spoken: lower case words, numbers in words, "." between sentences and no other mark.

    A hyphen between two numbers is "minus" with spaces around it; without, it is "to" from the smaller to the larger (2-3 days), else
    "minus" (9-5), and nothing in what is longer, as a date is. "/" is "divided by" with spaces around it alone: 1/2 may be anything.

    >>> spoken("It's 9:30, that is $12.")
    "it's nine thirty that is twelve dollars"
    """
    if not isinstance(text, str):
        raise ValueError(f"text is {text!r} ({type(text).__name__}); expected a str, for instance 'hello'")
    plain = unicodedata.normalize("NFKD", text.lower().translate(LETTERS)).lower()  # NFKD may bring capitals
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    lost = sorted({char for char in plain if char.isalpha() and not char.isascii()})
    for pattern, words in RULES:
        plain = pattern.sub(words, plain)
    for symbol, words in SYMBOLS.items():
        plain = plain.replace(symbol, words)
    words = re.findall(rf"{SOUNDS}|[a-z]+(?:'[a-z]+)*'?|\.(?=\s)", plain + " ")
    words = [word.rstrip("'") if not word.endswith("s'") else word for word in words]
    kept = [word for i, word in enumerate(words) if word != "." or (i and words[i - 1] != ".")]
    while kept and kept[-1] == ".":
        kept.pop()
    if not kept:
        raise ValueError(
            f"text is {text!r}; expected at least one letter or digit that can be spoken (a to z, 0 to 9)"
        )
    if lost:
        logger.warning("the text has letters that cannot be spoken and are left out: %s; expected a to z", " ".join(lost[:20]))
    return " ".join(kept)


def as_said(config: Any, text: str) -> str:
    """A text in the form that the model's LLM knows."""
    return spoken(text) if config.spoken_text else text


def as_told(config: Any, instructions: str, context: str) -> dict[str, str]:
    """What stands before a conversation, by the marks that stand before it."""
    told = {"<instructions>": instructions, "<context>": context}
    return {mark: as_said(config, text) for mark, text in told.items() if text}


def in_parts(text: str, size: Callable[[str], int], limit: int) -> list[str]:
    """A text to be read, by sentences; longer ones by as many words at a time as fit.

    Args:
        size: of a text, in pieces of the tokenizer.
        limit: of a part.
    Raises:
        ValueError: a word has more than LONGEST_WORD pieces.
    """
    parts = []
    for sentence in re.split(r" \. |(?<=[.!?…])\s+", text):  # spoken, and as it is written
        part = ""
        for word in sentence.split():
            if (pieces := size(word)) > LONGEST_WORD:
                raise ValueError(f"the word {word[:20] + '...'!r} has {pieces} pieces; expected at most {LONGEST_WORD}: put spaces "
                                 "into it")
            longer = f"{part} {word}".strip()
            if part and size(longer) > limit:
                parts.append(part)
                longer = word
            part = longer
        parts += [part] if part else []
    return parts
