"""Accents: English with some of its phones said as others.

The engines have a handful of accents, people have as many as there are places and first languages: vowels merge, move or lose their
glide (Wells, Accents of English, 1982), a consonant that a first language lacks becomes one that it has (Swan and Smith, Learner English,
2001). An accent here is a few such changes, drawn by its number; the times of the words stay the engine's.
"""

from functools import lru_cache

import numpy as np

ACCENTS = 5000
# phone of the CMU dictionary -> what it may become
VOWELS = {
    "iy": ("ih",),
    "ih": ("iy",),
    "eh": ("ih", "ae"),
    "ae": ("eh", "aa"),
    "aa": ("ao", "ae"),
    "ao": ("aa", "ow"),
    "ah": ("uh", "aa"),
    "uh": ("uw", "ah"),
    "uw": ("uh",),
    "er": ("eh", "ao"),
    "ey": ("eh", "ay"),
    "ay": ("oy", "aa"),
    "oy": ("ay",),
    "ow": ("ao", "aw"),
    "aw": ("ow", "aa"),
}
CONSONANTS = {
    "th": ("t", "s", "f"),
    "dh": ("d", "z", "v"),
    "ng": ("n",),
    "v": ("w", "f", "b"),
    "w": ("v",),
    "z": ("s",),
    "sh": ("s",),
    "ch": ("sh",),
    "jh": ("zh",),
    "p": ("b",),
    "r": ("w",),
}


@lru_cache(ACCENTS)
def changes(accent: int) -> dict[str, str]:
    """What an accent makes of the phones that it changes: two to six vowels and, half the time, one or two consonants. 0: nothing."""
    if accent == 0:
        return {}
    rng, found = np.random.default_rng([accent, 1]), {}
    n_vowels, n_consonants = int(rng.integers(2, 7)), int(rng.integers(1, 3)) if rng.random() < 0.5 else 0
    for table, n in ((VOWELS, n_vowels), (CONSONANTS, n_consonants)):
        for phone in rng.permutation(list(table))[:n]:
            others = [other for other in table[phone] if found.get(other) != phone]  # two never change places
            if others:
                found[str(phone)] = others[int(rng.integers(len(others)))]
    return found
