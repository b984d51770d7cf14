"""Makes the folders beside it: small tokenizers in the manner of several model families, and what they answer.

    python3 tests/golden/tokenizer/make.py [OUTPUT_DIR]

Needs the package `tokenizers`, which does all of it: it trains each tokenizer on a little text of this
repository and on some lines in other scripts, and encodes and decodes. The same package and the same text
give the same files:

    texts.json                what every tokenizer encodes
    cuts.json                 pre-tokenizers, alone, and the pieces into which they cut some texts
    FAMILY/tokenizer.json     the tokenizer
    FAMILY/encoded.json       for each text its "ids" without what the post-processor adds, for some texts
                              "whole_ids" with it, and what the ids are "decoded" to when that is not the text
    FAMILY/decoded.json       "ids" drawn at random, some of no token, what they are "decoded" to, and
                              "without_specials" when that is something else
"""

import json
import os
import pathlib
import random
import sys

from texts import ALPHABETS, OTHER_SCRIPTS, SHORT_TEXTS, TEXTS

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers  # noqa: E402
from tokenizers import pre_tokenizers as pre  # noqa: E402
from tokenizers import processors, trainers  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK_V3 = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
               "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
# Every construct that the patterns of models are made of, and some that differ from engine to engine.
ODD = (r"(?<=b)\p{N}|\p{^L}{2,2}x|(?<!\s)\d{2,3}+|\p{Han}+?|\p{Hiragana}++|[\x{4e00}-\x{9fa5}-]|\u0041\x42|"
       r"\p{Lu}(?=\P{Lu})|(?>a|ab)b|[^\S\n]{2,}|^x|y$|.{4,}?;|{|a{,2}e")

# The alphabet of the tokenizers over characters; all other characters become <unk> or bytes.
CHARACTERS = ("▁\nABCDEFGHILMNOPRSTUWabcdefghijklmnoprstuvwxyz012345678!\"#'()*+,-./:;<=>[]_`{}|"
              "éüабеиσε한我的。،न")

BOS = "<｜begin▁of▁sentence｜>"


def isolated(pattern):
    return pre.Split(Regex(pattern), "isolated")


def byte_level_end(prefix=False):
    return pre.ByteLevel(add_prefix_space=prefix, use_regex=False)


def template(token, behind=()):
    def build(tokenizer):
        tokens = [token, *behind]
        return processors.TemplateProcessing(
            single=" ".join([token, "$A", *behind]),
            special_tokens=[(t, tokenizer.token_to_id(t)) for t in dict.fromkeys(tokens)])
    return build


def specials(*contents, **flags):
    return [AddedToken(c, special=True, normalized=False, **flags) for c in contents]


