#!/usr/bin/env python3
"""Whisper written from the equations, in numpy: the truth that tests compare with.

    whisper_reference.py FOLDER AUDIO... [--words] [--language CODE] [--task translate] [--prompt TEXT] [--float64]

prints one line of JSON for each recording. FOLDER is one of CTranslate2's: model.bin, config.json, tokenizer.json.

The rules are those of openai/whisper 20250625 (audio.py, model.py, decoding.py, transcribe.py, timing.py), with its defaults
for the command line but greedy and without fallback: the temperature is 0 throughout, and "needs_fallback" tells where openai/whisper
would try a higher one. Left out besides: beam search, clip_timestamps, hallucination_silence_threshold, carry_initial_prompt.

The spectrogram, the filters of logits, probabilities and the alignment are float64; encoder and decoder have the type that the caller asks for.
"""

import argparse
import itertools
import json
import math
import string
import struct
import sys
import wave
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tokenizers import Tokenizer

RATE, WINDOW, HOP, CHUNK = 16000, 400, 160, 30
FRAMES = CHUNK * RATE // HOP  # of a window
STRIDE, PRECISION = 2, 0.02  # frames and seconds of a timestamp's step
FRAMES_PER_SECOND = RATE // HOP
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


# Audio

def load_audio(path):
    """Mono samples at 16 kHz, float32. WAV of that kind needs nothing; anything else needs PyAV."""
    path = str(path)
    if path.endswith(".wav"):
        with wave.open(path) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2):
                return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    return decode_with_av(path)


def decode_with_av(path):
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(path) as file:
        frames = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)] + resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32) / 32768


