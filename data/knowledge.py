"""What nano knows by heart, and the forms in which it is asked for it.

The forms under "test" stand in the test split alone.
"""

from .words import number

DAYS = tuple("monday tuesday wednesday thursday friday saturday sunday".split())
MONTHS = tuple(
    "january february march april may june july august september october november december".split()
)
NUMBERS = tuple(number(n) for n in range(1, 21))
SEASONS = ("spring", "summer", "autumn", "winter")
CAPITALS = {
    "france": "paris",
    "england": "london",
    "germany": "berlin",
    "spain": "madrid",
    "italy": "rome",
    "portugal": "lisbon",
    "ireland": "dublin",
    "scotland": "edinburgh",
    "austria": "vienna",
    "greece": "athens",
    "poland": "warsaw",
    "russia": "moscow",
    "norway": "oslo",
    "sweden": "stockholm",
    "finland": "helsinki",
    "denmark": "copenhagen",
    "belgium": "brussels",
    "hungary": "budapest",
    "iceland": "reykjavik",
    "turkey": "ankara",
    "egypt": "cairo",
    "israel": "jerusalem",
    "iraq": "baghdad",
    "iran": "tehran",
    "india": "delhi",
    "china": "beijing",
    "japan": "tokyo",
    "thailand": "bangkok",
    "australia": "canberra",
    "canada": "ottawa",
    "cuba": "havana",
    "peru": "lima",
    "kenya": "nairobi",
    "america": "washington",
    "ukraine": "kiev",
    "romania": "bucharest",
    "lebanon": "beirut",
    "libya": "tripoli",
    "vietnam": "hanoi",
    "chile": "santiago",
}
OPPOSITES = tuple(
    tuple(pair.split())
    for pair in """
hot cold | big small | up down | left right | day night | black white | old new | fast slow |
happy sad | open closed | full empty | wet dry | hard soft | high low | light dark | good bad |
rich poor | early late | near far | loud quiet | strong weak | thick thin | clean dirty | young old
| first last | inside outside | true false | long short | easy difficult | push pull | buy sell |
win lose
""".split("|")
)
COLOURS = {
    "grass": "green",
    "the sky": "blue",
    "snow": "white",
    "a banana": "yellow",
    "blood": "red",
    "milk": "white",
    "coal": "black",
    "a lemon": "yellow",
    "a tomato": "red",
    "a carrot": "orange",
    "chocolate": "brown",
    "the sun": "yellow",
    "a strawberry": "red",
    "the sea": "blue",
    "a pumpkin": "orange",
    "salt": "white",
    "a frog": "green",
    "an elephant": "grey",
    "a crow": "black",
    "a cherry": "red",
    "a flamingo": "pink",
    "a plum": "purple",
}
SOUNDS = {
    "cow": "moo",
    "dog": "woof",
    "cat": "meow",
    "duck": "quack",
    "sheep": "baa",
    "pig": "grunt",
    "lion": "roar",
    "bee": "buzz",
    "snake": "hiss",
    "owl": "hoot",
    "horse": "neigh",
    "frog": "croak",
    "bird": "tweet",
    "mouse": "squeak",
}
LEGS = {
    "dog": 4,
    "cat": 4,
    "cow": 4,
    "horse": 4,
    "sheep": 4,
    "pig": 4,
    "goat": 4,
    "lion": 4,
    "mouse": 4,
    "elephant": 4,
    "bird": 2,
    "duck": 2,
    "chicken": 2,
    "owl": 2,
    "spider": 8,
    "ant": 6,
    "bee": 6,
    "fly": 6,
    "snake": 0,
    "fish": 0,
}

# {a} and {b} are filled in; the held-out forms stand in the test split alone
FORMS = {
    "sum": {
        "train": (
            "what is {e}",
            "what's {e}",
            "how much is {e}",
            "what does {e} make",
            "{e} is what",
            "work out {e}",
            "calculate {e}",
            "what do you get for {e}",
        ),
        "test": ("what does {e} give", "give me {e}"),
    },
    "next": {
        "train": (
            "what {k} comes after {a}",
            "what {k} is after {a}",
            "which {k} comes after {a}",
            "which {k} follows {a}",
            "what comes after {a}",
            "after {a} comes which {k}",
            "what is the next {k} after {a}",
        ),
        "test": ("which {k} is after {a}", "what {k} follows {a}"),
    },
    "before": {
        "train": (
            "what {k} comes before {a}",
            "what {k} is before {a}",
            "which {k} comes before {a}",
            "what comes before {a}",
            "before {a} comes which {k}",
            "what is the {k} before {a}",
        ),
        "test": ("which {k} is before {a}", "name the {k} before {a}"),
    },
    "capital": {
        "train": (
            "what is the capital of {a}",
            "what's the capital of {a}",
            "what city is the capital of {a}",
            "which city is the capital of {a}",
            "name the capital of {a}",
            "the capital of {a} is what",
            "what is the capital city of {a}",
        ),
        "test": ("which is the capital of {a}", "give me the capital of {a}"),
    },
    "opposite": {
        "train": (
            "what is the opposite of {a}",
            "what's the opposite of {a}",
            "what word is the opposite of {a}",
            "which word is the opposite of {a}",
            "the opposite of {a} is what",
            "name the opposite of {a}",
            "what is the reverse of {a}",
        ),
        "test": ("which is the opposite of {a}", "give me the opposite of {a}"),
    },
    "colour": {
        "train": (
            "what colour is {a}",
            "which colour is {a}",
            "what is the colour of {a}",
            "what's the colour of {a}",
            "name the colour of {a}",
            "what colour does {a} have",
            "{a} is what colour",
        ),
        "test": ("which colour does {a} have", "give me the colour of {a}"),
    },
    "sound": {
        "train": (
            "what does a {a} say",
            "what does the {a} say",
            "what sound does a {a} make",
            "what sound does the {a} make",
            "which sound does a {a} make",
            "what noise does a {a} make",
            "how does a {a} sound",
        ),
        "test": ("which noise does a {a} make", "how does the {a} sound"),
    },
    "legs": {
        "train": (
            "how many legs does a {a} have",
            "how many legs has a {a}",
            "how many legs does the {a} have",
            "a {a} has how many legs",
            "what number of legs does a {a} have",
            "count the legs of a {a}",
            "how many legs are there on a {a}",
        ),
        "test": ("how many legs are on a {a}", "the {a} has how many legs"),
    },
    "count": {
        "train": (
            "count from {a} to {b}",
            "please count from {a} to {b}",
            "can you count from {a} to {b}",
            "could you count from {a} to {b}",
            "count for me from {a} to {b}",
            "count up from {a} to {b}",
            "say the numbers from {a} to {b}",
        ),
        "test": ("tell me the numbers from {a} to {b}", "name the numbers from {a} to {b}"),
    },
    "sequence": {
        "train": (
            "say {a}",
            "please say {a}",
            "can you say {a}",
            "tell me {a}",
            "could you tell me {a}",
            "what are {a}",
            "i want to hear {a}",
        ),
        "test": ("go through {a}", "read out {a}"),
    },
}
