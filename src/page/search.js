// The tab Search: documents in parts, their vectors in this page, and what fits a query.

// Documents of one request, so that progress shows.
const BATCH_DOCUMENTS = 32;
// Characters that are shown before and behind a part.
const AROUND = 120;

const building = new Action("build-note", { stop: "build-stop", progress: "build-progress" });
const finding = new Action("find-note");
const files = [];
let built = null;

/** All documents: of lines, and of files. */
const documents = () => [...ofLines($("documents").value), ...files.flatMap((file) => file.documents)];

/** Pieces of documents in requests that are not too large. */
function batches(all) {
  const list = [[]];
  let size = 0;
  for (const piece of all.flatMap((document) => pieces(document.text).map((part) => ({ document, ...part })))) {
    if (list.at(-1).length === BATCH_DOCUMENTS || size + piece.text.length > PIECE) {
      list.push([]);
      size = 0;
    }
    list.at(-1).push(piece);
    size += piece.text.length;
  }
  return list.filter((batch) => batch.length);
}

async function build(signal) {
  const all = documents();
  if (!all.length) throw new Error("There are no documents yet.");
  const chunk = { tokens: $("chunk-tokens").valueAsNumber, overlap: $("chunk-overlap").valueAsNumber };
  const [parts, start, list] = [[], performance.now(), batches(all)];
  for (const [done, batch] of list.entries()) {
    building.say(`Embedding: ${count(parts.length, "part")} so far…`);
    Object.assign($("build-progress"), { max: list.length, value: done });
    parts.push(...(await embedBatch(batch, chunk, signal)));
  }
  built = { parts };
  building.say(`${count(all.length, "document")} in ${count(parts.length, "part")}, in ${inTime(performance.now() - start)}.`);
}

/** The parts of some documents, each with its vector. */
async function embedBatch(batch, chunk, signal) {
  const body = {
    // An id says in an error which document it is about.
    documents: batch.map(({ document, text }, i) => ({ id: `${i}: ${document.name}`, text })),
    format: "json",
    encoding_format: "base64",
    chunk,
  };
  const named = new Map(body.documents.map(({ id }, i) => [id, batch[i]]));
  const rows = await (await post("documents", body, signal)).json();
  return rows.map((row) => {
    const { document, before } = named.get(row.document_id);
    return { document, start: before + row.start, end: before + row.end, text: row.text, vector: decode(row.embedding) };
  });
}

/** Builds, unless what is built is what is there. */
async function ready(signal) {
  if (built) return;
  finding.say("Building the index…");
  const isBuilt = await building.run(build);
  signal.throwIfAborted();
  if (!isBuilt) throw new Error("There is no index yet: see the note below the documents.");
}

const isOwn = () => checked("source") === "own";

async function find(signal) {
  const [query, limit] = [$("query").value, $("count").valueAsNumber];
  if (!isOwn()) await ready(signal);
  finding.say("Searching…");
  const start = performance.now();
  const results = await (isOwn() ? findOwn : findHere)(query, limit, signal);
  const shown = results.map((result) => showResult(result, stems(query)));
  $("found").replaceChildren(...shown.map((one) => one.item));
  finding.say(`${count(results.length, "result")} in ${inTime(performance.now() - start)}.`);
  await markSentences(query, results, shown, signal);
}

async function findHere(query, limit, signal) {
  const [vector] = await embed([query], signal, { truncate: false });
  const found = best(built.parts.map((part) => dot(part.vector, vector)), limit);
  return found.map(({ at, score }) => ({ ...built.parts[at], score }));
}

async function findOwn(query, k, signal) {
  const { results } = await (await post("search", { query, k, mode: $("mode").value }, signal)).json();
  return results.map(({ id, score, text, metadata }) => ({ document: { name: id, text, metadata }, score, text }));
}

/** Marks in each result the sentence that fits best. */
async function markSentences(query, results, shown, signal) {
  const split = results.map((result) => sentences(result.text));
  const [wanted, ...vectors] = await embed([query, ...split.flat()], signal);
  for (const [i, list] of split.entries()) {
    const own = vectors.splice(0, list.length);
    const [first] = best(own.map((vector) => dot(vector, wanted)), 1);
    shown[i].mark(list[first?.at]);
  }
}