def mel_filters(bands):
    """Slaney's scale and triangles of equal area, [bands, 201]."""
    def hertz(mel):
        return np.where(mel < 15, 200 / 3 * mel, 1000 * np.exp(math.log(6.4) / 27 * (mel - 15)))

    edges = hertz(np.linspace(0, 15 + 27 * math.log(8) / math.log(6.4), bands + 2))
    bins = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def log_mel(samples, bands=80, padding=CHUNK * RATE):
    """[frames, bands] of the samples and of `padding` zeros after them; the loudest value of all of it is the measure of its floor."""
    samples = np.concatenate([samples, np.zeros(padding)])
    padded = np.pad(samples, WINDOW // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    count, filters = len(samples) // HOP, mel_filters(bands).T
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:count]
    blocks = (frames[i:i + FRAMES] * hann for i in range(0, count, FRAMES))
    powers = np.concatenate([np.abs(np.fft.rfft(block)) ** 2 @ filters for block in blocks])
    logs = np.log10(np.maximum(powers, 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


def pad_or_trim(mel):
    """A window of frames. What is missing becomes 0, which is not what silence has."""
    mel = mel[:FRAMES]
    return np.pad(mel, ((0, FRAMES - len(mel)), (0, 0)))


# Arithmetic

def erf_table():
    """Where erf is expanded, and the coefficients of each expansion: erf's derivatives are Hermite polynomials times a bell."""
    nodes = np.arange(-6 * 32, 6 * 32 + 1) / 32
    hermite, bell = [np.ones_like(nodes), 2 * nodes], 2 / math.sqrt(math.pi) * np.exp(-nodes**2)
    for n in range(1, 7):
        hermite.append(2 * nodes * hermite[n] - 2 * n * hermite[n - 1])
    terms = [(-1) ** n * hermite[n] * bell / math.factorial(n + 1) for n in range(7)]
    return [np.array([math.erf(x) for x in nodes]), *terms]


ERF = erf_table()


def erf(x):
    """To 1e-14; the step of 1/32 leaves at most 1/64 to Taylor's series. Beyond 6 it is 1 in every bit."""
    x = np.clip(x, -6, 6)
    index = np.rint(x * 32).astype(np.int32)
    rest, index = x - index / np.asarray(32, x.dtype), index + 6 * 32
    total = np.zeros_like(x)
    for coefficients in reversed(ERF):
        total = total * rest + coefficients.astype(x.dtype)[index]
    return total


def gelu(x):
    return x * (erf(x / np.asarray(math.sqrt(2), x.dtype)) + 1) / 2


def layer_norm(x, gamma, beta):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.asarray(1e-5, x.dtype)) * gamma + beta


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


# Weights

class Reader:
    """Little-endian values one after another."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, kind):
        value, = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return value

    def text(self):
        """Its length counts a zero at the end."""
        length = self.take("H")
        self.at += length
        return self.data[self.at - length:self.at - 1].decode()

    def tensor(self):
        shape = [self.take("I") for _ in range(self.take("B"))]
        kind, size = TYPES[self.take("B")], self.take("I")
        self.at += size
        return np.frombuffer(self.data, kind, size // np.dtype(kind).itemsize, self.at - size).reshape(shape)


def read_model(path):
    """{name: tensor} of CTranslate2's model.bin, as stored; an alias has its target's."""
    file = Reader(Path(path).read_bytes())
    version, spec, revision = file.take("I"), file.text(), file.take("I")
    assert (version, spec, revision) == (6, "WhisperSpec", 3), (version, spec, revision)
    tensors = {file.text(): file.tensor() for _ in range(file.take("I"))}
    for _ in range(file.take("I")):
        alias, target = file.text(), file.text()
        tensors |= {alias + end: tensors[target + end] for end in ("", "_scale") if target + end in tensors}
    assert file.at == len(file.data)
    return tensors


def dequantised(tensors, dtype):
    """8 bits are a row's codes, of a scale for each row."""
    scaled = {name for name in tensors if name + "_scale" in tensors}
    for name, tensor in tensors.items():
        if name in scaled:
            scale = tensors[name + "_scale"].astype(dtype)
            yield name, tensor.astype(dtype) / scale.reshape(scale.shape + (1,) * (tensor.ndim - scale.ndim))
        elif tensor.ndim and not name.endswith("_scale"):
            yield name, tensor.astype(dtype)


# The network

class Whisper:
    """`encode` a window of the spectrogram, `start` a text about it, and `step` on, which gives the logits."""

    def __init__(self, tensors, config, tokens, dtype=np.float32):
        self.weights = dict(dequantised(tensors, dtype))
        self.weights["decoder/projection/weight"] = self.weights["decoder/embeddings/weight"]  # an alias in the file
        self.config, self.tokens, self.dtype = config, tokens, dtype
        self.heads = {side: int(tensors[f"{side}/num_heads"]) for side in ("encoder", "decoder")}
        self.layers = {side: sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/weight") for name in tensors)
                       for side in ("encoder", "decoder")}
        self.bands = self.weights["encoder/conv1/weight"].shape[1]
        self.context = len(self.weights["decoder/position_encodings/encodings"])
        # 3 is erf's GELU
        expected = {"activation": 3, "pre_norm": 1, "alibi": 0, "scale_embeddings": 0, "start_from_zero_embedding": 0}
        assert all(int(tensors[f"decoder/{name}"]) == value for name, value in expected.items())

    @classmethod
    def load(cls, folder, dtype=np.float32):
        folder = Path(folder)
        tensors, config = read_model(folder / "model.bin"), json.loads((folder / "config.json").read_text())
        tokens = Tokens(folder / "tokenizer.json", len(tensors["decoder/embeddings/weight"]))
        return cls(tensors, config, tokens, dtype)

    def product(self, x, name):
        """One row goes by another way through BLAS, ten times as fast."""
        weight = self.weights[f"{name}/weight"]
        return (weight @ x[0])[None] if len(x) == 1 else x @ weight.T

    def linear(self, x, name):
        return self.product(x, name) + self.weights[f"{name}/bias"]

    def norm(self, x, name):
        return layer_norm(x, self.weights[f"{name}/gamma"], self.weights[f"{name}/beta"])

    def split(self, x, side):
        """[positions, width] to [heads, positions, width of a head]"""
        return x.reshape(len(x), self.heads[side], -1).transpose(1, 0, 2)

    def attend(self, query, key, value, mask=0):
        """What is attended to, and the scores before softmax."""
        scores = query @ key.transpose(0, 2, 1) / np.asarray(math.sqrt(query.shape[-1]), self.dtype) + mask
        mixed = softmax(scores) @ value
        return mixed.transpose(1, 0, 2).reshape(query.shape[1], -1), scores

    def feed_forward(self, x, layer):
        return self.linear(gelu(self.linear(self.norm(x, f"{layer}/ffn/layer_norm"), f"{layer}/ffn/linear_0")), f"{layer}/ffn/linear_1")

    def queries_keys_values(self, x, layer, side):
        joined = self.linear(self.norm(x, f"{layer}/self_attention/layer_norm"), f"{layer}/self_attention/linear_0")
        return (self.split(part, side) for part in np.split(joined, 3, axis=-1))

    def convolve(self, x, name, stride):
        """Three frames wide, a zero at either end."""
        weight, padded = self.weights[f"{name}/weight"], np.pad(x, ((1, 1), (0, 0)))
        parts = (padded[i:i + len(x)][::stride] @ weight[:, :, i].T for i in range(3))
        return gelu(sum(parts) + self.weights[f"{name}/bias"])

    def encode(self, mel):
        """[3000, bands] to [1500, width]"""
        x = self.convolve(self.convolve(mel.astype(self.dtype), "encoder/conv1", 1), "encoder/conv2", 2)
        x = x + self.weights["encoder/position_encodings/encodings"]
        for layer in (f"encoder/layer_{i}" for i in range(self.layers["encoder"])):
            attended, _ = self.attend(*self.queries_keys_values(x, layer, "encoder"))
            x = x + self.linear(attended, f"{layer}/self_attention/linear_1")
            x = x + self.feed_forward(x, layer)
        return self.norm(x, "encoder/layer_norm")

    def start(self, features):
        """Keys and values of the audio for each layer of the decoder, and none yet of the text."""
        joined = [self.linear(features, f"decoder/layer_{i}/attention/linear_1") for i in range(self.layers["decoder"])]
        audio = [tuple(self.split(part, "decoder") for part in np.split(both, 2, axis=-1)) for both in joined]
        return SimpleNamespace(audio=audio, text=[None] * len(audio), length=0)

    def step(self, state, ids):
        """Logits [ids, vocabulary] after each of further tokens, and for each layer the scores [heads, ids, 1500] over the audio."""
        past, state.length = state.length, state.length + len(ids)
        x = self.weights["decoder/embeddings/weight"][ids] + self.weights["decoder/position_encodings/encodings"][past:state.length]
        future = np.arange(state.length) > past + np.arange(len(ids))[:, None]
        mask, scores = np.where(future, self.dtype(-np.inf), self.dtype(0)), []
        for index in range(self.layers["decoder"]):
            layer = f"decoder/layer_{index}"
            query, key, value = self.queries_keys_values(x, layer, "decoder")
            if past:
                key, value = (np.concatenate(pair, axis=1) for pair in zip(state.text[index], (key, value)))
            state.text[index] = key, value
            attended, _ = self.attend(query, key, value, mask)
            x = x + self.linear(attended, f"{layer}/self_attention/linear_1")
            query = self.split(self.linear(self.norm(x, f"{layer}/attention/layer_norm"), f"{layer}/attention/linear_0"), "decoder")
            attended, over_audio = self.attend(query, *state.audio[index])
            scores.append(over_audio)
            x = x + self.linear(attended, f"{layer}/attention/linear_2")
            x = x + self.feed_forward(x, layer)
        return self.product(self.norm(x, "decoder/layer_norm"), "decoder/projection"), scores

    def alignment_heads(self):
        """[(layer, head)]; without a list, all of the upper half of the layers."""
        layers = range(self.layers["decoder"] // 2, self.layers["decoder"])
        return self.config.get("alignment_heads") or list(itertools.product(layers, range(self.heads["decoder"])))


# Tokens

def byte_alphabet():
    """{character: byte} of GPT-2's vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(rest)}


SYMBOLS = [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』', *"<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split()]
NOTES = list("♩♪♫♬♭♮♯")
UNSPACED = {"zh", "ja", "th", "lo", "my", "yue"}


class Tokens:
    """Text to tokens and back, and the ids that mean something.

    English models have one token less before the special ones, and neither language nor task at the start of a text.
    """

    def __init__(self, path, vocabulary):
        self.tokenizer, alphabet = Tokenizer.from_file(str(path)), byte_alphabet()
        self.multilingual = vocabulary >= 51865
        self.end, self.start, self.translate, self.transcribe, self.lm, self.previous, self.no_timestamps = map(self.tokenizer.token_to_id, (
            "<|endoftext|>", "<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|notimestamps|>"))
        # some files call it <|nocaptions|>, and those of English models have no timestamps
        self.no_speech, self.timestamps = self.no_timestamps - 1, self.no_timestamps + 1
        self.languages = {self.tokenizer.id_to_token(i)[2:-2]: i for i in range(self.start + 1, self.translate)}
        plain = (self.tokenizer.id_to_token(i) for i in range(self.end))
        self.bytes = [bytes(alphabet[character] for character in token) for token in plain]

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        """Text alone, and U+FFFD for what is not UTF-8."""
        return b"".join(self.bytes[i] for i in ids if i < self.end).decode(errors="replace")

    def beginning(self, language, task):
        if not self.multilingual:
            return [self.start]
        return [self.start, self.languages[language], self.transcribe if task == "transcribe" else self.translate]

    def non_speech(self):
        """Marks that people write about sounds: of " -" and " '" the first token, of notes too, of others those that are one token."""
        found = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in SYMBOLS + NOTES:
            ids = (self.encode(symbol), self.encode(" " + symbol))
            found |= {each[0] for each in ids if len(each) == 1 or symbol in NOTES}
        return found

    def suppressed(self):
        return sorted(self.non_speech() | {self.transcribe, self.translate, self.start, self.previous, self.lm, self.no_speech})

    def characters(self, ids):
        """[(text, ids)] of the smallest runs of tokens that are whole characters."""
        whole, run, at, parts = self.decode(ids), [], 0, []
        for token in ids:
            run.append(token)
            text = self.decode(run)
            if "\ufffd" not in text or whole[at + text.index("\ufffd")] == "\ufffd":
                parts.append((text, run))
                run, at = [], at + len(text)
        return parts

    def words(self, ids, language):
        """A word begins with a space; a part that is punctuation is a word too."""
        parts = self.characters(ids)
        if language in UNSPACED:
            return parts
        words = []
        for text, run in parts:
            if text.startswith(" ") or text.strip() in string.punctuation or not words:
                words.append((text, run))
            else:
                words[-1] = words[-1][0] + text, words[-1][1] + run
        return words


# Decoding of one window

def apply_filters(logits, sampled, tokens, suppressed, max_initial=1.0):
    """What may follow the tokens of a window that were sampled so far. In openai/whisper's order, on a copy."""
    logits = logits.astype(np.float64)
    if not sampled:
        logits[[*tokens.encode(" "), tokens.end]] = -np.inf
    logits[suppressed] = -np.inf
    logits[tokens.no_timestamps] = -np.inf
    last_is_time = bool(sampled) and sampled[-1] >= tokens.timestamps
    last_but_one_is_time = len(sampled) < 2 or sampled[-2] >= tokens.timestamps
    if last_is_time and last_but_one_is_time:
        logits[tokens.timestamps:] = -np.inf
    elif last_is_time:
        logits[:tokens.end] = -np.inf
    if times := [token for token in sampled if token >= tokens.timestamps]:
        # the same moment may end one segment and begin the next, but no segment has no length
        least = times[-1] if last_is_time and not last_but_one_is_time else times[-1] + 1
        logits[tokens.timestamps:least] = -np.inf
    if not sampled:
        logits[:tokens.timestamps] = -np.inf
        logits[tokens.timestamps + round(max_initial / PRECISION) + 1:] = -np.inf
    logs = log_softmax(logits)
    if np.logaddexp.reduce(logs[tokens.timestamps:]) > logs[:tokens.timestamps].max():
        logits[:tokens.timestamps] = -np.inf
    return logits


def compression_ratio(text):
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def decode_window(model, features, beginning, prompt):
    """Greedy. The sum of logarithms is of the filtered distribution, and counts the end."""
    tokens, limit = model.tokens, model.context // 2
    first = [tokens.previous, *prompt[-(limit - 1):]] if prompt else []
    ids, sampled, total, suppressed = first + beginning, [], 0.0, tokens.suppressed()
    state = model.start(features)
    logits, _ = model.step(state, ids)
    no_speech = softmax(logits[len(first)].astype(np.float64))[tokens.no_speech]
    for _ in range(limit):
        filtered = apply_filters(logits[-1], sampled, tokens, suppressed)
        token = int(filtered.argmax())
        total += log_softmax(filtered)[token]
        if token == tokens.end:
            break
        sampled.append(token)
        if len(ids) + len(sampled) > model.context:
            break
        logits, _ = model.step(state, [token])
    text = tokens.decode(sampled).strip()
    return SimpleNamespace(tokens=sampled, text=text, avg_logprob=float(total / (len(sampled) + 1)), no_speech_prob=float(no_speech),
                           compression_ratio=compression_ratio(text))


def detect_language(model, features):
    """{code: probability}, from one step after the token that starts a text."""
    logits, _ = model.step(model.start(features), [model.tokens.start])
    languages = model.tokens.languages
    return dict(zip(languages, softmax(logits[0, list(languages.values())].astype(np.float64)).tolist()))


# Words

def median_filter(x, width=7):
    half = width // 2
    if x.shape[-1] <= half:
        return x
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)


def warp(cost):
    """The cheapest monotonous path through [tokens, frames]: its two rows of indices. Sums are float32 and ties go to the next frame,
    as openai/whisper's do. Cells of one diagonal do not depend on one another."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf, np.float32)
    trace, total[0, 0] = np.full(total.shape, -1, np.int8), 0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, token, frame = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        step = np.where((both < token) & (both < frame), 0, np.where((token < both) & (token < frame), 1, 2))
        total[i, j] = cost[i - 1, j - 1] + np.choose(step, (both, token, frame)).astype(np.float64)
        trace[i, j] = step
    trace[0, :], trace[:, 0] = 2, 1
    i, j, path = rows, columns, []
    while i or j:
        path.append((i - 1, j - 1))
        i, j = i - (trace[i, j] != 2), j - (trace[i, j] != 1)
    return np.array(path[::-1]).T


def token_times(model, scores, frames, skip):
    """When each token begins, in seconds from the start of the window."""
    weights = np.stack([scores[layer][head] for layer, head in model.alignment_heads()]).astype(np.float64)
    weights = softmax(weights[:, :, :frames // STRIDE])
    weights = (weights - weights.mean(-2, keepdims=True)) / weights.std(-2, keepdims=True)
    matrix = median_filter(weights).mean(0)[skip:-1]
    rows, columns = warp(-matrix)
    return columns[np.diff(rows, prepend=-1) != 0] * PRECISION


def align(model, features, beginning, text, frames, language):
    """Words of a window's text with their times and probabilities."""
    tokens = model.tokens
    if not text:
        return []
    logits, scores = model.step(model.start(features), [*beginning, tokens.no_timestamps, *text, tokens.end])
    chances = softmax(logits[len(beginning):len(beginning) + len(text), :tokens.end].astype(np.float64))[np.arange(len(text)), text]
    # one row more than there are tokens: that of <|notimestamps|> is where the first begins, and the last's is where it ends
    times = token_times(model, scores, frames, len(beginning))
    words, at = [], 0
    for word, run in tokens.words(text, language):
        until = at + len(run)
        words.append(SimpleNamespace(word=word, tokens=run, start=times[at], end=times[until], probability=float(chances[at:until].mean())))
        at = until
    return words


def merge_punctuation(words, before="\"'“¿([{-", after="\"'.。,，!！?？:：”)]}、"):
    """Marks join the word that they belong to and leave an empty one behind."""
    following = len(words) - 1
    for i in range(len(words) - 2, -1, -1):
        here, there = words[i], words[following]
        if here.word.startswith(" ") and here.word.strip() in before:
            there.word, there.tokens, here.word, here.tokens = here.word + there.word, here.tokens + there.tokens, "", []
        else:
            following = i
    previous = 0
    for j in range(1, len(words)):
        here, there = words[previous], words[j]
        if not here.word.endswith(" ") and there.word in after:
            here.word, here.tokens, there.word, there.tokens = here.word + there.word, here.tokens + there.tokens, "", []
        else:
            previous = j


def usual_length(words):
    """The median length of words that have one, at most 0.7 s."""
    lengths = [word.end - word.start for word in words if word.end != word.start]
    return min(0.7, float(np.median(lengths))) if lengths else 0.0


def shorten_at_sentences(words, longest):
    """A word at the end or the start of a sentence may not be longer than twice the usual."""
    marks = ".。!！?？"
    for before, word in zip(words, words[1:]):
        if word.end - word.start > longest:
            if word.word in marks:
                word.end = word.start + longest
            elif before.word in marks:
                word.start = word.end - longest


def shorten_at_segments(segment, words, usual, last_speech):
    """The same for a segment's first and last word; else the segment's moments become those of its words."""
    longest, first, last = 2 * usual, words[0], words[-1]
    second = words[1] if len(words) > 1 else None
    if first["end"] - last_speech > 4 * usual and (
            first["end"] - first["start"] > longest or second and second["end"] - first["start"] > 2 * longest):
        if second and second["end"] - second["start"] > longest:
            first["end"] = second["start"] = max(second["end"] / 2, second["end"] - longest)
        first["start"] = max(0, first["end"] - longest)
    if segment["start"] < first["end"] and segment["start"] - 0.5 > first["start"]:
        first["start"] = max(0, min(first["end"] - usual, segment["start"]))
    else:
        segment["start"] = first["start"]
    if segment["end"] > last["start"] and segment["end"] + 0.5 < last["end"]:
        last["end"] = max(last["start"] + usual, segment["end"])
    else:
        segment["end"] = last["end"]


def add_words(model, features, segments, beginning, frames, language, last_speech):
    """Gives each segment of a window its words."""
    texts = [[token for token in segment["tokens"] if token < model.tokens.end] for segment in segments]
    words = align(model, features, beginning, sum(texts, []), frames, language)
    usual = usual_length(words)
    if usual:
        shorten_at_sentences(words, 2 * usual)
    merge_punctuation(words)
    offset, rest = segments[0]["seek"] / FRAMES_PER_SECOND, iter(words)
    for segment, text in zip(segments, texts):
        segment["words"], count = [], 0
        while count < len(text) and (word := next(rest, None)):
            count += len(word.tokens)
            if word.word:
                segment["words"].append({"word": word.word, "start": float(round(offset + word.start, 2)),
                                         "end": float(round(offset + word.end, 2)), "probability": word.probability})
        if segment["words"]:
            shorten_at_segments(segment, segment["words"], usual, last_speech)
            last_speech = segment["end"]


# Whole recordings

def cut(tokens, sampled, frames):
    """[(start, end, tokens)] of a window in seconds, how many frames to move on, and whether the text ends with a lone moment."""
    is_time = [token >= tokens.timestamps for token in sampled]
    moment = lambda token: (token - tokens.timestamps) * PRECISION
    lone = is_time[-2:] == [False, True]
    places = [i + 1 for i in range(len(sampled) - 1) if is_time[i] and is_time[i + 1]]
    if not places:
        times = [token for token in sampled if token >= tokens.timestamps]
        end = moment(times[-1]) if times and times[-1] != tokens.timestamps else frames / FRAMES_PER_SECOND
        return [(0.0, end, sampled)], frames, lone
    if lone:
        places.append(len(sampled))
    runs = [sampled[a:b] for a, b in zip([0, *places], places)]
    moved = frames if lone else (runs[-1][-1] - tokens.timestamps) * STRIDE
    return [(moment(run[0]), moment(run[-1]), run) for run in runs], moved, lone


def is_silence(window):
    return window.no_speech_prob > 0.6 and window.avg_logprob <= -1


def needs_fallback(window):
    silent = window.no_speech_prob > 0.6 and window.avg_logprob < -1
    return not silent and (window.compression_ratio > 2.4 or window.avg_logprob < -1)


def clear_empty(segment):
    if segment["start"] == segment["end"] or not segment["text"].strip():
        segment |= {"text": "", "tokens": []} | ({"words": []} if "words" in segment else {})


def window_segments(model, window, seek, frames):
    """The segments of a window, how many frames to move on, and whether the text ends with a lone moment."""
    parts, moved, lone = cut(model.tokens, window.tokens, frames)
    figures = {name: getattr(window, name) for name in ("avg_logprob", "compression_ratio", "no_speech_prob")}
    offset = seek / FRAMES_PER_SECOND
    return [{"seek": seek, "start": offset + start, "end": offset + end, "text": model.tokens.decode(run), "tokens": run,
             "temperature": 0.0, **figures, "needs_fallback": needs_fallback(window)} for start, end, run in parts], moved, lone


def transcribe(model, samples, language=None, task="transcribe", words=False, prompt=None, condition=True):
    """openai/whisper's result: text, language and segments; where it was detected, "languages" has all probabilities."""
    tokens, result = model.tokens, {}
    mel = log_mel(samples, model.bands)
    count = len(mel) - FRAMES
    if not tokens.multilingual:
        language = "en"
    elif language is None:
        # unlike what is decoded, this hears silence after a short recording
        result["languages"] = detect_language(model, model.encode(pad_or_trim(mel)))
        language = max(result["languages"], key=result["languages"].get)
    beginning, prompt = tokens.beginning(language, task), tokens.encode(" " + prompt.strip()) if prompt else []
    said, segments, seek, last_speech, forgotten = list(prompt), [], 0, 0.0, 0
    while seek < count:
        frames, offset = min(FRAMES, count - seek), seek / FRAMES_PER_SECOND
        features = model.encode(pad_or_trim(mel[seek:seek + frames]))
        window = decode_window(model, features, beginning, said[forgotten:])
        if is_silence(window):
            seek += frames
            continue
        found, moved, lone = window_segments(model, window, seek, frames)
        seek += moved
        if words:
            add_words(model, features, found, beginning, frames, language, last_speech)
            ends = [word["end"] for segment in found for word in segment["words"]]
            if ends and ends[-1] > offset and not lone:
                seek = round(ends[-1] * FRAMES_PER_SECOND)
            last_speech = ends[-1] if ends else last_speech
        for segment in found:
            clear_empty(segment)
        segments += found
        said += [token for segment in found for token in segment["tokens"]]
        forgotten = forgotten if condition else len(said)
    return {"text": tokens.decode(said[len(prompt):]), "language": language, **result, "segments": segments}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--words", action="store_true")
    parser.add_argument("--language")
    parser.add_argument("--task", default="transcribe", choices=["transcribe", "translate"])
    parser.add_argument("--prompt")
    parser.add_argument("--float64", action="store_true")
    options = parser.parse_args()
    model = Whisper.load(options.folder, np.float64 if options.float64 else np.float32)
    for path in options.audio:
        result = transcribe(model, load_audio(path), options.language, options.task, options.words, options.prompt)
        json.dump({"file": path.name, **result}, sys.stdout)
        print(flush=True)


if __name__ == "__main__":
    main()