def byte_level(pre_tokenizer, added, normalizer=None, post=None, **trainer):
    """A tokenizer over bytes, trained."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, added, initial_alphabet=pre.ByteLevel.alphabet(), **trainer)
    tokenizer.post_processor = post(tokenizer) if post else processors.ByteLevel(trim_offsets=False)
    return tokenizer


def train(tokenizer, added, vocab_size=320, **options):
    files = [ROOT / "README.md", ROOT / "client/cpp/library/client.cc"]
    lines = "".join([path.read_text() for path in files] + [OTHER_SCRIPTS]).splitlines(keepends=True)
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **options)
    tokenizer.train_from_iterator(lines, trainer)
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])


def sentencepiece(pre_tokenizer, normalizer, decoder, byte_fallback, fuse_unk, vocab_size=560, added=(),
                  post=True):
    """A tokenizer over characters, with <unk>, <s>, </s> and perhaps <0x00> to <0xFF> before the others."""
    first = ["<unk>", "<s>", "</s>"]
    pieces = first + ([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else [])
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=fuse_unk))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer or pre.Metaspace(prepend_scheme="never")
    train(tokenizer, added, vocab_size, special_tokens=pieces, initial_alphabet=list(CHARACTERS),
          limit_alphabet=len(CHARACTERS))
    if decoder:
        tokenizer.decoder = decoder
    if post:
        tokenizer.post_processor = template("<s>")(tokenizer)
    content = json.loads(tokenizer.to_str())
    if not pre_tokenizer:
        content["pre_tokenizer"] = None  # Training without any would never end a word.
    content["added_tokens"] = [t for t in content["added_tokens"] if not t["content"].startswith("<0x")]
    return content


def gpt2():
    content = json.loads(byte_level(
        pre.ByteLevel(add_prefix_space=False), [AddedToken("<|endoftext|>", special=True)]).to_str())
    # As the first files were.
    del content["model"]["type"], content["model"]["byte_fallback"], content["model"]["ignore_merges"]
    content["model"].update(continuing_subword_prefix="", end_of_word_suffix="")
    content["model"]["merges"] = ["#version: 0.2"] + [" ".join(pair) for pair in content["model"]["merges"]]
    return content


def olmoe():
    return byte_level(
        pre.ByteLevel(add_prefix_space=False),
        [*specials("<|endoftext|>", "<|padding|>"), *[AddedToken(" " * n, normalized=True) for n in (6, 4, 2)],
         AddedToken("|||EMAIL_ADDRESS|||", normalized=True)],
        normalizers.NFC())


def qwen():
    return byte_level(
        pre.Sequence([isolated(QWEN2), byte_level_end()]),
        [*specials("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
         *[AddedToken(t, normalized=False) for t in ("<think>", "</think>")]],
        normalizers.NFC())


def deepseek_v2():
    return byte_level(
        pre.Sequence([
            isolated("[\r\n]"),
            isolated(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽ]+"),
            isolated(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), isolated(r"\s+$"), isolated("[一-龥ࠀ-一가-퟿]+"),
            pre.Digits(individual_digits=True), byte_level_end()]),
        specials(BOS, "<｜end▁of▁sentence｜>"), post=template(BOS))


def deepseek_v3():
    return byte_level(
        pre.Sequence([isolated(r"\p{N}{1,3}"), isolated("[一-龥぀-ゟ゠-ヿ]+"), isolated(DEEPSEEK_V3),
                      byte_level_end()]),
        [*specials(BOS, "<｜end▁of▁sentence｜>"),
         *[AddedToken(t, normalized=True) for t in ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")]],
        normalizers.Sequence([]))


def llama3():
    def post(tokenizer):
        steps = [processors.ByteLevel(trim_offsets=False), template("<|begin_of_text|>")(tokenizer)]
        return processors.Sequence(steps)

    content = json.loads(byte_level(
        pre.Sequence([isolated(LLAMA3), byte_level_end()]), specials("<|begin_of_text|>", "<|endoftext|>"),
        post=post).to_str())
    content["model"]["ignore_merges"] = True
    vocab = content["model"]["vocab"]
    # Tokens that no merge leads to, so that added ones move up.
    for token in ("ĠHello", "'LL", "å¤©"):
        vocab.setdefault(token, len(vocab))
    shift = {}
    for token in content["added_tokens"]:
        token["id"] = shift[token["content"]] = len(vocab) + len(shift)
    special = content["post_processor"]["processors"][1]["special_tokens"]
    for name, value in special.items():
        value["ids"] = [shift[name]]
    return content


def o200k():
    return byte_level(
        pre.Sequence([isolated(O200K), byte_level_end()]), specials("<|endoftext|>", "<|im_start|>"))


def mixtral():
    return sentencepiece(
        None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                           decoders.Strip(" ", 1, 0)]),
        byte_fallback=True, fuse_unk=True, added=[AddedToken("[INST]", normalized=True)])


def metaspace(scheme, split, fuse_unk):
    return sentencepiece(
        pre.Metaspace(prepend_scheme=scheme, split=split), None, decoders.Metaspace(prepend_scheme=scheme),
        byte_fallback=False, fuse_unk=fuse_unk, vocab_size=320)


def no_decoder():
    return sentencepiece(pre.Metaspace(prepend_scheme="never"), normalizers.NFC(), None, byte_fallback=False,
                         fuse_unk=True, vocab_size=240, post=False)


def some_bytes():
    """Byte tokens for some bytes only, so that <unk> and bytes meet."""
    content = sentencepiece(
        None, normalizers.Replace(Regex(" {1,2}"), "▁"),
        decoders.Sequence([decoders.Replace(Regex("▁+"), " "), decoders.Strip("a", 1, 0), decoders.ByteFallback(),
                           decoders.Fuse(), decoders.Strip(" ", 2, 0)]),
        byte_fallback=True, fuse_unk=False, vocab_size=440)
    vocab = content["model"]["vocab"]
    for byte in range(0xE0, 0xE8):
        vocab[f"<unused{byte}>"] = vocab.pop(f"<0x{byte:02X}>")
    return content


def splits():
    return byte_level(
        pre.Sequence([
            pre.Split("ing", "merged_with_previous"), pre.Split(Regex("[A-Z]+"), "merged_with_next"),
            pre.Split(Regex("[.,]"), "contiguous"), pre.Split("_", "removed"),
            pre.Split(Regex(r"[^\r\n]+"), "isolated", True), pre.Split(Regex(r"\p{L}*"), "isolated"), pre.Split("(x)", "contiguous", True),
            pre.Digits(individual_digits=False), byte_level_end(prefix=True)]),
        [AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
         AddedToken("<both>", lstrip=True, rstrip=True, normalized=True, special=True),
         AddedToken("<word>", single_word=True, normalized=False), AddedToken("NORM", normalized=True),
         AddedToken("  ", normalized=True), AddedToken("ab", normalized=False), AddedToken("abab", normalized=False)],
        normalizers.Sequence([normalizers.Prepend("x"), normalizers.Replace(Regex("N+"), "n"), normalizers.NFC()]),
        post=template("<both>", ["NORM", "<both>"]))


def odd():
    return byte_level(
        pre.Sequence([isolated(ODD), pre.Split(Regex(r"\s*"), "merged_with_next"), byte_level_end()]),
        specials("<|endoftext|>"))


FAMILIES = {
    "gpt2": gpt2, "olmoe": olmoe, "qwen": qwen, "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3, "llama3": llama3, "o200k": o200k, "mixtral": mixtral,
    "metaspace_always": lambda: metaspace("always", True, True),
    "metaspace_first": lambda: metaspace("first", False, False), "no_decoder": no_decoder,
    "some_bytes": some_bytes, "splits": splits, "odd": odd,
}


def all_texts(rng):
    texts = list(TEXTS)
    for alphabet in ALPHABETS:
        for length in (7, 25):
            texts.append("".join(rng.choices(alphabet, k=length)))
    for _ in range(6):
        texts.append("".join(rng.choice(texts)[:12] for _ in range(5)))
    return texts


def case_of_text(tokenizer, text, index):
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    whole = tokenizer.encode(text).ids
    decoded = tokenizer.decode(plain, skip_special_tokens=False)
    return {"ids": plain, **({"whole_ids": whole} if index % 16 == 0 else {}),
            **({"decoded": decoded} if decoded != text else {})}


def case_of_ids(tokenizer, rng):
    ids = [rng.randrange(tokenizer.get_vocab_size() + 5) for _ in range(rng.randrange(1, 25))]
    decoded, without = (tokenizer.decode(ids, skip_special_tokens=skip) for skip in (False, True))
    return {"ids": ids, "decoded": decoded, **({"without_specials": without} if without != decoded else {})}


def cutters():
    """Pre-tokenizers, alone: which tokens come of their pieces may hide where they cut."""
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for pattern in (Regex("[a-c]"), Regex(r"\p{L}*"), " ", ""):
            for invert in (False, True):
                yield pre.Split(pattern, behavior, invert), SHORT_TEXTS
    for prefix in (False, True):
        for use_regex in (False, True):
            yield pre.ByteLevel(add_prefix_space=prefix, use_regex=use_regex), SHORT_TEXTS
    for scheme in ("always", "first", "never"):
        for split in (False, True):
            yield pre.Metaspace(prepend_scheme=scheme, split=split), SHORT_TEXTS
    yield pre.Sequence([pre.Metaspace(prepend_scheme="never"), pre.Metaspace(replacement="a")]), SHORT_TEXTS
    yield pre.Sequence([isolated(" "), pre.ByteLevel(add_prefix_space=True)]), SHORT_TEXTS
    for individual in (False, True):
        yield pre.Digits(individual_digits=individual), TEXTS[12:24:2]
    for pattern in (QWEN2, LLAMA3, O200K, DEEPSEEK_V3, ODD):
        yield isolated(pattern), [text for text in TEXTS[5:] if len(text) > 3][::2]


def cuts():
    tokenizer = Tokenizer(models.BPE())
    for cutter, texts in cutters():
        tokenizer.pre_tokenizer = cutter
        pieces = {text: [piece for piece, _ in cutter.pre_tokenize_str(text)] for text in texts}
        yield {"pre_tokenizer": json.loads(tokenizer.to_str())["pre_tokenizer"], "pieces": pieces}


def write_lines(path, values):
    lines = ",\n".join(compact(value) for value in values)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def main(output):
    texts = all_texts(random.Random(1))
    output.mkdir(parents=True, exist_ok=True)
    write_lines(output / "texts.json", texts)
    write_lines(output / "cuts.json", cuts())
    for name, make in FAMILIES.items():
        made = make()
        content = made if isinstance(made, dict) else json.loads(made.to_str())
        folder = output / name
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(compact(content) + "\n", encoding="utf-8")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        rng = random.Random(name)
        write_lines(folder / "encoded.json",
                    [case_of_text(tokenizer, text, index) for index, text in enumerate(texts)])
        write_lines(folder / "decoded.json",
                    [case_of_ids(tokenizer, rng) for _ in range(20)])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
