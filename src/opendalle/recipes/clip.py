"""CLIP and its tokenizer: the space in which pictures and captions meet."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.clip.distillation import TextDistillation, TextDistillationConfig
from opendalle.clip.model import CLIP, PRESETS
from opendalle.clip.objective import ContrastiveConfig, ContrastiveObjective
from opendalle.clip.teacher import SentenceTeacher
from opendalle.clip.words import place_words
from opendalle.data.loading import LoadingConfig
from opendalle.pretrained.kinds import find_model, load_tokenizer
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.data import CLIPBatches, open_set, some_captions, stamps_of
from opendalle.recipes.stage import Stage, Work
from opendalle.recipes.words import taught_sentences
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.training.config import AdamWConfig, TrainConfig
from opendalle.training.moments import InputMoments

NUM_SENTENCES = 128  # that only the teacher explains, in every batch
TEXT_AFTER = 6_000  # pictures before the text tower moves, where the teacher has placed its words


def clip(
    data: Path,
    out: Path,
    *,
    pictures: int = 400_000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    captions: int = 60_000,
    scenes: float | None = None,
    tokenizer_of: Path | None = None,
    seed: int = 1,
) -> tuple[Stage, ...]:
    """Train CLIP: contrastive on captioned pictures, its text tower taught words by a public sentence encoder.

    Command: python -m opendalle.recipes.clip --data world --out clip-emoji
    Cost: 60 pictures a second on one CPU core at 60 GFLOP/s.
    Expected: top1 in the log is the share of a batch's pictures that find their own caption among all of them.

    Args:
        data: an emoji world, or a folder of pictures with .txt captions.
        out: the model folder to write.
        pictures: length of the run.
        batch_size: pictures that are told apart at once.
        learning_rate: at its top.
        captions: drawn to train the tokenizer.
        scenes: share of a world's pictures that are scenes of several things; without, the world's own.
        tokenizer_of: take the tokenizer of this CLIP; without, that of the model of --from, or a new one is trained.
        seed: of weights, order and chance.
    """

    def build() -> Work:
        torch.manual_seed(seed)
        config = PRESETS["emoji"]
        source = open_set(data, config.size, scenes)
        sentences = taught_sentences(source, seed)
        if tokenizer_of is not None:
            tokenizer = load_tokenizer(read_model(find_model(tokenizer_of)))
        else:
            texts = [*some_captions(source, captions, seed), *(sentences[0] if sentences is not None else ())]
            tokenizer = BytePairTokenizer.train(texts, config.vocab)
        network = CLIP(config)
        distillation, begin, rest = None, None, 0
        if sentences is not None:
            if tokenizer.vocab_size == config.vocab:  # a tiny set fills no vocabulary
                begin = partial(begin_with_words, network, tokenizer, sentences[0])
                rest = min(TEXT_AFTER, pictures // 10)
            distillation = TextDistillation(TextDistillationConfig(embed=config.embed, teacher=sentences[1].shape[1]))
        objective = ContrastiveObjective(network, ContrastiveConfig(text_after=rest), distillation)
        loading = LoadingConfig(batch_size=batch_size, seed=seed, channels=config.channels)

        moments = InputMoments()

        def finish() -> ModelFolder:
            extra = {"tokenizer.json": tokenizer.to_json()}
            part = Part(to_plain(config), network.state_dict(), "even-step", extra, moments.of("clip"))
            card = card_of("clip", data, pictures=pictures, seed=seed)
            return write_model(out, kind="clip", parts={"clip": part}, card=card)

        return Work(
            objective=objective,
            batches=CLIPBatches(source, tokenizer, config.context, loading, sentences, NUM_SENTENCES),
            config=TrainConfig(
                pictures=pictures,
                batch_size=batch_size,
                seed=seed,
                optimiser=AdamWConfig(learning_rate=learning_rate, beta2=0.98, weight_decay=0.02),
                warmup_pictures=min(8_000, pictures // 10),
                final_rate=0.02,
                ema_halflife=20_000,
            ),
            finish=finish,
            moments=moments,
            begin=begin,
        )

    def stamps() -> dict[str, str]:
        return stamps_of(data, scenes=scenes, captions=captions, tokenizer_of=tokenizer_of)

    return (Stage(name="clip", part="clip", out=out, stamps=stamps, build=build),)


def begin_with_words(network: CLIP, tokenizer: BytePairTokenizer, sentences: Sequence[str]) -> None:
    """Place the text tower's words by the public teacher.

    Args:
        network: fresh.
        tokenizer: its own.
        sentences: what tells how common each token is.
    """
    texts = [tokenizer.decode([token]).strip() for token in range(tokenizer.vocab_size)]
    ids = [token for sentence in sentences for token in tokenizer.encode(sentence)]
    counts = np.bincount(ids, minlength=tokenizer.vocab_size).tolist()
    words = ["" if "\ufffd" in text else text for text in texts]  # half a character is no text
    place_words(network.text, words, counts, SentenceTeacher(num_threads=torch.get_num_threads()))


if __name__ == "__main__":
    main(clip)
