"""Stage 1: nano's tokenizer, a byte-level BPE over the grammar's spoken-form text.

    python -m michiai.training.tokenizer --out RUN/tokenizer

Every word is encoded as " " + word, wherever it stands, so that a word heard alone has the tokens it has in a text.
"""

import argparse
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from michiai.configuration_michiai import SPECIAL_TOKENS
from michiai.data.grammar import make_script
from michiai.data.text import dialogue_text


def train(texts: list[str], vocab: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocab` pieces, the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    marks = [AddedToken(name, lstrip=True, rstrip=True, special=True, normalized=False) for name in SPECIAL_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain = [" ".join(w for w in text.split() if w not in SPECIAL_TOKENS) for text in texts]
    letters = " ".join("a b c d e f g h i j k l m n o p q r s t u v w x y z".split())
    tokenizer.train_from_iterator(plain + [letters] * (len(plain) // 4), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        padding_side="left",  # `generate` goes on from the last position
        eos_token="<done>",
        clean_up_tokenization_spaces=False,
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True, help="folder for the tokenizer")
    p.add_argument("--vocab", type=int, default=1200, help="number of pieces")
    p.add_argument("--scripts", type=int, default=40_000, help="dialogues of the train split to learn from")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    rng = np.random.default_rng(args.seed)
    tokenizer = train([dialogue_text(make_script(rng, "train"), rng) for _ in range(args.scripts)], args.vocab)
    tokenizer.save_pretrained(args.out)
    print(f"{len(tokenizer)} pieces written to {args.out}")


if __name__ == "__main__":
    main()
