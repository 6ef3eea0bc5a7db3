"""The text encoder of DALL·E 3, trained on text alone, and its other half, which rewrites prompts."""

from dataclasses import dataclass
from pathlib import Path

import torch

from opendalle.base.errors import BadRequest, require
from opendalle.checkpoint.configs import to_plain
from opendalle.checkpoint.folder import ModelFolder, Part, read_model, write_model
from opendalle.checkpoint.storage import from_storage, to_storage
from opendalle.clip.distillation import TextDistillation, TextDistillationConfig
from opendalle.dalle3.rewriter import OwnRewriterConfig
from opendalle.dalle3.sentences import SentencesLossConfig, SentencesObjective
from opendalle.dalle3.text_decoder import TEXT_DECODER_PRESETS, TextDecoder, TextToText
from opendalle.dalle3.text_encoder import TEXT_ENCODER_PRESETS, TextEncoder
from opendalle.pictures import refuse_existing
from opendalle.pretrained.kinds import HEAD, TOKENIZER, find_model, load_folder, load_spelling, sibling
from opendalle.recipes.card import card_of
from opendalle.recipes.command import main
from opendalle.recipes.data import is_world, stamps_of
from opendalle.recipes.places import is_begun, runs_beside
from opendalle.recipes.sentence_texts import FolderTexts, SentenceBatches, Teacher, open_texts
from opendalle.recipes.stage import Stage, Work
from opendalle.tokenizers import ByteTokenizer
from opendalle.training.config import AdamWConfig, TrainConfig

NAME, PRESET, STORAGE = "sentences", "emoji", "int8-row"
CONTEXT, LONGEST = 256, 512  # bytes that are read and written in training
CLIP = Path("clip-emoji")


def sentences(
    data: Path,
    out: Path,
    *,
    text: str | None = None,
    clip: Path | None = CLIP,
    encoder: Path | None = None,
    like: Path | None = None,
    pictures: int = 300_000,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    seed: int = 31,
) -> tuple[Stage, ...]:
    """Train the text encoder and the rewriter, two halves of one text-to-text model, into two folders side by side.

    Command: python -m opendalle.recipes.sentences --data world --out rewriter-emoji
    Cost: 7 pairs a second of processor time on one core that others share.
    Expected: `pairs` and `holes` in the log are nats a byte, `meaning` falls towards 0; random bytes are 5.5 nats.

    Args:
        data: an emoji world, or a folder of captioned pictures; pairs are then captions of one picture, the full one in
            NAME.descriptive.txt.  Where there is none, only the encoder is trained, and written to `out`.
        out: the rewriter's folder to write.
        text: name of the encoder's folder, which lies beside it; without, `out` with text- in place of rewriter-.
        clip: a trained CLIP, whose text tower says what sentences mean.
        encoder: a trained text encoder that stays as it is; only a rewriter is trained then.
        like: begin with the encoder of this rewriter.
        pictures: pairs that are learned from, and half as many sentences with holes; without pairs, as many.
        batch_size: pairs a step.
        learning_rate: at its top.
        seed: of weights, texts and chance.

    Raises:
        BadRequest: when there are no pairs and the encoder is to stay as it is, or names do not fit together.
    """
    has_pairs = is_world(data) or FolderTexts(data).has_pairs
    if encoder is not None and not has_pairs:
        raise BadRequest(f"{data} without descriptive captions", "NAME.descriptive.txt beside some pictures")
    name = text or f"text-{out.name.removeprefix('rewriter-')}"
    require("/" not in name and name != out.name, f"text {name!r}", f"a plain name, other than {out.name}")
    plan = SentencesPlan(
        data=data,
        out=out,
        text=out.parent / name if has_pairs else out,
        clip=clip,
        encoder=encoder,
        like=like,
        pictures=pictures,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        has_pairs=has_pairs,
    )
    part = "rewriter" if has_pairs else "text"
    return (Stage(name=NAME, part=part, out=out, stamps=plan.stamps, build=plan.build),)


