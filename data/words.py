"""Word lists: names, numbers and the general vocabulary, all of them words that pronunciation lexica know."""

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from faker.providers.person.en import Provider
from faker.providers.person.en_US import Provider as ProviderUS

from .held_out import is_held_out, pick

COMMON_NAMES = tuple(
    """
adam alan albert alex alice amy andrew angela anna anne anthony arthur barbara ben beth betty bill bob
brenda brian carl carol caroline catherine charles cheryl chris christine claire colin craig dan david
dawn dean debbie dennis derek diana donald donna doris dorothy doug edward elaine elizabeth ellen emily
eric erica evelyn fiona florence frances frank fred gary george gerald gina gloria gordon grace greg
harold harry heather helen henry holly howard ian irene jack james jane janet jason jean jeff jenny jeremy
jerry jessica jill jim joan joe john josh joyce judy julia julie june karen kate keith kelly ken kevin
larry laura leo linda lisa louis louise lucy margaret maria marie mark martha martin mary matthew megan
michael mike molly nancy neil nick nicole nina nora norman olivia oscar pam patricia patrick paul peter
phil rachel ralph ray rebecca richard rita robert robin roger ron rose roy ruth sally sam sandra sarah
sean sharon sheila simon sophie stanley stella steve sue susan teresa terry thomas tina todd tom tony
tracy vera victor vincent walter wendy
""".split()
)

TEST_NAMES = tuple(
    """
abby andy bruce charlotte clara daniel danny eddie emma eva felix hannah hugo ivan jacob kathy kim lily
luke max mia noah oliver pat philip rosa stuart ted tim toby
""".split()
)
SOUNDS_OF = (  # spellings
    *(("ph", "f"), ("ck|c(?![eiy])", "k"), ("h", ""), (r"(.)\1", r"\1")),
    *(("ew", "u"), ("ay", "a"), ("iy", "i"), ("(?:ie|ey|ee|i)$", "y")),
)


def _spoken(name: str) -> str:
    """How a name sounds, roughly: "kathie" and "cathy" are one, as are "stewart" and "stuart"."""
    for written, heard in SOUNDS_OF:
        name = re.sub(written, heard, name)
    return name


@lru_cache(1)
def given_names() -> tuple[str, ...]:
    """The English given names of Faker, without those that sound like a held-out one."""
    return _heard_apart(Provider.first_names)


def _heard_apart(names: Iterable[str]) -> tuple[str, ...]:
    """Those of 3 to 9 letters that do not sound like a held-out one."""
    held_out = set(map(_spoken, TEST_NAMES))
    plain = sorted({name.lower() for name in names if re.fullmatch("[A-Za-z]{3,9}", name)})
    return tuple(name for name in plain if _spoken(name) not in held_out)


@lru_cache(2)
def invented_names(n: int) -> tuple[str, ...]:
    """`n` names that nobody has, spelled as English ones are: what cannot be known must be heard, and copied.

    A chain of letters, each of which follows the three before it as it does in the given names and surnames of Faker.
    """
    rng, real = np.random.default_rng(0), {*given_names(), *_heard_apart(ProviderUS.last_names)}
    following: dict[str, str] = {}
    for name in sorted(real):
        for i, letter in enumerate(name + "."):
            before = name[:i][-3:]
            following[before] = following.get(before, "") + letter
    names: dict[str, None] = {}
    while len(names) < n:
        made = []
        for _ in range(n):
            name = ""
            while not name.endswith("."):
                name += pick(rng, following[name[-3:]])
            made.append(name[:-1])
        fit = set(_heard_apart(made)) - real
        names |= dict.fromkeys(name for name in made if name in fit)
    return tuple(names)[:n]


# a quarter are common, half rare, a quarter invented: a name is learnt as something to hear letter by letter and to copy
TRAIN_NAMES = (COMMON_NAMES + _heard_apart(ProviderUS.first_names)) * 4 + given_names() + invented_names(3000)


def names_of(split: str) -> tuple[str, ...]:
    """The names that a split's dialogues are about."""
    return TRAIN_NAMES if split == "train" else TEST_NAMES


