"""Words of two transcripts, compared."""


def word_errors(wanted: list[str], got: list[str]) -> int:
    """Substitutions, deletions and insertions (Levenshtein distance) between two lists of words."""
    row = list(range(len(got) + 1))
    for i, word in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]
