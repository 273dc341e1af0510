"""datatrove's filters, signatures and n-grams over the texts that bench.py makes; see there.

python datatrove_side.py TEXTS.json
"""

import json
import sys

from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import ngrams, simplify_text
from datatrove.utils.word_tokenizers import KiwiTokenizer, load_word_tokenizer

KiwiTokenizer.__init__.__defaults__ = ("cong",)  # the one model in kiwipiepy 0.23, which has no sbg any more


def main() -> None:
    """By language, the counts as JSON."""
    with open(sys.argv[1]) as file:
        texts = json.load(file)
    print(json.dumps({language: _counts(language, each) for language, each in texts.items()}))


def _counts(language, texts):
    filters = _filters(language, texts["rules"])

    def kept(documents):
        return sum(all(each.filter(Document(text=text, id="0")) is True for each in filters) for text in documents)

    known = set().union(*(_ngram_hashes(text, language) for text in texts["questions"]))
    return {
        "prose": kept(texts["prose"]),
        "rubbish": len(texts["rubbish"]) - kept(texts["rubbish"]),
        "pairs": sum(_share_a_bucket(*pair, language) for pair in texts["pairs"]),
        "leaks": sum(not known.isdisjoint(_ngram_hashes(text, language)) for text in texts["leaking"]),
        "alarms": sum(not known.isdisjoint(_ngram_hashes(text, language)) for text in texts["innocent"]),
    }


def _filters(language, rules):
    """As fineweb-2-pipeline.py has them, and as FineWeb had them for English."""
    if rules is None:
        duplicates = FineWebQualityFilter(char_duplicates_ratio=0.1)
        return [GopherRepetitionFilter(), duplicates, GopherQualityFilter()]
    return [
        GopherRepetitionFilter(
            language=language,
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            dup_line_frac=rules["duplicateLineFraction"],
            top_n_grams=[(n, rules[f"top{n}GramCharacterFraction"]) for n in (2, 3, 4)],
            dup_n_grams=[(n, rules[f"duplicate{n}GramCharacterFraction"]) for n in range(5, 11)],
        ),
        FineWebQualityFilter(
            language=language,
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            line_punct_thr=rules["punctuatedLineFraction"],
            new_line_ratio=rules["newlinesPerWord"],
        ),
        GopherQualityFilter(
            language=language,
            max_avg_word_length=rules["maxMeanWordLength"],
            min_avg_word_length=rules["minMeanWordLength"],
            stop_words=rules["stopWords"],
            max_non_alpha_words_ratio=rules["alphabeticWordFraction"],
        ),
    ]


def _share_a_bucket(one, other, language):
    """Whether datatrove takes two texts for duplicates: all hashes of one of its buckets are equal."""
    signature = MinhashDedupSignature("/tmp/unused", language=language)
    buckets = [signature.get_signature(signature.get_shingles(text)) for text in (one, other)]
    return any(first == second for first, second in zip(*buckets, strict=True))


def _ngram_hashes(text, language):
    """As `NGramsDecontIndexer.compute_hashes` and its filter have them; the class itself asks for lighteval."""
    config = NGramsDecontConfig()
    words = load_word_tokenizer(language).word_tokenize(simplify_text(text, config.norm_config))
    return set(map(create_hash_func(config.hash_config), map(" ".join, ngrams(words, config.n_grams))))


if __name__ == "__main__":
    main()