/** A result in the list, and how to mark a sentence of it. */
function showResult({ document, score, start, end, text }, wanted) {
  const bar = element("span", { class: "bar" });
  bar.style.setProperty("--part", `${Math.round(100 * Math.min(Math.max(score, 0), 1))}%`);
  const head = element(
    "div",
    { class: "head" },
    element("strong", { class: "grow" }, document.name),
    bar,
    element("span", { class: "score" }, score.toFixed(3)),
  );
  const passage = element("span");
  const [before, behind] = surroundings(document.text, start, end);
  const item = element("li", { class: "card" }, head, whole(before, passage, behind), ...about(document));
  const mark = (sentence) => passage.replaceChildren(...marked(text, sentence, wanted));
  mark();
  return { item, mark };
}

/** What stands before and behind a part of a document. */
function surroundings(text, start, end) {
  if (start == null) return ["", ""];
  const characters = [...text];
  return [characters.slice(0, start).join(""), characters.slice(end).join("")];
}

/** A part in its document, of which first only the nearest is shown. */
function whole(before, passage, behind) {
  const [head, tail] = [element("span", { class: "around" }), element("span", { class: "around" })];
  const text = element("p", { class: "passage" }, head, passage, tail);
  const show = (isAll) => {
    head.textContent = isAll || before.length <= AROUND ? before : `… ${before.slice(-AROUND)}`;
    tail.textContent = isAll || behind.length <= AROUND ? behind : `${behind.slice(0, AROUND)} …`;
  };
  show(false);
  if (before.length <= AROUND && behind.length <= AROUND) return text;
  const button = element("button", { type: "button", class: "quiet", "aria-expanded": "false" }, "Whole document");
  on(button, "click", () => {
    const isAll = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", isAll);
    show(isAll);
  });
  return element("div", {}, text, button);
}

/** What else is known of a document, in a line. */
function about({ metadata }) {
  const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const said = Object.entries(metadata ?? {}).map(([name, value]) => `${name}: ${shown(value)}`);
  return said.length ? [element("p", { class: "hint" }, said.join(" · "))] : [];
}

async function addFiles(list) {
  changed();
  await building.run(async () => {
    const wrong = [];
    for (const file of list) {
      const take = (documents) => files.push({ name: file.name, documents });
      await ofFile(file).then(take, (error) => wrong.push(error.message));
    }
    if (wrong.length) throw new Error(wrong.join(" "));
  });
  showFiles();
}

function showFiles() {
  const items = files.map((file) => {
    const remove = element("button", { type: "button", class: "quiet", "aria-label": `Remove ${file.name}` }, "Remove");
    on(remove, "click", () => {
      files.splice(files.indexOf(file), 1);
      changed();
      showFiles();
    });
    return element("li", { class: "row between" }, `${file.name}: ${count(file.documents.length, "document")}`, remove);
  });
  $("file-list").replaceChildren(...items);
}

/** What is built is of other documents, or in other parts. */
function changed() {
  if (built) building.say("The documents have changed: the next search reads them again.");
  built = null;
  building.abort();
}

function takeDrops(target) {
  const shade = (isOver) => target.classList.toggle("dragging", isOver);
  on(target, "dragover", (event) => {
    event.preventDefault();
    shade(true);
  });
  on(target, "dragleave", () => shade(false));
  on(target, "drop", (event) => {
    event.preventDefault();
    shade(false);
    addFiles(event.dataTransfer.files);
  });
}

/** Documents of the page, or the function's own index. */
function showSource() {
  $("build-form").hidden = isOwn();
  $("mode-field").hidden = !isOwn();
  $("found").replaceChildren();
  finding.say("");
}

function startSearch() {
  on($("build-form"), "submit", (event) => {
    event.preventDefault();
    finding.abort();
    building.run(build);
  });
  on($("find-form"), "submit", (event) => {
    event.preventDefault();
    building.abort();
    finding.run(find);
  });
  for (const id of ["documents", "chunk-tokens", "chunk-overlap"]) on($(id), "input", changed);
  on($("files"), "change", async (event) => {
    await addFiles([...event.target.files]);
    event.target.value = "";
  });
  takeDrops($("build-form"));
  on($("source"), "change", showSource);
}
