// Parsing documents, splitting them into sentences and words, and writing subtitles.

// Characters of documents sent per request, so that the progress bar advances.
const MAX_REQUEST_CHARS = 60_000;
// Full chunks per response, which Lambda limits to 6 MiB. A chunk with 1,024 dimensions is 5.8 kB: 5.5 kB of base64, and text and JSON.
// 1,000 of them are 5.8 MB. With 384 dimensions, which are 2 kB, 2,000 chunks fit, even if sentences fill chunks only by half.
const MAX_RESPONSE_CHUNKS = 1_000;
// [CLS] and [SEP], which the model's limit includes and the size of a chunk does not.
const SPECIAL_TOKENS = 2;
const STOP_WORDS = new Set(
  (
    "a about an and are as at be by can did do does for from had has have how i if in is it its me my not of on or " +
    "that the their then there these they this to was we were what when where which who why will with you your"
  ).split(" "),
);

/** Splits a text; granularity is "sentence" or "word". */
const splitBy = (text, granularity) => [...new Intl.Segmenter(undefined, { granularity }).segment(text)];

const splitSentences = (text) =>
  splitBy(text, "sentence")
    .map(({ segment }) => segment.trim())
    .filter(Boolean);

/** A word in lower case without the commonest English suffixes. */
const stem = (word) => {
  const lower = word.toLowerCase();
  return lower.length < 4 ? lower : lower.replace(/(?<=...)(ing|ed|es|s|e)$/, "");
};

/** The stems of a query's words, without stop words. */
const queryStems = (query) => {
  const words = splitBy(query, "word").filter(({ isWordLike, segment }) => isWordLike && !STOP_WORDS.has(segment.toLowerCase()));
  return new Set(words.map(({ segment }) => stem(segment)));
};

/** A text with the words of the query in bold. */
function highlightWords(text, stems) {
  const parts = splitBy(text, "word").map(({ segment, isWordLike }) =>
    isWordLike && stems.has(stem(segment)) ? element("b", {}, segment) : segment,
  );
  return element("span", {}, ...parts);
}

/** Nodes of a text with the words of the query in bold and one sentence marked. */
function highlightSentence(text, sentence, stems) {
  const start = sentence ? text.indexOf(sentence) : -1;
  if (start < 0) return [highlightWords(text, stems)];
  const end = start + sentence.length;
  const mark = element("mark", {}, highlightWords(text.slice(start, end), stems));
  return [highlightWords(text.slice(0, start), stems), mark, highlightWords(text.slice(end), stems)];
}

/** One document per line that is not blank. */
const parseLines = (text) =>
  text
    .split("\n")
    .map((line, i) => ({ name: `line ${i + 1}`, text: line.trim() }))
    .filter((document) => document.text);

/** The documents of a file; its extension determines the format. */
async function parseFile(file) {
  const text = (await file.text()).replace(/^\uFEFF/, "");
  const extension = file.name.split(".").pop().toLowerCase();
  const parse = { jsonl: parseJsonLines, ndjson: parseJsonLines, csv: parseTable, tsv: parseTable }[extension];
  const documents = parse ? parse(text, file.name, extension === "tsv" ? "\t" : ",") : [{ name: file.name, text }];
  const withText = documents.filter((document) => document.text.trim());
  if (!withText.length) throw new Error(`${file.name} has no text.`);
  return withText;
}

function parseJsonLines(text, name) {
  const lines = text.split("\n").map((line, i) => ({ line, location: `${name}, line ${i + 1}` }));
  return lines.filter(({ line }) => line.trim()).map(({ line, location }) => parseJsonDocument(line, location));
}

function parseJsonDocument(line, location) {
  let value;
  try {
    value = JSON.parse(line);
  } catch {
    throw new Error(`${location} is not valid JSON.`);
  }
  if (typeof value?.text !== "string") throw new Error(`${location} has no "text".`);
  return { name: String(value.id ?? location), text: value.text, metadata: value.metadata };
}

