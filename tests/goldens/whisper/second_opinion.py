#!/usr/bin/env python3
"""What tests/whisper_reference.py finds against what others find of the same weights and recording, in float32, greedy.

    second_opinion.py openai FOLDER AUDIO [--language CODE]    openai/whisper 20250625: needs torch, and its source on PYTHONPATH
    second_opinion.py ct2 FOLDER AUDIO [--language CODE]       CTranslate2 4.8.5 and faster-whisper 1.2.1

Prints the largest differences, one line each.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import whisper_reference as ours

STEPS, SAID = 12, " And so my fellow Americans ask not what your country can"


def openai_names(tensors):
    """{name in openai/whisper: tensor in CTranslate2's file}"""
    yield "decoder.token_embedding.weight", tensors["decoder/embeddings/weight"]
    for side, norm in (("encoder", "ln_post"), ("decoder", "ln")):
        yield f"{side}.positional_embedding", tensors[f"{side}/position_encodings/encodings"]
        yield from norm_names(tensors, f"{side}/layer_norm", f"{side}.{norm}")
        for i in range(sum(name.startswith(f"{side}/layer_") and name.endswith("ffn/layer_norm/beta") for name in tensors)):
            yield from block_names(tensors, side, f"{side}/layer_{i}", f"{side}.blocks.{i}")
    for name in ("conv1", "conv2"):
        yield from ((f"encoder.{name}.{kind}", tensors[f"encoder/{name}/{kind}"]) for kind in ("weight", "bias"))


def norm_names(tensors, theirs, name):
    yield from ((f"{name}.weight", tensors[f"{theirs}/gamma"]), (f"{name}.bias", tensors[f"{theirs}/beta"]))


def linear_names(tensors, theirs, names):
    """Rows of several matrices that lie in one; keys have no bias, which the file says in zeros."""
    for part, name in enumerate(names):
        for kind in ("weight", "bias"):
            value = np.split(tensors[f"{theirs}/{kind}"], len(names))[part]
            if name.endswith("key") and kind == "bias":
                assert not value.any()
            else:
                yield f"{name}.{kind}", value


def block_names(tensors, side, theirs, name):
    attention = f"{theirs}/self_attention"
    yield from norm_names(tensors, f"{attention}/layer_norm", f"{name}.attn_ln")
    yield from linear_names(tensors, f"{attention}/linear_0", [f"{name}.attn.{part}" for part in ("query", "key", "value")])
    yield from linear_names(tensors, f"{attention}/linear_1", [f"{name}.attn.out"])
    if side == "decoder":
        yield from norm_names(tensors, f"{theirs}/attention/layer_norm", f"{name}.cross_attn_ln")
        yield from linear_names(tensors, f"{theirs}/attention/linear_0", [f"{name}.cross_attn.query"])
        yield from linear_names(tensors, f"{theirs}/attention/linear_1", [f"{name}.cross_attn.{part}" for part in ("key", "value")])
        yield from linear_names(tensors, f"{theirs}/attention/linear_2", [f"{name}.cross_attn.out"])
    yield from norm_names(tensors, f"{theirs}/ffn/layer_norm", f"{name}.mlp_ln")
    for part in (0, 1):
        yield from linear_names(tensors, f"{theirs}/ffn/linear_{part}", [f"{name}.mlp.{2 * part}"])


def openai_model(folder, model):
    import torch
    import whisper

    tensors = ours.read_model(folder / "model.bin")
    width, bands = tensors["encoder/conv1/weight"].shape[:2]
    sides = [(model.heads[side], model.layers[side]) for side in ("encoder", "decoder")]
    dims = whisper.model.ModelDimensions(bands, 1500, width, *sides[0], len(tensors["decoder/embeddings/weight"]), 448, width, *sides[1])
    theirs = whisper.model.Whisper(dims).eval()
    theirs.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in openai_names(tensors)}, strict=True)
    heads = torch.zeros(sides[1][1], sides[1][0], dtype=torch.bool)
    heads[tuple(zip(*model.alignment_heads()))] = True
    theirs.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return theirs


def openai(folder, samples, language, model):
    """Spectrogram, features, logits, tokens that are suppressed, languages and two transcripts."""
    import torch
    import whisper

    theirs, n = openai_model(folder, model), ours.CHUNK * ours.RATE
    mel = whisper.log_mel_spectrogram(samples, model.bands, padding=n)
    window = whisper.pad_or_trim(mel[:, :min(mel.shape[-1] - ours.FRAMES, ours.FRAMES)], ours.FRAMES)
    with torch.no_grad():
        features = theirs.encoder(window[None])
    tokenizer = whisper.tokenizer.get_tokenizer(theirs.is_multilingual, num_languages=theirs.num_languages, language="en")
    ids = [*tokenizer.sot_sequence, tokenizer.timestamp_begin, *tokenizer.encode(SAID)]
    with torch.no_grad():
        logits = theirs.decoder(torch.tensor([ids]), features)[0].numpy()
        languages = theirs.detect_language(whisper.pad_or_trim(mel, ours.FRAMES))[1] if theirs.is_multilingual else {}
    specials = [tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm, tokenizer.no_speech]
    run = lambda words: theirs.transcribe(samples, language=language, temperature=0.0, word_timestamps=words, fp16=False, verbose=None)
    return {"mel": mel.numpy().T, "features": features[0].numpy(), "logits": (ids, logits), "languages": languages,
            "suppressed": sorted({*tokenizer.non_speech_tokens, *specials}), "plain": run(False), "words": run(True)}