ONES = tuple(
    """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen
""".split()
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def number(n: int) -> str:
    """0..100 in words."""
    if n < 20:
        return ONES[n]
    if n == 100:
        return "one hundred"
    return TENS[n // 10] + (f" {ONES[n % 10]}" if n % 10 else "")


NUMBER_WORDS = frozenset(ONES + TENS[2:] + ("hundred",))
DIGITS = ONES[:10]
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")

THINGS = tuple(
    """
apple bag ball band bank basket bath beach bear bed bell belt bench bike bird boat body bone book boot
bottle bowl box branch bread brick bridge broom brush bucket bus butter button cake camera candle cap car
card carpet castle cat chain chair cheese church circle city class clock cloth cloud coat coin corner cow
cup curtain desk dinner dish doctor dog doll door dress drum duck ear egg engine eye face farm farmer
feather fence field finger fire fish flag floor flower foot forest fork fox friend frog fruit garden gate
gift girl glass glove goat gold grass guitar hair hall hammer hand hat head heart hill hole home honey
horse hospital hotel house ice island jacket jar jewel journey juice jungle key king kitchen kite knife
lady lake lamp leaf leg lemon letter library light lion lock machine map market meal meat milk mirror
money monkey moon morning mountain mouse mouth museum music nail neck needle nest net night nose nurse
ocean office onion orange oven owl page paint pan paper parcel park party path pen pencil people phone
photo piano picture pie pig pillow pilot pipe plane plant plate pocket poem pond pool potato prince purse
puzzle queen rabbit radio rain ring river road rock roof room rope ruler salad salt sand school scissors
sea seat sheep shelf ship shirt shoe shop sister sky smoke snow soap sock sofa song soup spoon square
stairs star station stick stone store storm story street student sugar suitcase sun table tail tea teacher
team tent ticket tiger tool tooth towel tower town toy train tree truck tunnel umbrella uncle valley vase
village violin voice wagon wall watch water wheel whistle wife wind window winter wolf woman wood world
yard zebra answer army artist aunt author baby baker barn battle blanket boss brother cabin cage canal
captain carrot cellar chapel chicken child client coach colour comb cook cotton cousin crowd crown dancer
daughter dream driver dust eagle editor effect event factory family father fever film flame flight fog
frame game ghost giant grape guard guest hero horn idea iron judge jury lawyer lesson lunch magic mayor
medal member metal midnight minute model mother motor movie neighbour notebook number nut object painter
palace parent partner pepper planet player poet police powder problem promise question reason record rice
rider riddle robot sailor scarf season secret shadow shape shell shore signal silver singer skin soldier
son sound space spider spring statue steam stream summer sweater target temple thief thunder tomato trip
turtle twin vacation visitor waiter weather whale writer
""".split()
)
PEOPLE = tuple(
    """
artist aunt author baby baker boss brother captain child coach cook cousin dancer doctor driver farmer
father friend girl guard guest judge king lady lawyer mayor mother neighbour nurse painter pilot player
poet prince queen rider sailor singer sister soldier student teacher thief uncle visitor waiter woman
writer
""".split()
)
ADJECTIVES = tuple(
    """
angry bad beautiful big black blue brave bright broken brown busy calm careful cheap clean clear clever
cold cool crazy dark deep dirty dry dull dusty early easy empty famous fast fat fine flat fresh friendly
full funny gentle gold good grand great green grey happy hard healthy heavy high hollow honest hot huge
hungry kind large late lazy light little lonely long loud lovely lucky modern narrow near new nice noisy
odd old open orange pale pink plain poor pretty proud pure purple quick quiet rare ready red rich rough
round sad safe sharp shiny short shy silent silly silver simple slow small smart smooth soft sour special
strange strong sunny sweet tall thick thin tiny tired ugly warm weak wet white whole wide wild wise wooden
wrong yellow young
""".split()
)
ACTIONS = tuple(
    """
bought broke brought built called carried caught changed chose cleaned closed counted covered cut drew
dropped followed forgot found gave held hid kept kicked left lifted liked lost loved made met missed moved
needed noticed offered opened ordered packed painted picked placed pulled pushed put reached received
remembered repaired saved saw sold sent shared showed stole studied threw took touched turned used visited
waited wanted washed watched wore wrapped
""".split()
)
MOVES = tuple(
    """
came climbed danced drove fell flew hurried jumped laughed listened lived ran rested rode sang sat slept
smiled sailed stayed stood swam talked travelled waited walked went worked
""".split()
)
SITES = """
garden kitchen library forest village park market office museum castle tunnel valley hotel field harbour
""".split()
PLACES = (
    (
        "at home",
        "at school",
        "at night",
        "at the airport",
        "at the station",
        "at the party",
        "by the river",
        "behind the house",
    )
    + tuple(f"{p} the {x}" for p in ("in", "near", "behind") for x in SITES)
    + tuple(
        f"{p} the {x}"
        for p in ("on", "under")
        for x in "table bridge roof beach hill boat floor tree".split()
    )
)
WHEN = (
    "yesterday",
    "last night",
    "last week",
    "in the morning",
    "every day",
    "this evening",
    "after lunch",
    "before dinner",
    "in the summer",
    "in the winter",
    "at noon",
    "at midnight",
    "again",
    "today",
    "for an hour",
    "all day",
)
ADVERBS = tuple(
    """
slowly quickly quietly happily carefully loudly gently alone together suddenly early late
""".split()
)
WISHES = ("see", "buy", "find", "paint", "open", "clean", "sell", "keep")
FOODS = tuple(
    """
apples bananas bread cake carrots cheese cherries chocolate coffee cookies eggs fish grapes honey milk noodles
oranges pasta peaches pears pizza potatoes rice salad soup tea tomatoes
""".split()
)


def sentence(rng: np.random.Generator, names=TRAIN_NAMES) -> str:
    """A random plain sentence, 4-10 words, of broad vocabulary."""

    def thing(words=THINGS):
        article = pick(rng, ("the", "the", "the", "my", "your", "his", "her", "our", "this", "that"))
        adjective = pick(rng, ADJECTIVES) + " " if rng.random() < 0.45 else ""
        return f"{article} {adjective}{pick(rng, words)}"

    def who():
        roll = rng.random()
        if roll < 0.4:
            return pick(rng, names)
        return thing(PEOPLE) if roll < 0.8 else pick(rng, ("i", "we", "they", "she", "he"))

    roll = rng.random()
    if roll < 0.3:
        return f"{who()} {pick(rng, ACTIONS)} {thing()}" + (
            f" {pick(rng, WHEN)}" if rng.random() < 0.3 else ""
        )
    if roll < 0.5:
        return f"{who()} {pick(rng, MOVES)} {pick(rng, PLACES if rng.random() < 0.7 else ADVERBS)}"
    if roll < 0.65:
        return f"{thing()} is {pick(rng, ('', '', 'very ', 'not ', 'too '))}{pick(rng, ADJECTIVES)}"
    if roll < 0.75:
        return f"{thing()} was {pick(rng, PLACES)}" + (f" {pick(rng, WHEN)}" if rng.random() < 0.4 else "")
    if roll < 0.83:
        return f"there are {number(int(rng.integers(2, 21)))} {pick(rng, FOODS)} {pick(rng, PLACES)}"
    if roll < 0.9:
        return f"{pick(rng, names)} and {pick(rng, names)} {pick(rng, MOVES)} {pick(rng, WHEN)}"
    if roll < 0.95:
        return f"{who()} wanted to {pick(rng, WISHES)} {thing()}"
    return f"{who()} {pick(rng, ACTIONS)} {thing()} and {pick(rng, MOVES)} {pick(rng, ADVERBS)}"


def sentence_of(rng: np.random.Generator, split: str) -> str:
    """A sentence of this split: a twelfth of all, by hash, is held out; test sentences use held-out names."""
    while True:
        text = sentence(rng, names_of(split))
        if (
            is_held_out(f"sentence|{text}") == (split == "test")
            and 2 <= text.count(" ") + 1 <= 9
        ):
            return text
