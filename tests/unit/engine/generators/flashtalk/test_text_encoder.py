"""The text encoder against transformers' own model and tokenizer, and its names against the published ones."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from engine.errors import ModelFilesError  # noqa: E402
from engine.generators.flashtalk.text_encoder import (  # noqa: E402
    TextEncoderConfig,
    build_text_encoder,
    clean_prompt,
    encode_text,
    expected_text_encoder_keys,
    rename_text_encoder,
    text_encoder_key,
    tokenize,
)

TINY = TextEncoderConfig(vocab_size=50, dim=24, dim_attn=32, dim_ffn=40, num_heads=4, num_layers=3)
SENTENCES = [
    "A person is talking.",
    "Only the foreground characters are moving, the background remains static.",
    "The quick brown fox jumps over the lazy dog, twice.",
    "café au lait and naïve words",
]


def _published(config: TextEncoderConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = expected_text_encoder_keys(config).items()
    return {name: torch.randn(shape, generator=generator) * 0.4 + (len(shape) == 1) for name, shape in shapes}


def _loaded(config: TextEncoderConfig, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    model = build_text_encoder(config)
    model.load_state_dict(rename_text_encoder(state), strict=True, assign=True)
    return model


def test_real_size_names_and_shapes_are_the_published_ones(request: pytest.FixtureRequest) -> None:
    keys = json.loads((request.config.rootpath / "tests/data/golden/keys_14b.json").read_text(encoding="utf-8"))["keys"]
    expected = expected_text_encoder_keys(TextEncoderConfig())
    assert expected == {name: tuple(shape) for name, shape in keys["t5"].items()}


def test_trimmed_rows_are_those_of_transformers_model_with_padding_and_mask() -> None:
    state = _published(TINY)
    oracle = transformers.UMT5EncoderModel(
        transformers.UMT5Config(vocab_size=50, d_model=24, d_kv=8, d_ff=40, num_layers=3, num_heads=4)
    ).eval()
    renamed = {f"encoder.{name}": tensor for name, tensor in rename_text_encoder(state).items()}
    oracle.load_state_dict(renamed | {"shared.weight": state["token_embedding.weight"]}, strict=True)
    ids = torch.randint(2, 50, (1, 200), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(200) < 170).long()[None]
    with torch.no_grad():
        wanted = oracle(input_ids=ids, attention_mask=mask).last_hidden_state[0, :170]
    features = encode_text(_loaded(TINY, state), ids, mask)
    assert not features.requires_grad
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-4)


def _buckets(length: int) -> torch.Tensor:
    """Bucket [query, key] of every offset, in whole numbers: logarithmic above 8, 16 more for later keys."""
    rows = []
    for query in range(length):
        offsets = [key - query for key in range(length)]
        near = [abs(r) if abs(r) < 8 else min(15, 8 + int(8 * math.log(abs(r) / 8) / math.log(16))) for r in offsets]
        rows.append([bucket + 16 * (r > 0) for bucket, r in zip(near, offsets, strict=True)])
    return torch.tensor(rows)


def _by_formulas(state: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """The encoder written out under the published names, in float64."""
    state = {name: value.double() for name, value in state.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + TINY.eps).sqrt() * state[f"{name}.weight"]

    x, buckets = state["token_embedding.weight"][ids], _buckets(len(ids))
    for block in (f"blocks.{number}" for number in range(TINY.num_layers)):
        y = norm(x, f"{block}.norm1")
        q, k, v = ((y @ state[f"{block}.attn.{part}.weight"].T).view(len(ids), TINY.num_heads, -1) for part in "qkv")
        bias = state[f"{block}.pos_embedding.embedding.weight"][buckets].permute(2, 0, 1)
        weights = (torch.einsum("qhc,khc->hqk", q, k) + bias).softmax(-1)
        x = x + torch.einsum("hqk,khc->qhc", weights, v).flatten(1) @ state[f"{block}.attn.o.weight"].T
        y = norm(x, f"{block}.norm2")
        gate = torch.nn.functional.gelu(y @ state[f"{block}.ffn.gate.0.weight"].T, approximate="tanh")
        x = x + (y @ state[f"{block}.ffn.fc1.weight"].T * gate) @ state[f"{block}.ffn.fc2.weight"].T
    return norm(x, "norm")


def test_published_names_mean_what_the_formulas_say() -> None:
    state = _published(TINY)
    ids = torch.randint(2, 50, (1, 190), generator=torch.Generator().manual_seed(2))
    features = encode_text(_loaded(TINY, state), ids, torch.ones_like(ids))
    torch.testing.assert_close(features.double(), _by_formulas(state, ids[0]), rtol=1e-4, atol=1e-4)


def test_weights_are_taken_over_without_a_copy_and_nothing_stays_on_the_meta_device() -> None:
    state = _published(TINY)
    model = _loaded(TINY, state)
    names = rename_text_encoder(dict.fromkeys(state, torch.empty(0)))
    assert len(names) == len(state)
    parameters = dict(model.named_parameters())
    assert all(parameters[text_encoder_key(name)].data_ptr() == tensor.data_ptr() for name, tensor in state.items())
    assert not [name for name, value in model.state_dict().items() if value.is_meta]
    assert not [name for name, value in model.named_buffers() if value.is_meta]
    assert not model.training


def test_bfloat16_weights_give_bfloat16_features() -> None:
    state = {name: value * 0.5 for name, value in _published(TINY).items()}
    ids, mask = torch.arange(2, 12)[None], torch.ones(1, 10, dtype=torch.int64)
    exact = encode_text(_loaded(TINY, state), ids, mask)
    rounded = encode_text(_loaded(TINY, {name: value.bfloat16() for name, value in state.items()}), ids, mask)
    assert rounded.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(rounded.float(), exact).min() > 0.99


def test_sizes_are_read_from_the_weights() -> None:
    assert TextEncoderConfig.of(_published(TINY)) == TINY
    with pytest.raises(ModelFilesError):
        TextEncoderConfig.of({"patch_embedding.weight": torch.zeros(3, 3)})


@pytest.mark.parametrize("name", ["blocks.0.attn.q.bias", "norm.bias", "block.0.norm1.weight", "encoder.norm.weight"])
def test_other_names_are_not_renamed(name: str) -> None:
    with pytest.raises(KeyError):
        rename_text_encoder({name: torch.zeros(1)})


def test_a_mask_with_holes_is_refused() -> None:
    with pytest.raises(ValueError, match="ones, then zeros"):
        encode_text(_loaded(TINY, _published(TINY)), torch.ones(1, 4, dtype=torch.int64), torch.tensor([[1, 0, 1, 0]]))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  two   spaces\tand\nnewline ", "two spaces and newline"),
        ("cafÃ© &amp;amp; tea &lt;b&gt;", "café & tea <b>"),
        ("“quoted” — dash…", '"quoted" — dash…'),
        ("ＡＢＣ full\u3000width", "ABC full width"),
        ("   ", ""),
    ],
)
def test_prompts_are_cleaned(text: str, clean: str) -> None:
    assert clean_prompt(text) == clean


@pytest.fixture
def json_tokenizer(tmp_path: Path) -> Path:
    """A small tokenizer of the published kind: unigram pieces, word marks, an end token from its post-processor."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.normalizer = tokenizers.normalizers.NFKC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    # The file may carry settings of whoever saved it last.
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=11)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("length", [12, 64])
@pytest.mark.parametrize("prompt", [*SENTENCES, "", "unseen ☃ signs", "&lt;s&gt; <unk> </s> marks"])
def test_tokens_are_those_of_transformers_fast_tokenizer(json_tokenizer: Path, prompt: str, length: int) -> None:
    oracle = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(json_tokenizer / "tokenizer.json"), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    wanted = oracle(clean_prompt(prompt), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    ids, mask = tokenize(json_tokenizer, prompt, length)
    assert ids.dtype == mask.dtype == torch.int64
    assert torch.equal(ids, wanted["input_ids"])
    assert torch.equal(mask, wanted["attention_mask"])


def test_a_sentencepiece_model_will_do(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4), model_writer=model, vocab_size=50, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids, mask = tokenize(tmp_path, SENTENCES[0], 100)
    assert ids[0, : int(mask.sum())].tolist() == [*processor.encode(SENTENCES[0]), 1]
    assert processor.decode(ids[0, : int(mask.sum()) - 1].tolist()) == SENTENCES[0]
    assert not ids[0, int(mask.sum()) :].any()


def test_missing_and_damaged_tokenizers_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"tokenizer\.json"):
        tokenize(tmp_path, "words")
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelFilesError, match="cannot be read"):
        tokenize(tmp_path, "words")