function parseTable(text, name, separator) {
  const [header = [], ...rows] = parseCsv(text, separator);
  const [textColumn, idColumn] = ["text", "id"].map((column) => header.findIndex((cell) => cell.trim().toLowerCase() === column));
  if (textColumn < 0) throw new Error(`${name} has no column "text".`);
  return rows.map((row, i) => ({
    name: row[idColumn] || `${name}, row ${i + 1}`,
    text: row[textColumn] ?? "",
    metadata: Object.fromEntries(header.map((cell, j) => [cell, row[j]]).filter((_, j) => j !== textColumn && j !== idColumn)),
  }));
}

/** Rows of cells (RFC 4180): a quoted cell may contain separators, line breaks and doubled quotes. */
function parseCsv(text, separator) {
  const rows = [[]];
  const cell = new RegExp(`(?:"([^"]*(?:""[^"]*)*)"|([^${separator}\\r\\n]*))(${separator}|\\r\\n|\\r|\\n|$)`, "y");
  while (cell.lastIndex < text.length) {
    const [, quoted, plain, end] = cell.exec(text);
    rows.at(-1).push(quoted?.replaceAll('""', '"') ?? plain);
    if (end !== separator) rows.push([]);
  }
  return rows.filter((row) => row.length > 1 || row[0]);
}

/** The maximum characters of a request, even if each of them is a token, as in Chinese. */
function maxRequestChars({ tokens, overlap }) {
  // An empty input field is NaN; the server rejects it.
  const newTokens = Math.max(1, tokens - overlap) || 1;
  return Math.min(MAX_REQUEST_CHARS, MAX_RESPONSE_CHUNKS * newTokens);
}

/** Where to split a text that is too long: after the last line, sentence or word that fits, otherwise at the limit. */
function splitPosition(text, limit) {
  if (text.length <= limit) return text.length;
  const window = text.slice(0, limit);
  const end = ["\n", ". ", " "].map((mark) => window.lastIndexOf(mark) + 1).find(Boolean) ?? limit;
  const isInsideSurrogatePair = /[\uDC00-\uDFFF]/.test(text[end]);
  return isInsideSurrogatePair ? end - 1 : end;
}

/** Splits a text into pieces of at most `limit` UTF-16 code units. The offset of a piece counts Unicode code points, as the API does, not UTF-16 code units. */
function splitLongText(text, limit) {
  const pieces = [];
  for (let offset = 0; text; ) {
    const piece = text.slice(0, splitPosition(text, limit));
    pieces.push({ text: piece, offset });
    offset += [...piece].length;
    text = text.slice(piece.length);
  }
  return pieces;
}

/** Minutes and seconds, such as 1:05. */
const formatClock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/** A subtitle timestamp such as 00:01:02,345; SubRip uses a decimal comma, WebVTT a decimal point. */
function formatTimestamp(seconds, decimalMark) {
  const ms = Math.round(seconds * 1000);
  const twoDigits = (number) => String(Math.floor(number) % 60).padStart(2, "0");
  const hours = String(Math.floor(ms / 3_600_000)).padStart(2, "0");
  return `${hours}:${twoDigits(ms / 60_000)}:${twoDigits(ms / 1000)}${decimalMark}${String(ms % 1000).padStart(3, "0")}`;
}

// In WebVTT cues, "&" and "<" start markup (https://www.w3.org/TR/webvtt1/#webvtt-cue-text).
const escapeCue = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** The lines of a cue: its time range and its text. */
const formatCue = ({ start, end }, text, decimalMark) =>
  `${formatTimestamp(start, decimalMark)} --> ${formatTimestamp(end, decimalMark)}\n${text}\n\n`;

const SUBTITLE_FORMATS = {
  srt: (segments) => segments.map((s, i) => `${i + 1}\n${formatCue(s, s.text, ",")}`).join(""),
  vtt: (segments) => "WEBVTT\n\n" + segments.map((s) => formatCue(s, escapeCue(s.text), ".")).join(""),
  txt: (segments) => segments.map((s) => `${s.text}\n`).join(""),
};
