"""What is refused before a model is built."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from kindling_api.errors import SpecError
from kindling_trainer.loop.evaluate import check_prompts


def test_a_prompt_that_the_tokenizer_cannot_read_is_refused_before_the_first_step() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    check_prompts(tokenizer, ["", "ab"])
    with pytest.raises(SpecError) as caught:
        check_prompts(tokenizer, ["ab", "añ"])
    assert str(caught.value) == (
        "spec.evaluation.prompts[1]: found 'añ'; allowed: text that the dataset's tokenizer covers. "
        "To fix it: leave out characters that the dataset does not have."
    )
