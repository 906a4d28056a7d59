"""Text as it is spoken: nano's language model knows words that are heard, not figures and marks."""

import re
import unicodedata

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
SYMBOLS = {"%": " percent", "&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "°": " degrees"}


def number_words(number: int) -> str:
    """0 to 999,999 in words, without "and"."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (" " + ONES[number % 10] if number % 10 else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = number % size
    return f"{number_words(number // size)} {name}" + (f" {number_words(rest)}" if rest else "")


def digits_words(digits: str) -> str:
    """A whole number in words; one that is longer than 999,999 or starts with 0 is read digit by digit."""
    by_digit = len(digits) > 6 or (len(digits) > 1 and digits[0] == "0")
    return " ".join(ONES[int(digit)] for digit in digits) if by_digit else number_words(int(digits))


def ordinal_words(digits: str) -> str:
    *start, last = digits_words(digits).split()
    regular = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return " ".join([*start, ORDINALS.get(last, regular)])


def time_words(match: re.Match) -> str:
    hour, minute = int(match[1]), int(match[2])
    if hour > 24 or minute > 59:
        return f"{number_words(hour)} {digits_words(match[2])}"
    minutes = "" if not minute else f" oh {ONES[minute]}" if minute < 10 else f" {number_words(minute)}"
    return number_words(hour) + (minutes or " o'clock") if not match[3] or minutes else number_words(hour)


def money_words(match: re.Match) -> str:
    unit, small = CURRENCIES[match[1]]
    whole, cents = match[2], int((match[3] or "0").ljust(2, "0")[:2])
    words = f"{digits_words(whole)} {unit}{'' if whole == '1' else 's'}"
    if cents:
        plural = "pence" if small == "penny" else small + "s"
        words += f" and {number_words(cents)} {small if cents == 1 else plural}"
    return words


def spoken(text: str) -> str:
    """Text as it is spoken: lower case words, numbers in words, "." between sentences and no other mark.

    >>> spoken("It's 9:30, that is $12.")
    "it's nine thirty that is twelve dollars"
    """
    if not isinstance(text, str):
        raise ValueError(f"text is {text!r} ({type(text).__name__}); expected a str, for instance 'hello'")
    plain = unicodedata.normalize("NFKD", re.sub("[\u2018\u2019\u02bc`]", "'", text)).lower()
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)
    plain = re.sub(r"([$€£])\s*(\d+)(?:\.(\d{1,2})\b)?", money_words, plain)
    plain = re.sub(r"\b(\d{1,2}):(\d{2})\b(?=\s*([ap]\.?m\b)?)", time_words, plain)
    plain = (
        re.sub(r"\b([ap])\.?m\b\.?(?=\s*\w|\s*$)", r"\1 m", plain)
        if re.search(r"\b[ap]\.m\b", plain)
        else plain
    )
    plain = re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", lambda match: ordinal_words(match[1]), plain)
    plain = re.sub(r"(\d)\.(\d+)", lambda m: f"{m[1]} point {' '.join(ONES[int(d)] for d in m[2])}", plain)
    plain = re.sub(r"(?<![\w])-(?=\d)", " minus ", plain)
    plain = re.sub(r"\d+", lambda match: f" {digits_words(match[0])} ", plain)
    for symbol, words in SYMBOLS.items():
        plain = plain.replace(symbol, words)
    plain = re.sub(r"[.!?;:\u2026]+(?=\s|$)", " . ", plain)
    words = re.findall(rf"{SOUNDS}|[a-z]+(?:'[a-z]+)*'?|\.(?=\s)", plain + " ")
    words = [word.rstrip("'") if not word.endswith("s'") else word for word in words]
    kept = [word for i, word in enumerate(words) if word != "." or (i and words[i - 1] != ".")]
    while kept and kept[-1] == ".":
        kept.pop()
    if not kept:
        raise ValueError(
            f"text is {text!r}; expected at least one letter or digit that can be spoken (a to z, 0 to 9)"
        )
    return " ".join(kept)