@dataclass(frozen=True, kw_only=True)
class SentencesPlan:
    """One stage: both halves, or one of them."""

    data: Path  # where texts come from
    out: Path  # the rewriter's folder
    text: Path  # the encoder's
    clip: Path | None  # the teacher's; None: no meaning
    encoder: Path | None  # one that stays as it is
    like: Path | None  # a rewriter whose encoder is begun with
    pictures: int  # pairs
    batch_size: int  # pairs a step
    learning_rate: float  # at its top
    seed: int  # of all chance
    has_pairs: bool  # else only an encoder is trained

    def stamps(self) -> dict[str, str]:
        """Say what the texts are made of."""
        captions = {} if is_world(self.data) else {"captions": FolderTexts(self.data).stamp}
        return stamps_of(self.data, clip=self.clip, encoder=self.encoder, **captions)

    def build(self) -> Work:
        """Return the run.

        Raises:
            BadRequest: when something lies in the encoder's place, or the encoder to keep reads no bytes.
        """
        if self.encoder is None and not is_begun(runs_beside(self.out) / NAME):
            refuse_existing(self.text)
        torch.manual_seed(self.seed)
        begun = self._begun_encoder()
        network = begun if begun is not None else TextEncoder(TEXT_ENCODER_PRESETS[PRESET])
        shape = network.config
        tokenizer = self._spelling()
        keeps = self.encoder is not None
        both = TextToText(network, TextDecoder(TEXT_DECODER_PRESETS[PRESET]))
        teacher = None if keeps or self.clip is None else Teacher(find_model(self.clip))
        meaning = None
        if teacher is not None:
            meaning = TextDistillation(TextDistillationConfig(embed=shape.width, teacher=teacher.width))
        objective = SentencesObjective(both, meaning, SentencesLossConfig(), keeps_encoder=keeps)
        return Work(
            objective=objective,
            batches=SentenceBatches(
                texts=open_texts(self.data, self.seed),
                tokenizer=tokenizer,
                teacher=teacher,
                batch_size=self.batch_size,
                num_holed=max(1, self.batch_size // (2 if self.has_pairs else 1)),
                context=CONTEXT,
                longest=LONGEST,
                seed=self.seed,
                pairs_alone=keeps,
            ),
            config=TrainConfig(
                pictures=self.pictures,
                batch_size=self.batch_size,
                seed=self.seed,
                optimiser=AdamWConfig(learning_rate=self.learning_rate, beta2=0.98, weight_decay=0.01),
                warmup_pictures=min(8_000, self.pictures // 10),
                final_rate=0.02,
                ema_halflife=10_000,
            ),
            finish=lambda: self._finish(both, tokenizer),
        )

    def _begun_encoder(self) -> TextEncoder | None:
        """Return the encoder that is kept, or begun with."""
        if self.encoder is not None:
            return load_folder(read_model(find_model(self.encoder)))
        if self.like is None:
            return None
        rewriter = read_model(find_model(self.like))
        if rewriter.kind == "text-encoder":
            return None  # its own weights are begun with, as with any warm start
        found = sibling(rewriter, rewriter.part(HEAD).config.get("siblings"), "text")
        return load_folder(found).requires_grad_(True)

    def _spelling(self) -> ByteTokenizer:
        if self.encoder is None:
            return ByteTokenizer()
        model = read_model(find_model(self.encoder))
        spelling = load_spelling(model)
        if not isinstance(spelling, ByteTokenizer):
            raise BadRequest(f"{model.path}, which reads pieces of words", "a text encoder that reads bytes")
        return spelling

    def _finish(self, both: TextToText, tokenizer: ByteTokenizer) -> ModelFolder:
        """Write the encoder, then the rewriter, which names it."""
        card = card_of("sentences", self.data, pictures=self.pictures, seed=self.seed)
        if self.encoder is not None:
            written = read_model(find_model(self.encoder))
        else:
            extra = {TOKENIZER: tokenizer.to_json()}
            part = Part(to_plain(both.encoder.config), both.encoder.state_dict(), storage=STORAGE, extra=extra)
            written = self._found(part) or write_model(self.text, kind="text-encoder", parts={"text": part}, card=card)
        if not self.has_pairs:
            return written
        head = {"siblings": {"text": written.reference}, "settings": to_plain(OwnRewriterConfig())}
        part = Part(to_plain(both.decoder.config), both.decoder.state_dict(), storage=STORAGE)
        return write_model(self.out, kind="rewriter", parts={HEAD: Part(head), "rewriter": part}, card=card)

    def _found(self, part: Part) -> ModelFolder | None:
        """Return the encoder's folder, if this run has written it already and was killed before the rewriter's."""
        if not self.text.exists():
            return None
        found, wanted = read_model(self.text), from_storage(to_storage(part.state, part.storage))
        state = found.part("text").state() if found.kind == "text-encoder" else {}
        if state.keys() != wanted.keys() or not all(torch.equal(state[name], wanted[name]) for name in wanted):
            raise BadRequest(f"{self.text}, another model", "a name that is free for the encoder", "Move it away.")
        return found


if __name__ == "__main__":
    main(sentences)