def ct2(folder, samples, language, model):
    import ctranslate2
    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer

    theirs = WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=2)
    mel = ours.log_mel(samples, model.bands)
    window = ours.pad_or_trim(mel[:min(len(mel) - ours.FRAMES, ours.FRAMES)])
    view = lambda frames: ctranslate2.StorageView.from_array(np.ascontiguousarray(frames.T[None], np.float32))
    features = theirs.model.encode(view(window))

    # without moments nothing is filtered; of max_length the half is for the text
    beginning = [*model.tokens.beginning("en", "transcribe"), model.tokens.no_timestamps]
    found = theirs.model.generate(features, [beginning], beam_size=1, max_length=2 * (len(beginning) + STEPS), return_logits_vocab=True,
                                  suppress_blank=False, suppress_tokens=None)[0]
    logits = [np.array(row) for row in found.logits[0]]
    ids = beginning + found.sequences_ids[0][:len(logits) - 1]
    languages = {}
    if theirs.model.is_multilingual:
        languages = {token[2:-2]: chance for token, chance in theirs.model.detect_language(view(ours.pad_or_trim(mel)))[0]}
    return {"features": np.array(features)[0], "logits": (ids, np.array(logits)), "languages": languages,
            "plain": faster(theirs, samples, language, False), "words": faster(theirs, samples, language, True)}


def faster(model, samples, language, words):
    segments, _ = model.transcribe(samples, language=language, beam_size=1, temperature=0.0, word_timestamps=words)
    keys = ("start", "end", "text", "tokens", "avg_logprob", "no_speech_prob", "compression_ratio")
    return {"segments": [{key: getattr(s, key) for key in keys} | {"words": [
        {key: getattr(w, key) for key in ("word", "start", "end", "probability")} for w in s.words or []]} for s in segments]}


def worst(name, a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    print(f"{name}: {np.abs(a - b).max():.2e}" if a.shape == b.shape else f"{name}: {a.shape} and {b.shape}")


def compare_transcripts(name, mine, theirs):
    mine, theirs = mine["segments"], theirs["segments"]
    text = ["".join(segment["text"] for segment in each) for each in (mine, theirs)]
    tokens = [[segment["tokens"] for segment in each] for each in (mine, theirs)]
    print(f"{name}: {len(mine)} and {len(theirs)} segments, text {text[0] == text[1]}, tokens {tokens[0] == tokens[1]}")
    if len(mine) == len(theirs):
        for key in ("start", "end", "avg_logprob", "no_speech_prob", "compression_ratio"):
            worst(f"  {key}", [s[key] for s in mine], [s[key] for s in theirs])
    words = [[word for segment in each for word in segment.get("words", [])] for each in (mine, theirs)]
    if words[0]:
        print(f"  {len(words[0])} and {len(words[1])} words, the same {[w['word'] for w in words[0]] == [w['word'] for w in words[1]]}")
        if len(words[0]) == len(words[1]):
            for key in ("start", "end", "probability"):
                worst(f"  words' {key}", [w[key] for w in words[0]], [w[key] for w in words[1]])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", choices=["openai", "ct2"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--language")
    parser.add_argument("--repeat", type=int, default=1, help="so many times the recording")
    options = parser.parse_args()
    model = ours.Whisper.load(options.folder)
    samples = np.tile(ours.load_audio(options.audio), options.repeat)
    theirs = {"openai": openai, "ct2": ct2}[options.other](options.folder, samples, options.language, model)
    mel = ours.log_mel(samples, model.bands)
    features = model.encode(ours.pad_or_trim(mel[:min(len(mel) - ours.FRAMES, ours.FRAMES)]))
    mine = {words: ours.transcribe(model, samples, options.language, words=words) for words in (False, True)}
    if "mel" in theirs:
        worst("mel", mel, theirs["mel"])
        print("suppressed tokens are the same:", model.tokens.suppressed() == theirs["suppressed"])
    print(f"largest feature: {np.abs(features).max():.1f}")
    worst("features", features, theirs["features"])
    ids, logits = theirs["logits"]
    worst(f"logits of {len(logits)} steps", model.step(model.start(features), ids)[0][-len(logits):], logits)
    if theirs["languages"]:
        found = mine[False].get("languages") or ours.detect_language(model, model.encode(ours.pad_or_trim(mel)))
        worst("languages", [found[code] for code in found], [theirs["languages"][code] for code in found])
    compare_transcripts("transcript", mine[False], theirs["plain"])
    compare_transcripts("with words", mine[True], theirs["words"])


if __name__ == "__main__":
    main()
