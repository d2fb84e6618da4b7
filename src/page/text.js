// Documents, sentences, words and subtitles.

// A document is sent in pieces of so many characters at most: the vectors of their smallest parts fit into what Lambda replies, 6 MB.
const PIECE = 60_000;
// Words that say nothing of what is looked for.
const COMMON = new Set(
  (
    "a about an and are as at be by can did do does for from had has have how i if in is it its me my not of on or " +
    "that the their then there these they this to was we were what when where which who why will with you your"
  ).split(" "),
);

const segments = (text, granularity) => [...new Intl.Segmenter(undefined, { granularity }).segment(text)];

const sentences = (text) =>
  segments(text, "sentence")
    .map(({ segment }) => segment.trim())
    .filter(Boolean);

/** A word without its case and its commonest English endings. */
const stem = (word) => {
  const lower = word.toLowerCase();
  return lower.length < 4 ? lower : lower.replace(/(?<=...)(ing|ed|es|s|e)$/, "");
};

const stems = (query) => {
  const words = segments(query, "word").filter(({ isWordLike, segment }) => isWordLike && !COMMON.has(segment.toLowerCase()));
  return new Set(words.map(({ segment }) => stem(segment)));
};

/** A text with the words of a query in it. */
function worded(text, wanted) {
  const parts = segments(text, "word").map(({ segment, isWordLike }) =>
    isWordLike && wanted.has(stem(segment)) ? element("b", {}, segment) : segment,
  );
  return element("span", {}, ...parts);
}

/** The same with one sentence marked. */
function marked(text, sentence, wanted) {
  const at = sentence ? text.indexOf(sentence) : -1;
  if (at < 0) return [worded(text, wanted)];
  const end = at + sentence.length;
  const mark = element("mark", {}, worded(text.slice(at, end), wanted));
  return [worded(text.slice(0, at), wanted), mark, worded(text.slice(end), wanted)];
}

/** Documents of pasted lines. */
const ofLines = (text) =>
  text
    .split("\n")
    .map((line, i) => ({ name: `line ${i + 1}`, text: line.trim() }))
    .filter((document) => document.text);

/** Documents of a file, by its name. */
async function ofFile(file) {
  const text = (await file.text()).replace(/^\uFEFF/, "");
  const ending = file.name.split(".").pop().toLowerCase();
  const read = { jsonl: ofJsonLines, ndjson: ofJsonLines, csv: ofTable, tsv: ofTable }[ending];
  const documents = read ? read(text, file.name, ending === "tsv" ? "\t" : ",") : [{ name: file.name, text }];
  const full = documents.filter((document) => document.text.trim());
  if (!full.length) throw new Error(`${file.name} has no text.`);
  return full;
}

function ofJsonLines(text, name) {
  const lines = text.split("\n").map((line, i) => ({ line, at: `${name}, line ${i + 1}` }));
  return lines.filter(({ line }) => line.trim()).map(({ line, at }) => ofJson(line, at));
}

function ofJson(line, at) {
  let value;
  try {
    value = JSON.parse(line);
  } catch {
    throw new Error(`${at} is not JSON.`);
  }
  if (typeof value?.text !== "string") throw new Error(`${at} has no "text".`);
  return { name: String(value.id ?? at), text: value.text, metadata: value.metadata };
}

function ofTable(text, name, separator) {
  const [head = [], ...rows] = cells(text, separator);
  const [textAt, idAt] = ["text", "id"].map((column) => head.findIndex((cell) => cell.trim().toLowerCase() === column));
  if (textAt < 0) throw new Error(`${name} has no column "text".`);
  return rows.map((row, i) => ({
    name: row[idAt] || `${name}, row ${i + 1}`,
    text: row[textAt] ?? "",
    metadata: Object.fromEntries(head.map((cell, j) => [cell, row[j]]).filter((_, j) => j !== textAt && j !== idAt)),
  }));
}

/** Rows of a table (RFC 4180): in quotes there may be separators, line breaks, and quotes twice. */
function cells(text, separator) {
  const rows = [[]];
  const cell = new RegExp(`(?:"([^"]*(?:""[^"]*)*)"|([^${separator}\\r\\n]*))(${separator}|\\r\\n|\\r|\\n|$)`, "y");
  while (cell.lastIndex < text.length) {
    const [, quoted, plain, end] = cell.exec(text);
    rows.at(-1).push(quoted?.replaceAll('""', '"') ?? plain);
    if (end !== separator) rows.push([]);
  }
  return rows.filter((row) => row.length > 1 || row[0]);
}

/** Where to cut a text that is too long: behind a line, a sentence or a word, if there is one. */
function cut(text) {
  if (text.length <= PIECE) return text.length;
  const window = text.slice(0, PIECE);
  const end = ["\n", ". ", " "].map((mark) => window.lastIndexOf(mark) + 1).find(Boolean) ?? PIECE;
  const isHalf = /[\uDC00-\uDFFF]/.test(text[end]);
  return isHalf ? end - 1 : end;
}

/** A text in parts that are not too long, each with the number of characters before it, which are not UTF-16's units. */
function pieces(text) {
  const parts = [];
  for (let before = 0; text; ) {
    const part = text.slice(0, cut(text));
    parts.push({ text: part, before });
    before += [...part].length;
    text = text.slice(part.length);
  }
  return parts;
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/** A moment of subtitles: 00:01:02,345, in WebVTT with a point. */
function moment(seconds, point) {
  const ms = Math.round(seconds * 1000);
  const two = (number) => String(Math.floor(number) % 60).padStart(2, "0");
  const hours = String(Math.floor(ms / 3_600_000)).padStart(2, "0");
  return `${hours}:${two(ms / 60_000)}:${two(ms / 1000)}${point}${String(ms % 1000).padStart(3, "0")}`;
}

// In cues of WebVTT "&" and "<" begin what is no text (https://www.w3.org/TR/webvtt1/#webvtt-cue-text).
const cue = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const SUBTITLES = {
  srt: (said) => said.map((s, i) => `${i + 1}\n${moment(s.start, ",")} --> ${moment(s.end, ",")}\n${s.text}\n\n`).join(""),
  vtt: (said) => "WEBVTT\n\n" + said.map((s) => `${moment(s.start, ".")} --> ${moment(s.end, ".")}\n${cue(s.text)}\n\n`).join(""),
  txt: (said) => said.map((s) => `${s.text}\n`).join(""),
};
