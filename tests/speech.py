#!/usr/bin/env python3
"""Word error rates on speech in three voices, a LibriVox reader (Debian's pocketsphinx-testdata) and two espeak-ng voices that read
the default calibration texts, and language detection for one sentence in each of seven languages.

    speech.py make                       writes WAV files and transcripts.json to target/speech
    speech.py wer HYPOTHESES.json        word error rate of the transcripts {file: text}
    speech.py check MODEL REFERENCE      compares TEALIGHT_BIN (default: target/release/tealight) with REFERENCE, the transcripts {file: text} of float32 decoding
    speech.py reference FOLDER OUTPUT    writes these transcripts with faster-whisper, which must be installed
"""

import json
import os
import re
import subprocess
import sys
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "target" / "speech"
LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
TEXTS = ROOT / "crates" / "tealight-models" / "src" / "calibration.txt"
# (espeak-ng voice, words per minute, first line); each voice reads every other line
VOICES = {"espeak-us": ("en-us", 150, 0), "espeak-gb": ("en-gb+f3", 140, 1)}
LINES = 70
# sentences by espeak-ng voice whose language float32 detects with high probability, which `reference` asserts; every instruction set must detect it
CONFIDENT = {
    "en": "The weather will be fine tomorrow, so we want to walk along the river in the morning.",
    "fr+m3": "Bonjour, je voudrais une chambre pour deux personnes, avec une salle de bain, s'il vous plaît.",
    "es": "Mañana hará buen tiempo, por eso queremos caminar junto al río por la mañana.",
    "it": "Domani il tempo sarà bello, perciò vogliamo camminare lungo il fiume la mattina.",
    "ru+belinda": "Завтра будет хорошая погода, поэтому утром мы хотим погулять вдоль реки.",
    "tr+f2": "Yarın hava güzel olacak, bu yüzden sabah nehir boyunca yürümek istiyoruz.",
    "de": "Guten Tag, ich hätte gern ein Zimmer für zwei Personen mit Bad, bitte.",
}
# sentences whose language float32 detects with a probability of 0.3 to 0.5; 8-bit activations must detect it, AVX2's 7-bit activations miss some
UNCERTAIN = {
    "fr": "Il fera beau demain, nous voulons donc nous promener le long de la rivière le matin.",
    "ru": CONFIDENT["ru+belinda"],
    "tr": CONFIDENT["tr+f2"],
}
LANGUAGES = {"en": "english", "fr": "french", "es": "spanish", "it": "italian", "ru": "russian", "tr": "turkish", "de": "german"}
# minimum probability of float32 for a language in CONFIDENT
MIN_PROBABILITY = 0.8
# maximum increase of the word error rate over float32 decoding, in percentage points
MARGIN = 0.3


def words(text):
    """The words of a text in lower case: runs of letters, digits and apostrophes."""
    return re.findall(r"[\w']+", text.lower().replace("\u2019", "'"))


def edit_distance(expected, actual):
    """Number of substitutions, insertions and deletions (Levenshtein)."""
    row = list(range(len(actual) + 1))
    for i, a in enumerate(expected, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(actual, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


def word_error_rate(expected, actual):
    pairs = [(words(expected[name]), words(actual[name])) for name in expected]
    return 100 * sum(edit_distance(*pair) for pair in pairs) / sum(len(a) for a, _ in pairs)


def synthesize(voice, words_per_minute, text, path):
    subprocess.run(["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-w", str(path), text], check=True)


def make():
    CORPUS.mkdir(parents=True, exist_ok=True)
    lines = [line.strip() for line in TEXTS.read_text().splitlines() if line.strip()]
    expected = {}
    for name, (voice, words_per_minute, first_line) in VOICES.items():
        text = " ".join(lines[first_line::2][:LINES])
        synthesize(voice, words_per_minute, text, CORPUS / f"{name}.wav")
        expected[f"{name}.wav"] = text
    for line in (LIBRIVOX / "transcription").read_text().splitlines():
        text, name = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line).groups()
        data = (LIBRIVOX / f"{name}.wav").read_bytes()
        (CORPUS / f"{name}.wav").write_bytes(data)
        expected[f"{name}.wav"] = re.sub(r"\(\d\)", "", text)
    for voice, text in (CONFIDENT | UNCERTAIN).items():
        synthesize(voice, 140, text, CORPUS / f"language-{voice}.wav")
    (CORPUS / "transcripts.json").write_text(json.dumps(expected, indent=1))
    seconds = 0
    for name in expected:
        with wave.open(str(CORPUS / name)) as file:
            seconds += file.getnframes() / file.getframerate()
    print(f"{len(expected)} recordings, {seconds / 60:.1f} minutes")


def transcribe(model, names, *options, env={}):
    """The verbose_json output of tealight by file name."""
    command = [os.environ.get("TEALIGHT_BIN", ROOT / "target/release/tealight"), "transcribe", "--model", model, "--format", "verbose_json", *options]
    lines = subprocess.run(
        [*command, *(CORPUS / name for name in names)], env=os.environ | env, check=True, capture_output=True, text=True
    ).stdout
    return dict(zip(names, map(json.loads, lines.splitlines())))


def check(model, reference):
    expected = json.loads((CORPUS / "transcripts.json").read_text())
    actual = {name: response["text"] for name, response in transcribe(model, list(expected), "--language", "en").items()}
    wer = word_error_rate(expected, actual)
    print(f"{model}: word error rate {wer:.2f}%")
    float32_wer = word_error_rate(expected, json.loads(Path(reference).read_text()))
    print(f"{model}: with float32 {float32_wer:.2f}%", flush=True)
    failed = wer > float32_wer + MARGIN
    if not model.endswith(".en"):
        # The scalar kernels stand for all instruction sets with 8-bit activations, because their results are bit-identical.
        for env, voices in ({}, CONFIDENT), ({"TEALIGHT_ISA": "scalar"}, CONFIDENT | UNCERTAIN):
            names = [f"language-{voice}.wav" for voice in voices]
            detected = {name: response["language"] for name, response in transcribe(model, names, env=env).items()}
            print(f"{model}: languages {detected}")
            failed |= list(detected.values()) != [LANGUAGES[voice[:2]] for voice in voices]
    sys.exit(failed)


def reference(folder, output):
    from faster_whisper import WhisperModel, decode_audio

    model = WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=os.cpu_count())
    expected = json.loads((CORPUS / "transcripts.json").read_text())
    texts = {}
    for name in expected:
        segments, _ = model.transcribe(str(CORPUS / name), beam_size=1, language="en")
        texts[name] = "".join(segment.text for segment in segments)
    Path(output).write_text(json.dumps(texts, indent=1) + "\n")
    print(f"word error rate {word_error_rate(expected, texts):.2f}%")
    for voice in CONFIDENT if model.model.is_multilingual else ():
        language, probability, _ = model.detect_language(decode_audio(str(CORPUS / f"language-{voice}.wav")))
        print(f"{voice}: {language}, {probability:.2f}")
        assert language == voice[:2] and probability >= MIN_PROBABILITY, f"float32 detects {voice} with too low a probability"


def main():
    command, *rest = sys.argv[1:]
    if command == "make":
        make()
    elif command == "wer":
        expected = json.loads((CORPUS / "transcripts.json").read_text())
        print(f"word error rate {word_error_rate(expected, json.loads(Path(rest[0]).read_text())):.2f}%")
    elif command == "check":
        check(*rest)
    elif command == "reference":
        reference(*rest)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
